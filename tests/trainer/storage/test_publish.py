"""Readers trust only what a manifest names; it is written last."""

import hashlib
import json
from pathlib import Path

import pytest

from lora_api.run_manifest import RunManifest
from lora_trainer.storage import (
    DamagedFile,
    MissingFile,
    Publisher,
    Store,
    UnreadableManifest,
    describe,
    fetch_published,
    read_manifest,
)
from lora_trainer.storage.directory_store import DirectoryStore


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return DirectoryStore(tmp_path / "out", "pvc://claim/out", on_bytes=lambda _: None)


def manifest_of(publisher: Publisher) -> RunManifest:
    return RunManifest(
        complete=True,
        name="hina",
        spec_digest="a",
        dataset_digest="b",
        base_digest="c",
        epoch=1,
        step=10,
        total_steps=10,
        created_time="2026-01-01T00:00:00Z",
        files=publisher.files,
    )


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def publish(store: Store, tmp_path: Path, *, folder: str = "") -> RunManifest:
    publisher = Publisher(store, folder=folder)
    for name in ("b.bin", "a.bin"):
        local = write(tmp_path, name, name.encode())
        publisher.publish(local, describe(local, f"adapters/{name}", "adapter", epoch=1, step=10, loss=0.5))
    manifest = manifest_of(publisher)
    publisher.publish_manifest(manifest)
    return manifest


def test_the_description_of_a_file_holds_size_and_digest(tmp_path: Path) -> None:
    described = describe(write(tmp_path, "a.bin", b"abc"), "adapters/a.bin", "adapter", epoch=2)

    assert described.sha256 == hashlib.sha256(b"abc").hexdigest()
    assert (described.size_bytes, described.path, described.kind, described.epoch) == (
        3,
        "adapters/a.bin",
        "adapter",
        2,
    )


def test_a_published_run_comes_back_whole(store: Store, tmp_path: Path) -> None:
    manifest = publish(store, tmp_path)

    read = read_manifest(store)
    assert read == manifest
    assert [file.path for file in manifest.files] == ["adapters/a.bin", "adapters/b.bin"]
    fetch_published(store, manifest, tmp_path / "back")
    assert (tmp_path / "back" / "adapters" / "a.bin").read_bytes() == b"a.bin"


def test_a_folder_of_the_store_has_a_manifest_of_its_own(store: Store, tmp_path: Path) -> None:
    manifest = publish(store, tmp_path, folder="state/step-10")

    assert read_manifest(store) is None
    assert read_manifest(store, folder="state/step-10") == manifest
    assert "state/step-10/adapters/a.bin" in store.list()


def test_a_file_that_was_not_published_is_never_named(store: Store, tmp_path: Path) -> None:
    publisher = Publisher(store)
    local = write(tmp_path, "a.bin", b"abc")
    manifest = manifest_of(publisher).model_copy(update={"files": (describe(local, "a.bin", "adapter"),)})

    with pytest.raises(AssertionError, match="not published"):
        publisher.publish_manifest(manifest)

    assert store.list() == []


def test_files_of_an_earlier_attempt_may_be_named(store: Store, tmp_path: Path) -> None:
    manifest = publish(store, tmp_path)
    second = Publisher(store)

    second.restore(manifest.files)

    assert second.files == manifest.files


def test_a_damaged_file_does_not_come_back(store: Store, tmp_path: Path) -> None:
    manifest = publish(store, tmp_path)
    store.put_bytes(b"A.bin", "adapters/a.bin")

    with pytest.raises(DamagedFile):
        fetch_published(store, manifest, tmp_path / "back")


def test_a_missing_file_does_not_come_back(store: Store, tmp_path: Path) -> None:
    manifest = publish(store, tmp_path)
    store.delete("adapters/b.bin")

    with pytest.raises(MissingFile):
        fetch_published(store, manifest, tmp_path / "back")


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff\xfe"])
def test_something_else_in_the_place_of_a_manifest_is_told_apart(store: Store, data: bytes) -> None:
    store.put_bytes(data, "manifest.json")

    with pytest.raises(UnreadableManifest, match=r"pvc://claim/out/manifest\.json is no manifest of a training"):
        read_manifest(store)


@pytest.mark.parametrize("path", ["../../outside", "/outside", "a/../../outside", "a//b", "a\\b"])
def test_a_manifest_that_names_a_place_outside_its_folder_is_none(store: Store, tmp_path: Path, path: str) -> None:
    manifest = publish(store, tmp_path).model_dump_json(by_alias=True, exclude_none=True)
    hostile = json.loads(manifest)
    hostile["files"][0]["path"] = path
    store.put_bytes(json.dumps(hostile).encode(), "manifest.json")

    with pytest.raises(UnreadableManifest):
        read_manifest(store)
