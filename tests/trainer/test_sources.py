"""Pictures that were fetched become a plan, or an error that names what is wrong."""

from pathlib import Path

import pytest

from lora_trainer import sources
from lora_trainer.data.dataset import DatasetSources
from lora_trainer.errors import InvalidDataset
from tests.support.documents import make_training
from tests.support.tiny_run import write_pictures


def test_a_folder_that_is_closed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "10_a"))

    monkeypatch.setattr(sources, "scan", closed)

    with pytest.raises(InvalidDataset, match="10_a cannot be read: Permission denied; let the user that trains read"):
        sources.plan_dataset(make_training().spec, DatasetSources(root=tmp_path))


def test_what_is_said_about_the_spec_comes_before_what_is_said_about_the_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    (tmp_path / "5_nothing").mkdir()
    spec = make_training(("storage.endpoint", "http://minio:9000")).spec

    plan = sources.plan_dataset(spec, DatasetSources(root=tmp_path)).plan

    assert plan.warnings[0].startswith("spec.storage.endpoint is http://minio:9000: ")
    assert "5_nothing holds no pictures." in plan.warnings[1:]
