"""No secret, token, signature or query string reaches a log or a message, whatever fails."""

import logging
from pathlib import Path

import pytest

from lora_trainer.errors import InvalidDataset, TrainingError
from lora_trainer.storage import Fence, Source, fetch, open_store
from tests.support.object_store import Fault, FaultyStore

SECRETS = ("very-secret-key", "very-secret-token", "Signature=", "X-Amz-", "secret-key-in-message", "?")
FAULTS = {
    "works": Fault("NONE"),
    "refused": Fault("GET", status=403, code="SignatureDoesNotMatch"),
    "expired": Fault("PUT", status=400, code="ExpiredToken"),
    "broken": Fault("GET", status=500, code="InternalError"),
    "odd": Fault("GET", status=400, code="Odd"),
    "cut": Fault("GET", "/data/", cut_body=True),
    "lost": Fault("PUT", lose_answer=True),
    "clock": Fault("PUT", status=403, code="RequestTimeTooSkewed"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_secret_is_told(
    store: FaultyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    connection = store.connection(tmp_path)
    (tmp_path / "credentials" / "AWS_SECRET_ACCESS_KEY").write_text("very-secret-key")
    (tmp_path / "credentials" / "AWS_SESSION_TOKEN").write_text("very-secret-token")
    bucket = store.make_bucket()
    store.client.put_object(Bucket=bucket, Key="data/a.png", Body=b"x" * 100)
    store.faults.append(FAULTS[name])
    caplog.set_level(logging.DEBUG, logger="lora_trainer")
    told = []

    try:
        fetch(
            Source(f"s3://{bucket}/data", "spec.dataset.uri", InvalidDataset),
            tmp_path / "t",
            connection,
            on_bytes=lambda _: None,
        )
        output = open_store(f"s3://{bucket}/run", connection, field="spec.output.uri", on_bytes=lambda _: None)
        Fence.acquire(output, owner="lora/hina", attempt=1, pod="p").check()
    except TrainingError as error:
        told += [str(error), error.hint]

    told += [record.getMessage() for record in caplog.records if record.name.startswith("lora_trainer")]
    assert told
    assert [secret for secret in SECRETS if secret in "\n".join(told)] == []
