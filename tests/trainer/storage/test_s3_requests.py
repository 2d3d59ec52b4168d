"""A request that may pass is made again, with growing pauses; one that may not is told at once."""

from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from lora_api.cluster_spec import Storage
from lora_trainer.errors import AccessDenied, StorageUnavailable
from lora_trainer.settings import Settings
from lora_trainer.storage import Connection
from lora_trainer.storage.s3_requests import S3Requests


def failing(code: str, status: int, calls: list[int]) -> None:
    calls.append(1)
    raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


def requests_with(pauses: list[float]) -> S3Requests:
    connection = Connection(Storage(), Settings(work_dir=Path("/nowhere")), pause=pauses.append)
    return S3Requests(connection, "spec.dataset.uri")


@pytest.mark.parametrize(("code", "status"), [("SlowDown", 503), ("InternalError", 500), ("", 429), ("BadDigest", 400)])
def test_what_may_pass_is_asked_six_times(code: str, status: int) -> None:
    calls: list[int] = []

    with pytest.raises(StorageUnavailable, match="the store failed to read s3://b/x"):
        requests_with([]).ask("read", "s3://b/x", lambda: failing(code, status, calls))

    assert len(calls) == 6


def test_the_pauses_double_and_are_shortened_by_chance_by_up_to_half() -> None:
    pauses: list[float] = []

    with pytest.raises(StorageUnavailable):
        requests_with(pauses).ask("read", "s3://b/x", lambda: failing("SlowDown", 503, []))

    assert 15.5 <= sum(pauses) <= 31
    assert max(pauses) <= 1


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("AccessDenied", 403, AccessDenied),
        ("NotImplemented", 501, StorageUnavailable),
        ("Odd", 400, StorageUnavailable),
    ],
)
def test_what_will_not_pass_is_asked_once(code: str, status: int, error: type[Exception]) -> None:
    calls: list[int] = []

    with pytest.raises(error):
        requests_with([]).ask("read", "s3://b/x", lambda: failing(code, status, calls))

    assert len(calls) == 1


def test_every_repetition_is_told() -> None:
    retries: list[str] = []
    connection = replace(requests_with([]).connection, on_retry=lambda: retries.append("again"))

    with pytest.raises(StorageUnavailable):
        S3Requests(connection, "spec.dataset.uri").ask("read", "s3://b/x", lambda: failing("SlowDown", 503, []))

    assert len(retries) == connection.attempts - 1
