"""A fetched folder equals the remote one, whatever the store does; otherwise the error says who must act."""

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import (
    AccessDenied,
    BaseModelUnavailable,
    InvalidConfiguration,
    InvalidDataset,
    StorageUnavailable,
)
from lora_trainer.storage import Connection, Source, fetch
from tests.support.object_store import Fault, FaultyStore

FILES = {"10_a/x.png": b"x" * 3000, "10_a/x.txt": "hällo".encode(), "reg/1_b c/ü+%&.png": b"y" * 5000}


def nothing(count_bytes: int) -> None:
    """Counts nothing."""


def source(bucket: str, prefix: str = "/data", **options: Any) -> Source:
    return Source(f"s3://{bucket}{prefix}", "spec.dataset.uri", InvalidDataset, **options)


def fill(store: FaultyStore, files: dict[str, bytes] = FILES, prefix: str = "data/") -> str:
    bucket = store.make_bucket()
    for key, body in files.items():
        store.client.put_object(Bucket=bucket, Key=prefix + key, Body=body)
    store.requests.clear()
    return bucket


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetch_to(folder: Path, what: Source, connection: Connection) -> Path:
    return fetch(what, folder, connection, on_bytes=nothing, workers=3)


def test_a_folder_arrives_whole(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    counted: list[int] = []

    folder = fetch(source(bucket), tmp_path / "t", store.connection(tmp_path), on_bytes=counted.append, workers=2)

    assert folder.parent == tmp_path / "t"
    assert files_in(folder) == FILES
    assert sum(counted) == sum(map(len, FILES.values()))


def test_a_slash_at_the_end_changes_nothing(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)

    assert files_in(fetch_to(tmp_path / "t", source(bucket, "/data/"), store.connection(tmp_path))) == FILES


def test_a_whole_bucket_may_be_the_folder(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store, prefix="")

    assert files_in(fetch_to(tmp_path / "t", source(bucket, ""), store.connection(tmp_path))) == FILES


def test_a_folder_whose_name_only_begins_alike_is_left_alone(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    store.client.put_object(Bucket=bucket, Key="data-old/10_a/z.png", Body=b"old")

    assert files_in(fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))) == FILES


def test_one_file_may_be_named(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store, {"model.safetensors": b"weights"})
    what = Source(f"s3://{bucket}/data/model.safetensors", "spec.baseModel.uri", BaseModelUnavailable)

    path = fetch_to(tmp_path / "t", what, store.connection(tmp_path))

    assert path.name == "model.safetensors"
    assert path.read_bytes() == b"weights"


def test_only_wanted_files_are_fetched(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)

    folder = fetch_to(tmp_path / "t", source(bucket, patterns=("*.txt",)), store.connection(tmp_path))

    assert files_in(folder) == {"10_a/x.txt": FILES["10_a/x.txt"]}


def test_markers_of_folders_are_no_files(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    for key in ("data/", "data/10_a/", "data/empty/"):
        store.client.put_object(Bucket=bucket, Key=key, Body=b"")

    assert files_in(fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))) == FILES


def test_more_files_than_a_page_arrive(store: FaultyStore, tmp_path: Path) -> None:
    many = {f"1_a/{number}.txt": b"t" for number in range(7)}
    bucket = fill(store, many)
    store.page_size = 3

    assert files_in(fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))) == many
    assert store.requests.count(f"GET /{bucket}") == 3


