"""Pictures that were fetched become a plan, or an error that names what is wrong."""

from pathlib import Path

import pytest

from lora_trainer import sources
from lora_trainer.data.dataset import DatasetSources
from lora_trainer.errors import InvalidDataset
from tests.support.documents import make_training


def test_a_folder_that_is_closed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "10_a"))

    monkeypatch.setattr(sources, "scan", closed)

    with pytest.raises(InvalidDataset, match="10_a cannot be read: Permission denied; let the user that trains read"):
        sources.plan_dataset(make_training().spec, DatasetSources(root=tmp_path))
