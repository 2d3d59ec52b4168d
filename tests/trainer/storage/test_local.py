"""What lies on this machine already is used where it is."""

from pathlib import Path

import pytest

from lora_api.cluster_spec import Storage
from lora_trainer.errors import InvalidDataset
from lora_trainer.settings import Settings
from lora_trainer.storage import Connection, Source, fetch


def connection(tmp_path: Path) -> Connection:
    return Connection(Storage(), Settings(work_dir=tmp_path / "work", claims_dir=tmp_path / "claims"))


@pytest.mark.parametrize("scheme", ["file", "pvc"])
def test_a_local_folder_is_not_copied(tmp_path: Path, scheme: str) -> None:
    folder = tmp_path / "claims" / "data" / "train"
    folder.mkdir(parents=True)
    uri = f"file://{folder}" if scheme == "file" else "pvc://data/train"

    fetched = fetch(
        Source(uri, "spec.dataset.uri", InvalidDataset), tmp_path / "t", connection(tmp_path), on_bytes=print
    )

    assert fetched == folder
    assert not (tmp_path / "t").exists()


def test_a_missing_local_folder_is_named_by_field_and_path(tmp_path: Path) -> None:
    source = Source("pvc://data/none", "spec.dataset.uri", InvalidDataset)

    with pytest.raises(InvalidDataset, match=r"spec\.dataset\.uri: pvc://data/none does not exist"):
        fetch(source, tmp_path / "t", connection(tmp_path), on_bytes=print)


def test_a_name_that_no_file_can_have_is_told(tmp_path: Path) -> None:
    source = Source(f"file:///{'a' * 300}", "spec.dataset.uri", InvalidDataset)

    with pytest.raises(InvalidDataset, match=r"spec\.dataset\.uri: .* cannot be read: File name too long"):
        fetch(source, tmp_path / "t", connection(tmp_path), on_bytes=print)


def test_two_uris_or_endpoints_never_share_a_folder(tmp_path: Path) -> None:
    here = connection(tmp_path)
    elsewhere = Connection(Storage(endpoint="http://other:9000"), here.settings)

    folders = {here.folder_for("s3://b/x"), here.folder_for("s3://b/y"), elsewhere.folder_for("s3://b/x")}

    assert len(folders) == 3
    assert here.folder_for("s3://b/x") in folders