def test_a_second_start_fetches_only_what_is_missing(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    connection = store.connection(tmp_path)
    (fetch_to(tmp_path / "t", source(bucket), connection) / "10_a" / "x.txt").unlink()
    store.requests.clear()

    folder = fetch_to(tmp_path / "t", source(bucket), connection)

    assert files_in(folder) == FILES
    assert [r for r in store.requests if (r.startswith("GET") and ".txt" in r) or ".png" in r] == [
        f"GET /{bucket}/data/10_a/x.txt"
    ]


def test_a_second_start_follows_changes(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    connection = store.connection(tmp_path)
    fetch_to(tmp_path / "t", source(bucket), connection)
    store.client.put_object(Bucket=bucket, Key="data/10_a/x.png", Body=b"z" * 3000)
    store.client.delete_object(Bucket=bucket, Key="data/reg/1_b c/ü+%&.png")

    folder = fetch_to(tmp_path / "t", source(bucket), connection)

    assert files_in(folder) == {"10_a/x.png": b"z" * 3000, "10_a/x.txt": FILES["10_a/x.txt"]}
    assert not (folder / "reg").exists()


def test_a_start_after_a_killed_one_finishes_the_rest(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    connection = store.connection(tmp_path)

    class Killed(Exception):
        pass

    def kill(count_bytes: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        fetch(source(bucket), tmp_path / "t", connection, on_bytes=kill, workers=1)
    assert not list((tmp_path / "t").rglob("*.png"))

    assert files_in(fetch_to(tmp_path / "t", source(bucket), connection)) == FILES


def test_a_half_written_ledger_line_costs_one_file_not_the_start(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    connection = store.connection(tmp_path)
    folder = fetch_to(tmp_path / "t", source(bucket), connection)
    ledger = folder.with_name(f"{folder.name}.fetched.jsonl")
    ledger.write_bytes(ledger.read_bytes()[:-20])

    assert files_in(fetch_to(tmp_path / "t", source(bucket), connection)) == FILES


def test_a_folder_with_files_of_someone_else_is_not_touched(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    folder = fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))
    other = tmp_path / "other" / folder.name
    other.mkdir(parents=True)
    (other / "thesis.txt").write_text("precious")

    with pytest.raises(InvalidConfiguration, match="holds files that were not fetched"):
        fetch_to(tmp_path / "other", source(bucket), store.connection(tmp_path))

    assert files_in(other) == {"thesis.txt": b"precious"}


@pytest.mark.parametrize("key", ["../evil.png", "a/../../evil.png", "a//b.png", "./a.png", "a\\b.png"])
def test_a_key_that_is_no_file_of_the_folder_is_refused(store: FaultyStore, tmp_path: Path, key: str) -> None:
    bucket = fill(store, {key: b"evil", "ok.png": b"fine"})

    with pytest.raises(InvalidDataset, match=r"spec\.dataset\.uri: the key .* cannot be a file of that folder"):
        fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))

    assert [path for path in tmp_path.rglob("*") if "evil" in path.name] == []


def test_a_key_that_is_file_and_folder_is_refused(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store, {"a": b"1", "a/b": b"2"})

    with pytest.raises(InvalidDataset, match=r"the key 'a' below"):
        fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))


def test_a_missing_bucket_is_a_mistake_in_the_spec(store: FaultyStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"spec\.dataset\.uri: bucket 'no-such' does not exist; create it"):
        fetch_to(tmp_path / "t", source("no-such"), store.connection(tmp_path))


def test_a_bucket_of_another_region_is_a_mistake_in_the_spec(store: FaultyStore, tmp_path: Path) -> None:
    store.faults.append(Fault("GET", status=301, code="PermanentRedirect"))

    with pytest.raises(InvalidConfiguration, match="bucket 'far-away' lies in another region"):
        fetch_to(tmp_path / "t", source("far-away"), store.connection(tmp_path))


def test_an_empty_prefix_blames_who_the_source_says(store: FaultyStore, tmp_path: Path) -> None:
    bucket = store.make_bucket()

    with pytest.raises(InvalidDataset, match=rf"spec\.dataset\.uri: there are no files at s3://{bucket}/data/"):
        fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"])
def test_refused_credentials_name_operation_and_bucket(store: FaultyStore, tmp_path: Path, code: str) -> None:
    bucket = fill(store)
    store.faults.append(Fault("GET", f"/{bucket}?", status=403, code=code))

    with pytest.raises(AccessDenied) as caught:
        fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))

    assert str(caught.value) == f"spec.dataset.uri: not allowed to list s3://{bucket}/data ({code})"


