"""Against a server that checks signatures and checksums (SeaweedFS): what the simulated one takes on trust."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from lora_api.cluster_spec import Storage
from lora_demo.seaweed import ObjectStore
from lora_trainer.errors import AccessDenied, InvalidConfiguration, InvalidDataset, StorageUnavailable, Superseded
from lora_trainer.settings import Settings
from lora_trainer.storage import Connection, Fence, Source, check_writable, fetch, open_store
from lora_trainer.storage.store import ABSENT, Changed

BUCKET = "lora"
Connect = Callable[..., Connection]


def nothing(count_bytes: int) -> None:
    """Counts nothing."""


@pytest.fixture(scope="module")
def client(real_store: ObjectStore) -> Any:
    client = boto3.client(
        "s3",
        endpoint_url=real_store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=real_store.access_key,
        aws_secret_access_key=real_store.secret_key,
    )
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture
def connect(real_store: ObjectStore, tmp_path: Path) -> Connect:
    def with_keys(*, access_key: str = real_store.access_key, secret_key: str = real_store.secret_key) -> Connection:
        (tmp_path / "AWS_ACCESS_KEY_ID").write_text(access_key)
        (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text(secret_key)
        settings = Settings(work_dir=tmp_path / "work", credentials_dir=tmp_path)
        return Connection(Storage(endpoint=real_store.endpoint), settings, attempts=2, pause=lambda _: None)

    return with_keys


def test_what_was_stored_is_fetched_byte_for_byte(client: Any, connect: Connect, tmp_path: Path) -> None:
    files = {"10_a b/ü+%&.png": bytes(range(256)) * 9000, "10_a b/ü+%&.txt": "hällo".encode(), "reg/1_x/y.png": b""}
    output = open_store(f"s3://{BUCKET}/round trip", connect(), field="spec.output.uri", on_bytes=nothing)
    for number, (key, data) in enumerate(files.items()):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(data)
        output.put_file(path, key, sha256=hashlib.sha256(data).hexdigest())

    source = Source(f"s3://{BUCKET}/round trip", "spec.dataset.uri", InvalidDataset)
    folder = fetch(source, tmp_path / "back", connect(), on_bytes=nothing, workers=4)

    back = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert back == files


def test_the_server_keeps_the_digest_of_an_upload(client: Any, connect: Connect) -> None:
    open_store(f"s3://{BUCKET}/kept", connect(), field="f", on_bytes=nothing).put_bytes(b"abc", "x")

    attributes = client.head_object(Bucket=BUCKET, Key="kept/x", ChecksumMode="ENABLED")

    assert attributes["ChecksumSHA256"] == "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="


def test_the_server_refuses_an_upload_that_arrived_changed(client: Any, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"changed on the way")
    output = open_store(f"s3://{BUCKET}/changed", connect(), field="spec.output.uri", on_bytes=nothing)

    with pytest.raises(StorageUnavailable, match="the store failed to write"):
        output.put_file(path, "x.bin", sha256=hashlib.sha256(b"as it was").hexdigest())

    assert output.list() == []


@pytest.mark.parametrize("keys", [{"secret_key": "wrong"}, {"access_key": "unknown"}])
def test_wrong_keys_are_refused(client: Any, connect: Connect, keys: dict[str, str]) -> None:
    output = open_store(f"s3://{BUCKET}/run", connect(**keys), field="spec.output.uri", on_bytes=nothing)

    with pytest.raises(AccessDenied, match=r"spec\.output\.uri: not allowed to write s3://lora/run"):
        check_writable(output)


def test_a_missing_bucket_is_told_apart_from_missing_rights(client: Any, connect: Connect, tmp_path: Path) -> None:
    source = Source("s3://no-such-bucket/data", "spec.dataset.uri", InvalidDataset)

    with pytest.raises(InvalidConfiguration, match="bucket 'no-such-bucket' does not exist"):
        fetch(source, tmp_path / "t", connect(), on_bytes=nothing)


def test_a_second_start_fetches_nothing(client: Any, connect: Connect, tmp_path: Path) -> None:
    client.put_object(Bucket=BUCKET, Key="again/1_a/x.png", Body=b"x" * 100)
    source = Source(f"s3://{BUCKET}/again", "spec.dataset.uri", InvalidDataset)
    counted: list[int] = []

    for _ in range(2):
        fetch(source, tmp_path / "t", connect(), on_bytes=counted.append)

    assert sum(counted) == 100


def test_the_server_keeps_conditions(client: Any, connect: Connect) -> None:
    output = open_store(f"s3://{BUCKET}/conditions", connect(), field="f", on_bytes=nothing)
    output.put_bytes(b"1", "x", only_if=ABSENT)
    first = output.get_versioned("x").version
    output.put_bytes(b"2", "x", only_if=first)

    for version in (ABSENT, first):
        with pytest.raises(Changed):
            output.put_bytes(b"3", "x", only_if=version)

    assert output.get_bytes("x") == b"2"


def test_each_start_gets_the_next_token(client: Any, connect: Connect) -> None:
    output = open_store(f"s3://{BUCKET}/fenced", connect(), field="f", on_bytes=nothing)

    first = Fence.acquire(output, owner="lora/hina", attempt=1, pod="a")
    second = Fence.acquire(output, owner="lora/hina", attempt=1, pod="b")

    assert (first.token, second.token) == (1, 2)
    with pytest.raises(Superseded):
        first.check()


def test_a_file_in_parts_comes_back_in_ranges(
    client: Any, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_trainer.storage.s3_store.SINGLE_PUT_BYTES", 1 << 20)
    monkeypatch.setattr("lora_trainer.storage.s3_upload.PART_BYTES", 5 << 20)
    monkeypatch.setattr("lora_trainer.storage.s3_download.RANGE_BYTES", 2 << 20)
    data = bytes(range(256)) * ((11 << 20) // 256)
    (tmp_path / "large.bin").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    output = open_store(f"s3://{BUCKET}/parts", connect(), field="f", on_bytes=nothing)

    output.put_file(tmp_path / "large.bin", "large.bin", sha256=sha256)
    output.get_file("large.bin", tmp_path / "back.bin", sha256=sha256)

    assert (tmp_path / "back.bin").read_bytes() == data
    assert client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []
