"""`lora plan`: what a training would do, as a person and as a program reads it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from lora_api import names
from lora_trainer.commands.plan import plan
from tests.support.files import write_training
from tests.support.object_store import faulty_store
from tests.support.pictures import write_picture

runner = CliRunner()


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(plan)
    app.callback()(lambda: None)
    return app


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write_picture(root / "3_hina woman" / "a.png", (128, 128), caption="hina woman, [red] dress")
    write_picture(root / "3_hina woman" / "b.png", (600, 400))
    write_picture(root / "reg" / "1_woman" / "r.png", (128, 128))
    return root


@pytest.fixture
def file(tmp_path: Path, dataset: Path) -> Path:
    return write_training(
        tmp_path,
        ("dataset", {"uri": f"file://{dataset}", "resolution": 128, "buckets": {"stepPx": 32}}),
        ("training", {"epochs": 2, "batchSize": 4}),
    )


def test_the_json_has_the_names_of_the_status_and_every_picture(app: typer.Typer, file: Path) -> None:
    result = runner.invoke(app, ["plan", str(file), "-o", "json"])

    assert result.exit_code == 0
    document = json.loads(result.stdout)
    pictures = document.pop("pictures")
    warnings = document.pop("warnings")
    assert document == {
        "images": 2,
        "regularizationImages": 1,
        "captionsFound": 1,
        "captionsMissing": 2,
        "samplesPerEpoch": 12,
        "buckets": [
            {"widthPx": 128, "heightPx": 128, "images": 2, "samples": 9, "batches": 3, "cropLossPercent": 0.0},
            {"widthPx": 160, "heightPx": 96, "images": 1, "samples": 3, "batches": 1, "cropLossPercent": 10.3},
        ],
        "batchesPerEpoch": 4,
        "stepsPerEpoch": 4,
        "epochs": 2,
        "totalSteps": 8,
        "heldOutImages": 0,
        "processes": 1,
        "warmupSteps": 0,
        "decaySteps": 0,
    }
    assert len(warnings) == 1
    assert pictures[1] == {
        "path": "3_hina woman/b.png",
        "widthPx": 600,
        "heightPx": 400,
        "bucket": [160, 96],
        "resized": [160, 107],
        "crop": [0, 5],
        "cropLossPercent": 10.3,
        "caption": "hina woman",
        "captionSource": "folder",
        "repeats": 3,
        "isRegularization": False,
        "isHeldOut": False,
    }


def test_the_text_says_the_same_for_people(app: typer.Typer, file: Path) -> None:
    result = runner.invoke(app, ["plan", str(file)])

    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert "pictures 2, and 1 for regularisation" in words
    assert "captions 1 found, 2 missing" in words
    assert "samples an epoch 12, 6 of them for regularisation" in words
    assert "steps 4 an epoch, 2 epochs, 8 in all" in words
    assert "bucket (px) ┃ pictures ┃ samples ┃ batches ┃ crop loss" in words
    assert "160x96 │ 1 │ 3 │ 1 │ 10.3 %" in words
    assert "warning: 2 pictures have no .txt file" in words


def test_held_out_pictures_are_named_and_not_counted(app: typer.Typer, file: Path, dataset: Path) -> None:
    for index in range(8):
        Image.new("RGB", (128, 128), (30 * index, 0, 0)).save(dataset / "3_hina woman" / f"more-{index}.png")

    document = json.loads(runner.invoke(app, ["plan", str(file), "--set", "evaluation={}", "-o", "json"]).stdout)
    words = " ".join(runner.invoke(app, ["plan", str(file), "--set", "evaluation={}"]).stdout.split())

    names = [picture["path"] for picture in document["pictures"] if picture["isHeldOut"]]
    assert (document["images"], document["heldOutImages"], len(names)) == (8, 2, 2)
    assert "held out 2, never trained on" in words
    assert f"2 of 10 pictures are held out to measure over-fitting and are not trained on: {', '.join(names)};" in words


def test_overrides_change_the_plan(app: typer.Typer, file: Path) -> None:
    result = runner.invoke(app, ["plan", str(file), "--set", "training.maxSteps=3", "-o", "json"])

    assert json.loads(result.stdout)["totalSteps"] == 3


def write_folder(folder: Path, count: int, size: tuple[int, int] = (64, 64)) -> None:
    """Many equal pictures, quickly."""
    first = write_picture(folder / "0.png", size)
    for index in range(1, count):
        shutil.copyfile(first, folder / f"{size[0]}x{size[1]}-{index}.png")


def planned(app: typer.Typer, file: Path, *arguments: str) -> dict[str, Any]:
    """What `lora plan -o json` says."""
    result = runner.invoke(app, ["plan", str(file), "-o", "json", *arguments])
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_98_pictures_with_520_for_regularization_make_98000_steps(app: typer.Typer, tmp_path: Path) -> None:
    write_folder(tmp_path / "d" / "50_hina woman", 98)
    write_folder(tmp_path / "d" / "reg" / "20_woman", 520)
    file = write_training(
        tmp_path, ("dataset", {"uri": f"file://{tmp_path}/d", "resolution": 64}), ("training.epochs", 10)
    )

    one, two = planned(app, file), planned(app, file, "--set", "training.batchSize=2")

    assert (one["images"], one["regularizationImages"], one["samplesPerEpoch"]) == (98, 520, 9800)
    assert (one["stepsPerEpoch"], one["totalSteps"]) == (9800, 98000)
    assert (two["stepsPerEpoch"], two["totalSteps"]) == (4900, 49000)


def test_two_concepts_with_two_folders_for_regularization_make_48000_steps(app: typer.Typer, tmp_path: Path) -> None:
    for folder, count in (("100_a man", 20), ("20_b man", 50), ("reg/5_man", 500), ("reg/5_person", 500)):
        write_folder(tmp_path / "d" / folder, count)
    file = write_training(
        tmp_path, ("dataset", {"uri": f"file://{tmp_path}/d", "resolution": 64}), ("training.epochs", 8)
    )

    document = planned(app, file)

    assert (document["samplesPerEpoch"], document["totalSteps"]) == (6000, 48000)


def test_the_mixed_shapes_of_the_reference_by_batch_accumulation_and_processes(
    app: typer.Typer, tmp_path: Path
) -> None:
    for size, count in (((768, 768), 9), ((512, 768), 5), ((1152, 640), 4), ((640, 896), 2)):
        write_folder(tmp_path / "d" / f"10_{size[0]}", count, size)
    dataset = {"uri": f"file://{tmp_path}/d", "resolution": 768, "buckets": {"minPx": 320, "maxPx": 1024}}
    file = write_training(tmp_path, ("dataset", dataset), ("training.epochs", 10))

    totals = {}
    for batch, accumulation, processes in ((1, 1, 1), (3, 1, 1), (4, 1, 1), (8, 1, 1), (8, 2, 1), (4, 1, 2), (8, 2, 2)):
        sizes = [f"training.batchSize={batch}", f"training.gradientAccumulationSteps={accumulation}"]
        arguments = [part for size in sizes for part in ("--set", size)]
        document = planned(app, file, *arguments, "--processes", str(processes))
        assert document["processes"] == processes
        totals[batch, accumulation, processes] = (document["batchesPerEpoch"], document["totalSteps"])

    assert totals == {
        (1, 1, 1): (200, 2000),
        (3, 1, 1): (68, 680),
        (4, 1, 1): (51, 510),
        (8, 1, 1): (26, 260),
        (8, 2, 1): (26, 130),
        (4, 1, 2): (51, 260),
        (8, 2, 2): (26, 70),
    }
    assert [(b["widthPx"], b["samples"]) for b in document["buckets"]] == [(640, 70), (768, 90), (1024, 40)]


def test_the_number_of_processes_is_shown_to_people(app: typer.Typer, file: Path) -> None:
    result = runner.invoke(app, ["plan", str(file), "--processes", "2"])

    words = " ".join(result.stdout.split())
    assert "batch size 4 x 2 processes" in words
    assert "steps 2 an epoch, 2 epochs, 4 in all" in words


def test_captions_that_are_cut_are_named(app: typer.Typer, file: Path, dataset: Path) -> None:
    (dataset / "3_hina woman" / "a.txt").write_text("cat " * 76, encoding="utf-8")

    warnings = planned(app, file)["warnings"]

    assert any("longer than 75 tokens, and their end is cut off: 3_hina woman/a.png;" in words for words in warnings)
    assert not any(
        "longer than" in words for words in planned(app, file, "--set", "dataset.captions.maxTokens=150")["warnings"]
    )


def test_a_picture_that_loses_much_to_its_bucket_is_named(app: typer.Typer, file: Path, dataset: Path) -> None:
    write_picture(dataset / "3_hina woman" / "long.png", (1000, 100))

    assert any("crop" in words and "3_hina woman/long.png (" in words for words in planned(app, file)["warnings"])


def test_what_cannot_work_is_refused_before_anything_is_read(app: typer.Typer, tmp_path: Path) -> None:
    dataset = {"uri": "file:///nowhere", "resolution": "64x128", "buckets": {"maxPx": 64}}
    file = write_training(tmp_path, ("dataset", dataset))

    result = runner.invoke(app, ["plan", str(file)])

    assert result.exit_code == 64
    assert "spec.dataset.buckets.maxPx is 64" in result.stderr


def test_a_broken_picture_ends_with_65_and_its_name(app: typer.Typer, file: Path, dataset: Path) -> None:
    (dataset / "3_hina woman" / "c.jpg").write_bytes(b"no picture")

    result = runner.invoke(app, ["plan", str(file)])

    assert result.exit_code == 65
    assert "InvalidDataset: the dataset has 1 problem:\n- 3_hina woman/c.jpg is no picture" in result.stderr


def test_a_wrong_field_ends_with_64(app: typer.Typer, file: Path) -> None:
    result = runner.invoke(app, ["plan", str(file), "--set", "training.epocs=1"])

    assert result.exit_code == 64
    assert "did you mean epochs?" in result.stderr


def test_a_dataset_in_a_bucket_is_fetched_once(
    app: typer.Typer, tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_store() as store:
        monkeypatch.setenv(names.ENV_CREDENTIALS_DIR, str(store.connection(tmp_path).settings.credentials_dir))
        bucket = store.make_bucket()
        for path in (path for path in dataset.rglob("*") if path.is_file()):
            store.client.put_object(Bucket=bucket, Key=f"d/{path.relative_to(dataset)}", Body=path.read_bytes())
        storage = {"endpoint": store.endpoint}
        file = write_training(
            tmp_path, ("dataset.uri", f"s3://{bucket}/d"), ("dataset.resolution", 128), ("storage", storage)
        )

        results = [
            runner.invoke(app, ["plan", str(file), "-o", "json", "--work-dir", str(tmp_path / "w")]) for _ in range(2)
        ]

        assert [result.exit_code for result in results] == [0, 0]
        assert results[0].stdout == results[1].stdout
        assert sum(f"GET /{bucket}/d/" in request for request in store.requests) == 4


def test_no_model_library_is_loaded_to_plan(file: Path) -> None:
    code = (
        "import sys, typer; from lora_trainer.commands.plan import plan;"
        "app = typer.Typer(); app.command()(plan); app(standalone_mode=False);"
        "sys.exit(bool({'torch', 'diffusers', 'peft'} & sys.modules.keys()))"
    )

    assert subprocess.run([sys.executable, "-c", code, str(file)], check=False).returncode == 0


def test_no_model_library_is_loaded_to_begin_with() -> None:
    code = (
        "import sys, lora_trainer.commands.plan, lora_trainer.commands.validate;"
        "sys.exit(bool({'torch', 'diffusers', 'transformers', 'peft'} & sys.modules.keys()))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
