"""Of a claim only what lies in it is read: a link to one of the pod's Secrets is no caption."""

import os
from pathlib import Path

import pytest

from lora_api.cluster_spec import Storage
from lora_trainer.errors import InvalidDataset
from lora_trainer.settings import Settings
from lora_trainer.storage import Connection, Source, fetch
from lora_trainer.storage.on_disk import find_escape
from lora_trainer.storage.probe import check_readable


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of a claim, beside a Secret."""
    folder = tmp_path / "claims" / "data" / "10_hina"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("hina")
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("secret")
    return folder


def connection(tmp_path: Path) -> Connection:
    return Connection(Storage(), Settings(work_dir=tmp_path / "work", claims_dir=tmp_path / "claims"))


@pytest.mark.parametrize("target", ["../../../AWS_SECRET_ACCESS_KEY", "../../..", "/proc/self/environ"])
def test_a_link_that_leads_out_of_the_claim_is_refused_by_preflight_and_training(
    data: Path, tmp_path: Path, target: str
) -> None:
    (data / "b.txt").symlink_to(target)
    source = Source("pvc://data", "spec.dataset.uri", InvalidDataset)
    said = r"spec\.dataset\.uri: .*10_hina/b\.txt is a link that leads out of its claim; put the file there"

    with pytest.raises(InvalidDataset, match=said):
        check_readable(source, connection(tmp_path))
    with pytest.raises(InvalidDataset, match=said):
        fetch(source, tmp_path / "t", connection(tmp_path), on_bytes=print)


def test_the_named_folder_itself_may_not_be_such_a_link(data: Path, tmp_path: Path) -> None:
    (data / "away").symlink_to(tmp_path)

    with pytest.raises(InvalidDataset, match="leads out of its claim"):
        check_readable(Source("pvc://data/10_hina/away", "spec.dataset.uri", InvalidDataset), connection(tmp_path))


def test_a_chain_of_links_is_followed_to_its_end(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "claims" / "data" / "elsewhere"
    other.mkdir()
    (other / "b.txt").symlink_to(tmp_path / "AWS_SECRET_ACCESS_KEY")
    (data / "folder").symlink_to(other)

    assert find_escape(data, tmp_path / "claims" / "data") == other / "b.txt"


def test_links_inside_the_claim_and_to_themselves_are_allowed(data: Path, tmp_path: Path) -> None:
    (data / "b.txt").symlink_to("a.txt")
    (data / "up").symlink_to("..")
    (data / "itself").symlink_to("itself")

    assert find_escape(data, tmp_path / "claims" / "data") is None


def test_the_mount_of_the_claim_may_be_a_link(data: Path, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.symlink_to(data.parent)

    assert find_escape(mount, mount) is None


def test_a_folder_that_cannot_be_read_hinders_nobody(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)

    assert find_escape(data.parent, data.parent) is None


def test_on_ones_own_machine_links_lead_anywhere(data: Path, tmp_path: Path) -> None:
    (data / "b.txt").symlink_to(tmp_path / "AWS_SECRET_ACCESS_KEY")

    assert fetch(Source(f"file://{data}", "x", InvalidDataset), tmp_path, connection(tmp_path), on_bytes=print) == data
