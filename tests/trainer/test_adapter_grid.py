"""A grid of adapter files of any shape; `lora grid` on files, folders and runs."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lora_api.model_spec import Network
from lora_trainer.adapter_grid import rows_of
from lora_trainer.commands.app import app
from lora_trainer.families import catalogue
from lora_trainer.lora.formats import to_kohya, write_adapter
from lora_trainer.lora.inject import add_adapters

OPTIONS = ("-p", "a red cat", "--steps", "1", "--width", "64", "--height", "64")


@pytest.fixture(scope="module")
def adapters(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters of different kind and rank, as other tools write them."""
    folder = tmp_path_factory.mktemp("adapters")
    networks = {"style-a": Network(rank=2), "style_b": Network(type="loha", rank=3, text_encoder=False)}
    for name, network in networks.items():
        model = catalogue.load(tiny_pipeline, torch.device("cpu"), precision=torch.float32)
        live = add_adapters(model.parts, network, family=model.family, seed=1)
        random = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in live.named_parameters().values():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))
        write_adapter(folder / f"{name}.safetensors", to_kohya(live.layers, torch.float16, model.family), {})
    return folder


def grid(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["grid", *map(str, arguments)])
    return f"{result.exit_code} {result.output}"


def test_adapters_of_different_networks_are_drawn_into_one_grid(
    adapters: Path, tiny_pipeline: Path, tmp_path: Path
) -> None:
    told = grid(adapters, "--base", tiny_pipeline, "-w", "0,1", "-b", "ALL", "-b", "MIDD", *OPTIONS, "-o", tmp_path)

    assert told.startswith("0 ") and "8 pictures" in told
    pictures = {path.name: Image.open(path).convert("RGB").tobytes() for path in (tmp_path / "grid").iterdir()}
    # At weight 0 every one is the base model's.
    assert len(pictures) == 8 and len(set(pictures.values())) == 1 + 4
    assert {path.name for path in tmp_path.iterdir()} == {"grid", "grid.png", "grid.webp", "grid.json"}


def test_a_second_start_draws_nothing_again(adapters: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    arguments = (adapters / "style-a.safetensors", "--base", tiny_pipeline, *OPTIONS, "-o", tmp_path)
    grid(*arguments, "-w", "0.5")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "grid").iterdir()}

    grid(*arguments, "-w", "0.5,1")

    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "grid").iterdir()}
    assert len(after) == 2 and before.items() <= after.items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-w", "0.5,9"], "--weights is 9"),
        (["--sampler", "lms"], "--sampler is 'lms'"),
        (["--epochs", "3"], "--epochs names 3"),
        (["-b", "MIDDLE"], "--block-weights: MIDDLE is no preset"),
        (["-b", "OWN", "--presets", "none.txt"], "--presets: none.txt cannot be read: No such file or directory\n"),
        (["--width", "100"], "--width is 100"),
        (["--clip-skip", "9"], "has only 2 layers"),
    ],
)
def test_wrong_options_are_refused_by_their_names(
    arguments: list[str], message: str, adapters: Path, tiny_pipeline: Path, tmp_path: Path
) -> None:
    told = grid(adapters, "--base", tiny_pipeline, *OPTIONS, *arguments, "-o", tmp_path / "out")

    assert told.startswith("64 ") and message in told
    assert not (tmp_path / "out").exists()


def test_a_uri_is_no_folder_for_pictures(adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    told = grid(adapters, "--base", "none", *OPTIONS, "-o", "s3://bucket/grid")

    assert told.startswith("64 ") and "name a folder of this machine" in told
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_is_none_is_told_by_its_option(adapters: Path, tmp_path: Path) -> None:
    told = grid(adapters, "--base", adapters, *OPTIONS, "-o", tmp_path / "out")

    assert told.startswith("66 ") and "--base holds no model_index.json" in told


def test_an_adapter_for_another_model_is_refused_before_anything_is_drawn(
    adapters: Path, tiny_sdxl: Path, tmp_path: Path
) -> None:
    told = grid(adapters, "--base", tiny_sdxl, *OPTIONS, "-o", tmp_path / "out")

    assert told.startswith("64 ") and "style-a.safetensors" in told
    assert not (tmp_path / "out").exists()


def test_files_of_one_run_are_shown_by_their_epochs(tmp_path: Path) -> None:
    names = ("zwx-000010", "zwx-000002", "zwx", "zwx-best", "zwx-000002-diffusers")
    for name in names:
        (tmp_path / f"{name}.safetensors").write_text(name)

    rows = rows_of({tmp_path / f"{name}.safetensors": "here" for name in names})

    assert [(row.adapter.epoch, row.file.stem) for row in rows] == [(2, "zwx-000002"), (10, "zwx-000010")]


@pytest.mark.parametrize(
    ("places", "labels"),
    [
        (("s3://lora/runs/a", "s3://lora/runs/b"), ["a/zwx-000002", "b/zwx-000002"]),
        (("/runs/1/out", "/runs/2/out"), ["1/out/zwx-000002", "2/out/zwx-000002"]),
    ],
)
def test_equal_epochs_of_two_runs_are_told_apart_by_their_places(
    places: tuple[str, str], labels: list[str], tmp_path: Path
) -> None:
    files = {tmp_path / str(number) / "zwx-000002.safetensors": place for number, place in enumerate(places)}
    for file in files:
        file.parent.mkdir()
        file.write_text(str(file))

    rows = rows_of(files)

    assert [row.adapter.label for row in rows] == [f"Adapter: {label}" for label in labels]
    assert [(row.adapter.name, row.epoch, row.file) for row in rows] == [("zwx-000002", 2, file) for file in files]


def test_of_each_of_several_runs_copies_are_left_out(tmp_path: Path) -> None:
    files = {tmp_path / f"{run}{end}.safetensors": "here" for run in "ab" for end in ("-000001", "", "-best")}
    for file in files:
        file.touch()

    assert [row.adapter.label for row in rows_of(files)] == ["Adapter: a-000001", "Adapter: b-000001"]


def test_an_epoch_is_chosen_of_each_of_several_runs(adapters: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    for run in ("first", "second"):
        for epoch in (1, 2):
            file = tmp_path / run / f"zwx-{epoch:06d}.safetensors"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes((adapters / "style-a.safetensors").read_bytes())
    runs = (tmp_path / "first", tmp_path / "second")

    told = grid(*runs, "--base", tiny_pipeline, "-w", "1", "--epochs", "2", *OPTIONS, "-o", tmp_path / "out")

    assert told.startswith("0 ") and "2 pictures" in told
    shown = json.loads((tmp_path / "out/grid.json").read_text())["pictures"]
    assert [picture["adapter"] for picture in shown] == ["first/zwx-000002", "second/zwx-000002"]


def test_a_folder_that_cannot_be_written_is_told(adapters: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    told = grid(adapters, "--base", tiny_pipeline, *OPTIONS, "-o", tmp_path / "file" / "out")

    assert told.startswith("69 ") and "out cannot be written: Not a directory" in told


def test_files_of_several_runs_are_shown_by_their_names(tmp_path: Path) -> None:
    names = ("zwx-000002", "abc-000002", "other")
    for name in names:
        (tmp_path / f"{name}.safetensors").write_text(name)

    rows = rows_of({tmp_path / f"{name}.safetensors": "here" for name in names})

    assert [(row.adapter.epoch, row.adapter.name) for row in rows] == [(None, name) for name in names]
