"""How a client is made of the spec and what is mounted."""

from pathlib import Path

import pytest
from botocore import UNSIGNED

from lora_api.cluster_spec import Storage
from lora_api.spec import LoraTrainingSpec
from lora_trainer.errors import AccessDenied, InvalidConfiguration, StorageUnavailable
from lora_trainer.settings import Settings
from lora_trainer.storage import Connection, Source, fetch
from lora_trainer.storage.s3_client import make_client
from tests.support.object_store import FaultyStore

MINIO = "https://minio.example.com:9000"
SOURCE = Source("s3://bucket/data", "spec.dataset.uri", InvalidConfiguration)


def connection(tmp_path: Path, *, ca_bundle: Path | None = None, **storage: object) -> Connection:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("key\n")
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("secret\n")
    return Connection(Storage(**storage), Settings(work_dir=tmp_path, credentials_dir=tmp_path, ca_bundle=ca_bundle))


@pytest.mark.parametrize(
    ("endpoint", "addressing", "style"),
    [
        (MINIO, "Auto", "path"),
        (MINIO, "Virtual", "virtual"),
        (None, "Auto", "auto"),
        (None, "Path", "path"),
    ],
)
def test_an_own_endpoint_is_addressed_by_path(
    tmp_path: Path, endpoint: str | None, addressing: str, style: str
) -> None:
    client = make_client(connection(tmp_path, endpoint=endpoint, addressing=addressing))

    assert client.meta.config.s3["addressing_style"] == style
    assert endpoint is None or client.meta.endpoint_url == endpoint


def test_the_region_is_that_of_the_spec_else_us_east_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    assert make_client(connection(tmp_path, region="eu-west-3")).meta.region_name == "eu-west-3"
    assert make_client(connection(tmp_path)).meta.region_name == "us-east-1"


def test_credentials_come_from_the_mounted_files_without_their_newline(tmp_path: Path) -> None:
    (tmp_path / "AWS_SESSION_TOKEN").write_text("token\n")

    credentials = make_client(connection(tmp_path))._request_signer._credentials.get_frozen_credentials()

    assert (credentials.access_key, credentials.secret_key, credentials.token) == ("key", "secret", "token")


def test_a_secret_without_a_key_is_named(tmp_path: Path) -> None:
    made = connection(tmp_path)
    (tmp_path / "AWS_SECRET_ACCESS_KEY").unlink()

    with pytest.raises(InvalidConfiguration, match="credentialsSecretRef has no key AWS_SECRET_ACCESS_KEY; add it"):
        make_client(made)


def test_anonymous_requests_are_not_signed(tmp_path: Path) -> None:
    assert make_client(connection(tmp_path, anonymous=True)).meta.config.signature_version is UNSIGNED


def test_no_credentials_at_all_is_an_access_problem(
    store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bare = Connection(Storage(endpoint=store.endpoint), Settings(work_dir=tmp_path), attempts=1)

    with pytest.raises(AccessDenied, match=r"spec\.dataset\.uri: no credentials to list s3://bucket/data") as caught:
        fetch(
            Source("s3://bucket/data", "spec.dataset.uri", InvalidConfiguration), tmp_path / "t", bare, on_bytes=print
        )

    assert "spec.storage.credentialsSecretRef" in caught.value.hint


def test_a_plain_server_behind_https_is_unavailable(store: FaultyStore, tmp_path: Path) -> None:
    secure = connection(tmp_path, endpoint=store.endpoint.replace("http://", "https://"))
    once = Connection(secure.storage, secure.settings, attempts=1)

    with pytest.raises(StorageUnavailable) as caught:
        fetch(
            Source("s3://bucket/data", "spec.dataset.uri", InvalidConfiguration), tmp_path / "t", once, on_bytes=print
        )

    assert caught.value.hint == "Give the store's certificate authority in spec.storage.caBundleRef."


def test_each_part_of_the_spec_is_reached_by_its_own_section_else_by_the_common_one(tmp_path: Path) -> None:
    own = Storage(endpoint="http://127.0.0.1:9000")
    spec = LoraTrainingSpec.model_validate(
        {
            "baseModel": {"uri": "s3://bucket/model"},
            "dataset": {"uri": "s3://bucket/data"},
            "output": {"uri": "s3://bucket/out", "storage": {"endpoint": "http://127.0.0.1:9000"}},
            "storage": {"endpoint": MINIO},
        }
    )
    settings = Settings(work_dir=tmp_path)

    reached = {
        field: Connection.for_field(spec, settings, field)
        for field in ("spec.output.uri", "spec.dataset.uri", "spec.network.initialUri")
    }

    assert (reached["spec.output.uri"].storage, reached["spec.output.uri"].field) == (own, "spec.output.storage")
    assert {reached[field].field for field in list(reached)[1:]} == {"spec.storage"}
    assert reached["spec.dataset.uri"].storage.endpoint == MINIO
