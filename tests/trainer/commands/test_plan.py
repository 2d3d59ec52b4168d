"""`lora plan`: what a training would do, as a person and as a program reads it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
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
            {"widthPx": 128, "heightPx": 128, "images": 2, "samples": 9, "batches": 3},
            {"widthPx": 160, "heightPx": 96, "images": 1, "samples": 3, "batches": 1},
        ],
        "batchesPerEpoch": 4,
        "stepsPerEpoch": 4,
        "epochs": 2,
        "totalSteps": 8,
    }
    assert len(warnings) == 1
    assert pictures[1] == {
        "path": "3_hina woman/b.png",
        "widthPx": 600,
        "heightPx": 400,
        "bucket": [160, 96],
        "resized": [160, 107],
        "crop": [0, 5],
        "caption": "hina woman",
        "captionSource": "folder",
        "repeats": 3,
        "isRegularization": False,
    }


def test_the_text_says_the_same_for_people(app: typer.Typer, file: Path) -> None:
    result = runner.invoke(app, ["plan", str(file)])

    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert "pictures 2, and 1 for regularisation" in words
    assert "captions 1 found, 2 missing" in words
    assert "samples an epoch 12, 6 of them for regularisation" in words
    assert "steps 4 an epoch, 2 epochs, 8 in all" in words
    assert "160x96" in words
    assert "warning: 2 pictures have no .txt file" in words


def test_overrides_change_the_plan(app: typer.Typer, file: Path) -> None:
    result = runner.invoke(app, ["plan", str(file), "--set", "training.maxSteps=3", "-o", "json"])

    assert json.loads(result.stdout)["totalSteps"] == 3


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


def test_no_model_library_is_loaded() -> None:
    code = (
        "import sys, lora_trainer.commands.plan, lora_trainer.commands.validate;"
        "sys.exit(bool({'torch', 'diffusers', 'transformers', 'peft'} & sys.modules.keys()))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
