"""A large object arrives in ranges, goes on where it stopped, and is verified as far as the store tells."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import InvalidDataset, StorageUnavailable
from lora_trainer.storage import Source, fetch
from tests.support.object_store import Fault, FaultyStore

RANGE, JOURNAL = 3 << 20, 1 << 20
DATA = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range((8 << 20) // 32))


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_trainer.storage.s3_download.RANGE_BYTES", RANGE)
    monkeypatch.setattr("lora_trainer.storage.s3_download.JOURNAL_BYTES", JOURNAL)


def fill(store: FaultyStore, **options: Any) -> Source:
    bucket = store.make_bucket()
    store.client.put_object(Bucket=bucket, Key="data/model.bin", Body=DATA, **options)
    return Source(f"s3://{bucket}/data/model.bin", "spec.baseModel.uri", InvalidDataset)


def fetch_one(store: FaultyStore, source: Source, tmp_path: Path, *, attempts: int = 2, on_bytes: Any = None) -> bytes:
    counted = on_bytes or (lambda _: None)
    connection = store.connection(tmp_path, attempts=attempts)
    return fetch(source, tmp_path / "t", connection, on_bytes=counted, workers=2).read_bytes()


def reads(store: FaultyStore) -> int:
    return sum(request.startswith("GET") and request.endswith("model.bin") for request in store.requests)


def test_a_large_object_arrives_in_ranges(store: FaultyStore, tmp_path: Path) -> None:
    assert fetch_one(store, fill(store), tmp_path) == DATA

    assert reads(store) == 3


def test_a_cut_body_goes_on_at_its_offset(store: FaultyStore, tmp_path: Path) -> None:
    source = fill(store)
    store.faults.append(Fault("GET", "/data/model.bin", cut_body=True, times=1))
    counted: list[int] = []

    assert fetch_one(store, source, tmp_path, on_bytes=counted.append) == DATA

    assert sum(counted) == len(DATA)


def test_a_start_after_a_killed_one_fetches_only_what_is_missing(store: FaultyStore, tmp_path: Path) -> None:
    source = fill(store)
    seen = 0

    def kill(count_bytes: int) -> None:
        nonlocal seen
        seen += count_bytes
        if seen >= 5 << 20:
            raise Killed

    with pytest.raises(Killed):
        fetch_one(store, source, tmp_path, on_bytes=kill)
    counted: list[int] = []

    assert fetch_one(store, source, tmp_path, on_bytes=counted.append) == DATA

    assert sum(counted) <= len(DATA) - (2 << 20)


def test_bytes_of_an_older_content_are_not_taken_up(store: FaultyStore, tmp_path: Path) -> None:
    source = fill(store)

    def kill(count_bytes: int) -> None:
        if count_bytes:
            raise Killed

    with pytest.raises(Killed):
        fetch_one(store, source, tmp_path, on_bytes=kill)
    bucket = source.uri.split("/")[2]
    store.client.put_object(Bucket=bucket, Key="data/model.bin", Body=DATA[::-1])

    assert fetch_one(store, source, tmp_path) == DATA[::-1]


def test_what_arrived_damaged_is_fetched_again_from_its_beginning(store: FaultyStore, tmp_path: Path) -> None:
    source = fill(store)
    store.faults.append(Fault("GET", "/data/model.bin", flip_byte=True, times=1))

    assert fetch_one(store, source, tmp_path) == DATA

    assert reads(store) == 6


@pytest.mark.parametrize("told", ["md5", "sha256", "md5 of parts"])
def test_lasting_damage_is_noticed_by_whatever_the_store_tells(store: FaultyStore, tmp_path: Path, told: str) -> None:
    source = fill(store, **({"Metadata": {"sha256": hashlib.sha256(DATA).hexdigest()}} if told == "sha256" else {}))
    if told == "md5 of parts":
        put_in_parts(store, source.uri.split("/")[2])
    store.faults.append(Fault("GET", "/data/model.bin", flip_byte=True))

    with pytest.raises(StorageUnavailable, match=r"model\.bin arrived damaged"):
        fetch_one(store, source, tmp_path)

    assert not list((tmp_path / "t").rglob("model.bin"))


def test_an_object_that_was_put_in_parts_is_verified(store: FaultyStore, tmp_path: Path) -> None:
    source = fill(store)
    put_in_parts(store, source.uri.split("/")[2])

    assert fetch_one(store, source, tmp_path) == DATA


def put_in_parts(store: FaultyStore, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "data/model.bin"}
    upload = store.client.create_multipart_upload(**where)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": store.client.upload_part(**where, UploadId=upload, PartNumber=number, Body=body)["ETag"],
        }
        for number, body in enumerate((DATA[: 5 << 20], DATA[5 << 20 :]), start=1)
    ]
    store.client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
