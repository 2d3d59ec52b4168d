"""Both stores keep the same promises; what is named is whole, and what fails leaves nothing."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_trainer.errors import AccessDenied, InvalidConfiguration, StorageUnavailable
from lora_trainer.storage import DamagedFile, MissingFile, Store, check_writable, open_store
from tests.support.object_store import Fault, FaultyStore

DATA = b"adapter" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
OpenStore = Callable[[str], Store]


def nothing(count_bytes: int) -> None:
    """Counts nothing."""


def open_bucket(store: FaultyStore, tmp_path: Path, bucket: str, **options: int) -> Store:
    connection = store.connection(tmp_path, **options)
    return open_store(f"s3://{bucket}/runs/hina", connection, field="spec.output.uri", on_bytes=nothing)


@pytest.fixture(params=["s3", "file"])
def output(request: pytest.FixtureRequest, store: FaultyStore, tmp_path: Path) -> Store:
    if request.param == "s3":
        return open_bucket(store, tmp_path, store.make_bucket())
    uri = f"file://{tmp_path}/out/hina"
    return open_store(uri, store.connection(tmp_path), field="spec.output.uri", on_bytes=nothing)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.bin"
    path.write_bytes(DATA)
    return path


def test_a_stored_file_comes_back_whole(output: Store, adapter: Path, tmp_path: Path) -> None:
    output.put_file(adapter, "adapters/x.bin", sha256=SHA256)

    output.get_file("adapters/x.bin", tmp_path / "back" / "x.bin", sha256=SHA256)

    assert (tmp_path / "back" / "x.bin").read_bytes() == DATA


def test_bytes_replace_what_was_there(output: Store) -> None:
    output.put_bytes(b"old", "manifest.json")
    output.put_bytes(b"new", "manifest.json")

    assert output.get_bytes("manifest.json") == b"new"


def test_the_list_holds_keys_below_the_output_only(output: Store) -> None:
    for key in ("b", "a/c", "a/b", "ab"):
        output.put_bytes(b"x", key)

    assert output.list() == ["a/b", "a/c", "ab", "b"]
    assert output.list("a/") == ["a/b", "a/c"]


def test_a_deleted_file_is_gone_and_deleting_twice_is_no_error(output: Store) -> None:
    output.put_bytes(b"x", "state/step-1/manifest.json")

    output.delete("state/step-1/manifest.json")
    output.delete("state/step-1/manifest.json")

    assert output.list() == []


def test_a_missing_file_is_told_apart(output: Store, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"hina/manifest\.json"):
        output.get_bytes("manifest.json")
    with pytest.raises(MissingFile, match=r"hina/x\.bin"):
        output.get_file("x.bin", tmp_path / "x.bin", sha256=SHA256)


def test_a_damaged_file_is_told_apart_and_not_left_behind(output: Store, tmp_path: Path) -> None:
    output.put_bytes(b"other", "x.bin")

    with pytest.raises(DamagedFile, match=r"hina/x\.bin is damaged: its SHA-256 is not that of the manifest"):
        output.get_file("x.bin", tmp_path / "x.bin", sha256=SHA256)

    assert not (tmp_path / "x.bin").exists()


def test_trying_it_out_leaves_nothing(output: Store) -> None:
    check_writable(output)

    assert output.list() == []


def test_stored_bytes_are_counted(store: FaultyStore, adapter: Path, tmp_path: Path) -> None:
    counted: list[int] = []
    for uri in (f"s3://{store.make_bucket()}/run", f"file://{tmp_path}/run"):
        output = open_store(uri, store.connection(tmp_path), field="spec.output.uri", on_bytes=counted.append)
        output.put_file(adapter, "x.bin", sha256=SHA256)

    assert sum(counted) == 2 * len(DATA)


def test_a_hub_is_no_place_for_results(store: FaultyStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"spec\.output\.uri is hf://o/r, but a hub cannot be written to"):
        open_store("hf://o/r", store.connection(tmp_path), field="spec.output.uri", on_bytes=nothing)


def test_a_missing_bucket_is_found_before_the_training(store: FaultyStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"spec\.output\.uri: bucket 'no-such' does not exist"):
        check_writable(open_bucket(store, tmp_path, "no-such"))


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_a_missing_right_is_found_before_the_training(store: FaultyStore, tmp_path: Path, method: str) -> None:
    bucket = store.make_bucket()
    store.faults.append(Fault(method, ".write-check", status=403, code="AccessDenied"))

    with pytest.raises(AccessDenied, match=r"spec\.output\.uri: not allowed to (write|read|delete) s3://"):
        check_writable(open_bucket(store, tmp_path, bucket))


def test_an_upload_carries_its_digest(store: FaultyStore, adapter: Path, tmp_path: Path) -> None:
    bucket = store.make_bucket()

    open_bucket(store, tmp_path, bucket).put_file(adapter, "x.bin", sha256=SHA256)

    head = store.client.head_object(Bucket=bucket, Key="runs/hina/x.bin")
    assert head["Metadata"] == {"sha256": SHA256}


@pytest.mark.parametrize("status", [500, 503])
def test_an_upload_survives_a_passing_failure(store: FaultyStore, adapter: Path, tmp_path: Path, status: int) -> None:
    bucket = store.make_bucket()
    store.faults.append(Fault("PUT", "x.bin", status=status, code="SlowDown", times=1))

    open_bucket(store, tmp_path, bucket).put_file(adapter, "x.bin", sha256=SHA256)

    assert store.client.get_object(Bucket=bucket, Key="runs/hina/x.bin")["Body"].read() == DATA


def test_a_lasting_failure_of_an_upload_is_the_stores(store: FaultyStore, adapter: Path, tmp_path: Path) -> None:
    bucket = store.make_bucket()
    store.faults.append(Fault("PUT", "x.bin", status=503, code="SlowDown"))

    with pytest.raises(StorageUnavailable, match=r"the store failed to write s3://.*x\.bin \(SlowDown\)"):
        open_bucket(store, tmp_path, bucket, attempts=1).put_file(adapter, "x.bin", sha256=SHA256)


def test_an_upload_that_a_proxy_lost_is_noticed(store: FaultyStore, adapter: Path, tmp_path: Path) -> None:
    bucket = store.make_bucket()
    output = open_bucket(store, tmp_path, bucket)
    output.put_bytes(b"older", "x.bin")
    store.faults.append(Fault("PUT", "x.bin", lose=True))

    with pytest.raises(StorageUnavailable, match=r"x\.bin is not what was uploaded"):
        output.put_file(adapter, "x.bin", sha256=SHA256)


def test_a_large_file_goes_up_in_parts(store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = store.make_bucket()
    monkeypatch.setattr("lora_trainer.storage.s3_store.SINGLE_PUT_BYTES", 1 << 20)
    monkeypatch.setattr("lora_trainer.storage.s3_upload.PART_BYTES", 5 << 20)
    data = bytes(6 << 20)
    path = tmp_path / "large.bin"
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    output = open_bucket(store, tmp_path, bucket)

    output.put_file(path, "large.bin", sha256=sha256)

    assert store.client.head_object(Bucket=bucket, Key="runs/hina/large.bin")["ETag"].endswith('-2"')
    output.get_file("large.bin", tmp_path / "back.bin", sha256=sha256)


def test_a_file_that_changed_meanwhile_is_not_stored(tmp_path: Path, store: FaultyStore, adapter: Path) -> None:
    output = open_store(f"file://{tmp_path}/run", store.connection(tmp_path), field="f", on_bytes=nothing)
    output.put_bytes(b"older", "x.bin")

    with pytest.raises(StorageUnavailable, match="was changed while it was stored"):
        output.put_file(adapter, "x.bin", sha256="0" * 64)

    assert output.get_bytes("x.bin") == b"older"
    assert output.list() == ["x.bin"]


def test_a_full_disk_leaves_the_older_file(tmp_path: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    output = open_store(f"file://{tmp_path}/run", store.connection(tmp_path), field="f", on_bytes=nothing)
    output.put_bytes(b"older", "manifest.json")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StorageUnavailable, match=r"the disk is full: .*manifest\.json cannot be written"):
        output.put_bytes(b"newer", "manifest.json")

    assert output.get_bytes("manifest.json") == b"older"
    assert output.list() == ["manifest.json"]
