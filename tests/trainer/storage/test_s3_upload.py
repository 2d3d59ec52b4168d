"""A large file goes up in parts, and appears only when all of them arrived; what is given up leaves nothing."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import AccessDenied, StorageUnavailable
from lora_trainer.storage import Fence, Store, open_store
from tests.support.object_store import Fault, FaultyStore

PART = 5 << 20
DATA = bytes(range(256)) * ((11 << 20) // 256)
SHA256 = hashlib.sha256(DATA).hexdigest()
KEY = "runs/hina/state/step-1/training.pt"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_trainer.storage.s3_store.SINGLE_PUT_BYTES", 1 << 20)
    monkeypatch.setattr("lora_trainer.storage.s3_upload.PART_BYTES", PART)


@pytest.fixture
def bucket(store: FaultyStore) -> str:
    return store.make_bucket()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "training.pt"
    path.write_bytes(DATA)
    return path


def output(store: FaultyStore, bucket: str, tmp_path: Path, **options: Any) -> Store:
    counted = options.pop("on_bytes", lambda _: None)
    connection = store.connection(tmp_path, **options)
    return open_store(f"s3://{bucket}/runs/hina", connection, field="spec.output.uri", on_bytes=counted)


def unfinished(store: FaultyStore, bucket: str) -> list[str]:
    return [upload["Key"] for upload in store.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


def test_the_parts_make_up_the_file(store: FaultyStore, bucket: str, state: Path, tmp_path: Path) -> None:
    counted: list[int] = []

    output(store, bucket, tmp_path, on_bytes=counted.append).put_file(state, "state/step-1/training.pt", sha256=SHA256)

    answer = store.client.get_object(Bucket=bucket, Key=KEY)
    assert answer["Body"].read() == DATA
    assert (answer["Metadata"], answer["ETag"][-3:]) == ({"sha256": SHA256}, '-3"')
    assert counted == [PART, PART, len(DATA) - 2 * PART]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", "partNumber=2", status=503, code="SlowDown", times=1),
        Fault("PUT", "partNumber=2", lose_answer=True, times=1),
        Fault("POST", "uploadId=", status=500, code="InternalError", times=1),
        Fault("POST", "uploadId=", lose_answer=True, times=1),
    ],
    ids=["part refused", "answer to a part lost", "completion refused", "answer to the completion lost"],
)
def test_only_what_failed_is_sent_again(
    store: FaultyStore, bucket: str, state: Path, tmp_path: Path, fault: Fault
) -> None:
    store.faults.append(fault)

    output(store, bucket, tmp_path).put_file(state, "state/step-1/training.pt", sha256=SHA256)

    assert store.client.get_object(Bucket=bucket, Key=KEY)["Body"].read() == DATA
    assert sum(request == f"PUT /{bucket}/{KEY}" for request in store.requests) == 3 + (fault.method == "PUT")


@pytest.mark.parametrize(
    ("status", "code", "error"), [(500, "InternalError", StorageUnavailable), (403, "AccessDenied", AccessDenied)]
)
def test_a_lasting_failure_gives_the_parts_back(
    store: FaultyStore, bucket: str, state: Path, tmp_path: Path, status: int, code: str, error: type[Exception]
) -> None:
    store.faults.append(Fault("PUT", "partNumber=3", status=status, code=code))

    with pytest.raises(error):
        output(store, bucket, tmp_path).put_file(state, "state/step-1/training.pt", sha256=SHA256)

    assert unfinished(store, bucket) == []
    assert output(store, bucket, tmp_path).list() == []


def test_a_file_that_is_not_what_was_described_never_appears(
    store: FaultyStore, bucket: str, state: Path, tmp_path: Path
) -> None:
    with pytest.raises(StorageUnavailable, match=r"training\.pt was changed while it was stored"):
        output(store, bucket, tmp_path).put_file(state, "state/step-1/training.pt", sha256="0" * 64)

    assert unfinished(store, bucket) == []
    assert output(store, bucket, tmp_path).list() == []


def test_a_start_aborts_what_killed_processes_left_below_its_folders_only(
    store: FaultyStore, bucket: str, tmp_path: Path
) -> None:
    others = ["runs/hina-2/state/x", "runs/hina/other-run/state/x", "runs/miku/adapters/x"]
    for key in (KEY, "runs/hina/adapters/hina.safetensors", *others):
        store.client.create_multipart_upload(Bucket=bucket, Key=key)

    Fence.acquire(output(store, bucket, tmp_path), owner="lora/hina", attempt=2, pod="p")

    assert sorted(unfinished(store, bucket)) == others


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (501, "NotImplemented")])
def test_a_start_that_may_not_list_uploads_goes_on(
    store: FaultyStore, bucket: str, tmp_path: Path, status: int, code: str
) -> None:
    store.faults.append(Fault("GET", "uploads", status=status, code=code))

    assert Fence.acquire(output(store, bucket, tmp_path), owner="lora/hina", attempt=1, pod="p").token == 1


def test_an_upload_that_another_process_aborted_fails(
    store: FaultyStore, bucket: str, state: Path, tmp_path: Path
) -> None:
    store.faults.append(Fault("PUT", "partNumber=2", status=404, code="NoSuchUpload"))

    with pytest.raises(StorageUnavailable, match="NoSuchUpload"):
        output(store, bucket, tmp_path).put_file(state, "state/step-1/training.pt", sha256=SHA256)
