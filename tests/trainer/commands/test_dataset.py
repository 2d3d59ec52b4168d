"""`lora dataset crop`."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from lora_trainer.commands.dataset import dataset
from lora_trainer.data.folders import concept_of
from tests.support.curated import drawing
from tests.support.tiny_detector import write_tiny_detector

FOLDER = "50_hina wife a woman"
BOXES = {"face": [40, 10, 60, 30], "person": [20, 0, 80, 200]}
EXACT = ("--margin", "face=0", "--margin", "body=0", "--margin", "full=0", "--min-px", 16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One picture with a caption, one without, and a regularisation picture."""
    folder = tmp_path / "data" / FOLDER
    folder.mkdir(parents=True)
    (tmp_path / "data" / "reg" / "20_a woman").mkdir(parents=True)
    for path in (folder / "1.png", folder / "2.jpg", tmp_path / "data" / "reg" / "20_a woman" / "r.png"):
        drawing(len(path.name), (150, 200)).save(path)
    (folder / "1.txt").write_text("hina, smile\n")
    return tmp_path / "data"


def boxes(root: Path, *names: str) -> Path:
    path = root.parent / "boxes.json"
    path.write_text(json.dumps(dict.fromkeys(names, BOXES)))
    return path


def run(root: Path, *arguments: object) -> Result:
    return CliRunner().invoke(dataset, ["crop", str(root), *map(str, arguments)])


def files(root: Path) -> list[str]:
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.startswith((FOLDER + "/", "reg/")))


def test_face_body_and_full_figure_get_folders_and_captions(root: Path) -> None:
    result = run(root, "--boxes", boxes(root, f"{FOLDER}/1.png"), *EXACT)

    assert result.exit_code == 0
    assert "3 crops written, 1 left out." in result.stdout
    assert f"{FOLDER}/2.jpg has no boxes" in result.stdout
    expected = {"face": ((40, 10, 60, 30), "face"), "body": ((20, 30, 80, 200), "body")}
    expected["full body"] = ((20, 0, 80, 200), "full body")
    for name, (box, words) in expected.items():
        folder = root / f"{FOLDER} {name}"
        with Image.open(folder / "1.png") as crop, Image.open(root / FOLDER / "1.png") as picture:
            assert crop.tobytes() == picture.crop(box).tobytes()
        assert (folder / "1.txt").read_text() == f"hina, smile, {words}\n"
        assert concept_of(folder.name) == (50, f"hina wife a woman {name}")


def test_folders_words_and_parts_can_be_chosen(root: Path) -> None:
    chosen = ("--into", "face=20_{text} close", "--words", "face=close-up", "--part", "face")

    run(root, "--boxes", boxes(root, f"{FOLDER}/1.png"), *EXACT, *chosen)

    assert files(root) == ["20_hina wife a woman close/1.png", "20_hina wife a woman close/1.txt"]
    assert (root / files(root)[1]).read_text() == "hina, smile, close-up\n"


def test_a_picture_without_caption_gives_crops_without(root: Path) -> None:
    run(root, "--boxes", boxes(root, f"{FOLDER}/2.jpg"), *EXACT, "--part", "full")

    assert files(root) == [f"{FOLDER} full body/2.png"]


@pytest.mark.parametrize("face", [f"{FOLDER} face", "20_hina face"])
def test_a_second_start_writes_nothing_and_cuts_no_crops(root: Path, face: str) -> None:
    arguments = ("--boxes", boxes(root, f"{FOLDER}/1.png"), *EXACT, "--into", f"face={face}")
    run(root, *arguments)
    before = {name: (root / name).read_bytes() for name in files(root)}

    result = run(root, *arguments)

    assert "0 crops written, 4 left out." in result.stdout
    assert f"{FOLDER}/1.png has its crop {face}/1.png already (face)" in result.stdout
    assert {name: (root / name).read_bytes() for name in files(root)} == before


def test_a_file_that_is_there_is_never_written_over(root: Path) -> None:
    target = root / f"{FOLDER} face" / "1.png"
    target.parent.mkdir()
    target.write_bytes(b"mine")

    run(root, "--boxes", boxes(root, f"{FOLDER}/1.png"), *EXACT)

    assert target.read_bytes() == b"mine"


def test_a_dry_run_says_what_and_writes_nothing(root: Path) -> None:
    result = run(root, "--boxes", boxes(root, f"{FOLDER}/1.png"), *EXACT, "--dry-run")

    assert f"{FOLDER}/1.png [20, 30, 80, 200] → {FOLDER} body/1.png" in result.stdout
    assert "3 crops would be written, 1 left out." in result.stdout
    assert files(root) == []


def test_small_crops_are_left_out(root: Path) -> None:
    result = run(root, "--boxes", boxes(root, f"{FOLDER}/1.png"), *EXACT, "--min-px", 50)

    assert f"{FOLDER}/1.png would give 20x20 px, less than 50 px at a side (face)" in result.stdout
    assert f"{FOLDER} full body/1.png" in files(root)


def test_one_concept_folder_alone_gets_its_crops_beside_it(root: Path) -> None:
    run(root / FOLDER, "--boxes", boxes(root, f"{FOLDER}/1.png"), *EXACT, "--part", "full")

    assert files(root) == [f"{FOLDER} full body/1.png", f"{FOLDER} full body/1.txt"]


def test_a_detector_says_where_the_person_is(root: Path, tmp_path: Path) -> None:
    model = write_tiny_detector(tmp_path / "model", ["person"], label="person", box=(0.5, 0.5, 0.4, 0.5))

    result = run(root, "--detector", model, *EXACT, "--part", "full", "--part", "face")

    assert "2 crops written, 2 left out." in result.stdout
    assert f"{FOLDER}/1.png and 1 more: has no face box (face)" in result.stdout
    with Image.open(root / f"{FOLDER} full body" / "1.png") as crop, Image.open(root / FOLDER / "1.png") as picture:
        assert crop.tobytes() == picture.crop((45, 50, 105, 150)).tobytes()


def test_two_pictures_that_would_give_one_file_are_named(root: Path) -> None:
    (root / FOLDER / "2.jpg").rename(root / FOLDER / "1.jpg")

    result = run(root, "--boxes", boxes(root, f"{FOLDER}/1.png"), *EXACT)

    assert result.exit_code == 65
    assert f"{FOLDER}/1.jpg and {FOLDER}/1.png would both give {FOLDER} face/1.png" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --boxes or --detector"),
        (("--boxes", "BOXES", "--part", "feet"), "--part is feet; use face, body, full"),
        (("--boxes", "BOXES", "--into", "face=faces"), "--into gives 'faces' as the folder of face crops"),
        (("--boxes", "BOXES", "--into", "face={text}_{place}"), "--into face={text}_{place} cannot be filled in"),
        (("--boxes", "BOXES", "--into", f"face={FOLDER}"), "there is no folder to cut"),
        (("--boxes", "BOXES", "--into", "faces"), "--into is 'faces'; write face=… or body=… or full=…"),
        (("--boxes", "BOXES", "--margin", "face=wide"), "--margin face=wide is no share"),
        (("--boxes", "STRANGE"), "names 1 pictures that are not there, such as 9.png"),
    ],
)
def test_what_cannot_be_meant_is_refused(root: Path, arguments: tuple[str, ...], message: str) -> None:
    name = "9.png" if "STRANGE" in arguments else f"{FOLDER}/1.png"
    given = boxes(root, name)

    result = run(root, *(given if argument in ("BOXES", "STRANGE") else argument for argument in arguments))

    assert result.exit_code == 64
    assert message in result.stderr
    assert files(root) == []