def test_a_single_unreadable_object_is_named(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    store.faults.append(Fault("GET", "x.txt", status=403, code="AccessDenied"))

    with pytest.raises(AccessDenied, match=rf"not allowed to read s3://{bucket}/data/10_a/x\.txt"):
        fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET", "x.png", status=500, code="InternalError", times=1),
        Fault("GET", "x.png", status=503, code="SlowDown", times=1),
        Fault("GET", "x.png", cut_body=True, times=1),
        Fault("GET", "x.png", flip_byte=True, times=1),
    ],
    ids=["500", "503", "cut body", "damaged body"],
)
def test_a_passing_failure_is_survived(store: FaultyStore, tmp_path: Path, fault: Fault) -> None:
    bucket = fill(store)
    store.faults.append(fault)

    assert files_in(fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))) == FILES
    assert fault.times == 0


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Fault("GET", "x.png", status=500, code="InternalError"), "the store failed to read"),
        (Fault("GET", "x.png", cut_body=True), "the store does not answer"),
        (Fault("GET", "x.png", flip_byte=True), "arrived damaged"),
    ],
    ids=["500", "cut body", "damaged body"],
)
def test_a_lasting_failure_leaves_no_half_file(store: FaultyStore, tmp_path: Path, fault: Fault, problem: str) -> None:
    bucket = fill(store)
    store.faults.append(fault)

    with pytest.raises(StorageUnavailable, match=problem):
        fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path, attempts=2))

    assert not list((tmp_path / "t").rglob("x.png"))


def test_a_changed_object_is_noticed(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    store.faults.append(Fault("GET", "x.png", status=412, code="PreconditionFailed"))

    with pytest.raises(StorageUnavailable, match=r"x\.png was changed while it was fetched"):
        fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))


def test_a_store_that_is_not_there_is_unavailable_and_no_query_is_shown(tmp_path: Path, store: FaultyStore) -> None:
    connection = store.connection(tmp_path, attempts=1, endpoint="http://127.0.0.1:9")

    with pytest.raises(StorageUnavailable) as caught:
        fetch_to(tmp_path / "t", source("bucket"), connection)

    assert str(caught.value) == (
        "spec.dataset.uri: cannot list s3://bucket/data: the store does not answer (EndpointConnectionError)"
    )


def test_messages_of_the_store_are_not_repeated(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    store.faults.append(Fault("GET", status=400, code="Odd"))

    with pytest.raises(StorageUnavailable) as caught:
        fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))

    assert "secret-key-in-message" not in str(caught.value)


def test_a_full_disk_says_what_to_do(store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = fill(store)

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", full)

    with pytest.raises(StorageUnavailable, match=r"the disk is full: .* cannot be written") as caught:
        fetch_to(tmp_path / "t", source(bucket), store.connection(tmp_path))

    assert caught.value.hint == "Free space there, or give the pod more ephemeral storage (spec.pod.resources)."
    assert len([r for r in store.requests if "x.png" in r]) == 1


def test_what_counting_raises_ends_the_transfer(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)

    def stop(count_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(source(bucket), tmp_path / "t", store.connection(tmp_path), on_bytes=stop, workers=3)


def test_who_wants_to_stop_does_not_wait_for_a_dead_store(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    store.faults.append(Fault("GET", "/data/", status=500, code="InternalError"))

    class Stop(Exception):
        pass

    def stop(count_bytes: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        fetch(source(bucket), tmp_path / "t", store.connection(tmp_path, attempts=2), on_bytes=stop, workers=1)


def test_two_processes_never_fetch_into_one_folder_at_once(store: FaultyStore, tmp_path: Path) -> None:
    bucket = fill(store)
    connection = store.connection(tmp_path)

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fetch_to, tmp_path / "t", source(bucket), connection) for _ in range(2)]
        folders = [one.result() for one in both]

    assert [files_in(folder) for folder in folders] == [FILES, FILES]
    assert sum("x.png" in request for request in store.requests) == 1
