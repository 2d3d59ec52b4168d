"""`lora caption`, with a real BLIP of random weights."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import Result

from lora_trainer import caption_files
from lora_trainer.commands.caption import caption
from tests.support.command import run_command
from tests.support.pictures import write_picture
from tests.support.tiny_blip import WORDS, write_tiny_blip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_blip(tmp_path_factory.mktemp("blip") / "tiny")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them with a caption, and a regularisation picture."""
    root = tmp_path / "data"
    write_picture(root / "10_zwx man" / "a.png", color=(255, 0, 0))
    write_picture(root / "10_zwx man" / "b.jpg", color=(0, 0, 255), caption="written by hand")
    write_picture(root / "20_qvr hat" / "c.webp", color=(255, 255, 255))
    write_picture(root / "reg" / "1_man" / "r.png")
    return root


def captions_in(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): path.read_text() for path in sorted(root.rglob("*.txt"))}


def run(folder: Path | str, model: Path, *options: object) -> Result:
    return run_command(caption, folder, "--model", model, "--device", "cpu", "--max-length", 6, *options)


def test_pictures_without_caption_get_one(folder: Path, model: Path) -> None:
    result = run(folder, model)

    assert (result.exit_code, result.stdout) == (0, "2 captions written, 1 pictures had one, 1 in reg/ left out\n")
    found = captions_in(folder)
    assert list(found) == ["10_zwx man/a.txt", "10_zwx man/b.txt", "20_qvr hat/c.txt"]
    assert found.pop("10_zwx man/b.txt") == "written by hand"
    assert len(set(found.values())) == 2
    for text in found.values():
        assert set(text.split()) <= set(WORDS)


def test_trigger_prefix_and_suffix_stand_around_the_words(folder: Path, model: Path) -> None:
    run(folder / "10_zwx man", model, "--trigger", "zwx man", "--prefix", "photo:", "--suffix", "(35 mm)")

    text = captions_in(folder)["10_zwx man/a.txt"]
    assert text.startswith("photo: zwx man, ")
    assert text.endswith(" (35 mm)\n")


def test_a_second_start_writes_nothing(folder: Path, model: Path) -> None:
    run(folder, model)
    before = captions_in(folder)

    result = run(folder, model, "--trigger", "other")

    assert (result.exit_code, result.stdout) == (0, "0 captions written, 3 pictures had one, 1 in reg/ left out\n")
    assert captions_in(folder) == before


def test_overwrite_replaces_captions(folder: Path, model: Path) -> None:
    result = run(folder, model, "--overwrite")

    assert result.stdout == "3 captions written, 0 pictures had one, 1 in reg/ left out\n"
    assert captions_in(folder)["10_zwx man/b.txt"] != "written by hand"


def test_the_size_of_batches_changes_no_word(folder: Path, model: Path, tmp_path: Path) -> None:
    run(folder, model, "--batch", 1)
    alone = captions_in(folder)

    run(folder, model, "--overwrite", "--batch", 3)

    assert {name: text for name, text in captions_in(folder).items() if "b" not in name} == {
        name: text for name, text in alone.items() if "b" not in name
    }


def test_regularisation_pictures_get_captions_when_they_are_meant(folder: Path, model: Path) -> None:
    result = run(folder / "reg", model)

    assert result.stdout == "1 captions written, 0 pictures had one\n"
    assert list(captions_in(folder / "reg")) == ["1_man/r.txt"]


def test_a_damaged_picture_fails_alone(folder: Path, model: Path) -> None:
    (folder / "10_zwx man" / "a.png").write_bytes(b"no picture")

    result = run(folder, model, "--batch", 2)

    assert (result.exit_code, "10_zwx man/a.png is no picture that can be read" in result.stderr) == (65, True)
    assert result.stdout == "1 captions written, 1 pictures had one, 1 failed, 1 in reg/ left out\n"
    assert "20_qvr hat/c.txt" in captions_in(folder)


def test_what_is_written_before_ctrl_c_stays(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = caption_files.CaptionWriter.write

    def interrupted(writer: Any, target: str, text: str) -> bool:
        if target.startswith("20_"):
            raise KeyboardInterrupt
        return write(writer, target, text)

    monkeypatch.setattr(caption_files.CaptionWriter, "write", interrupted)
    stopped = run(folder, model)
    monkeypatch.undo()
    again = run(folder, model)

    assert (stopped.exit_code, stopped.stdout.startswith("Stopped: 1 captions written")) == (130, True)
    assert again.stdout.startswith("1 captions written, 2 pictures had one")


def test_nothing_else_is_left_in_the_folder(folder: Path, model: Path) -> None:
    before = {path for path in folder.rglob("*") if path.is_file()}

    run(folder, model)

    new = {path.name for path in folder.rglob("*") if path.is_file()} - {path.name for path in before}
    assert new == {"a.txt", "c.txt"}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--extension", "txt"), 64, "--extension is txt; write that of caption files"),
        (("--extension", ".png"), 64, "--extension is .png; write that of caption files"),
        (("--min-length", 9), 64, "--min-length is 9, more than --max-length 6"),
        (("--device", "gpu"), 64, "--device gpu cannot be used"),
        (("--endpoint", "minio"), 64, "--endpoint is 'minio'"),
    ],
)
def test_a_wrong_option_is_named(folder: Path, model: Path, options: tuple[object], code: int, message: str) -> None:
    result = run(folder, model, *options)

    assert (result.exit_code, message in result.stderr) == (code, True)


def test_a_folder_without_pictures_is_refused(tmp_path: Path, model: Path) -> None:
    result = run(tmp_path, model)

    assert (result.exit_code, "holds no pictures to caption" in result.stderr) == (65, True)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, model: Path) -> None:
    result = run(tmp_path / "none", model)

    assert (result.exit_code, "none is no folder; correct the path" in result.stderr) == (64, True)


def test_a_model_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    result = run(folder, tmp_path / "none")

    assert (result.exit_code, "--model: file://" in result.stderr) == (66, True)


def test_transparent_pictures_are_seen_over_white(tmp_path: Path, model: Path) -> None:
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    write_picture(tmp_path / "white.png", (40, 40), color=(255, 255, 255))

    run(tmp_path, model)

    found = captions_in(tmp_path)
    assert found["clear.txt"] == found["white.txt"]
