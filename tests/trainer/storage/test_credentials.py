"""Credentials are those of the mounted Secret now, or of the pod's identity; the endpoint is that of S3 alone."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lora_api.cluster_spec import Storage
from lora_trainer.errors import AccessDenied, InvalidConfiguration
from lora_trainer.settings import Settings
from lora_trainer.storage import Connection, Store, check_writable, open_store
from lora_trainer.storage.s3_client import make_client
from tests.support.object_store import Fault, FaultyStore

ROLE = "arn:aws:iam::123456789012:role/lora-trainer"


def nothing(count_bytes: int) -> None:
    """Counts nothing."""


def mount(folder: Path, version: str, **values: str) -> None:
    """What the kubelet does: a folder for the new version, then one turn of the link `..data`."""
    (folder / version).mkdir(parents=True)
    for name, value in values.items():
        (folder / version / name).write_text(f"{value}\n")
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..new").symlink_to(version)
    (folder / "..new").rename(folder / "..data")


def mount_keys(folder: Path, version: str) -> None:
    mount(
        folder,
        version,
        AWS_ACCESS_KEY_ID=f"key {version}",
        AWS_SECRET_ACCESS_KEY=f"secret {version}",
        AWS_SESSION_TOKEN=f"token {version}",
    )


def signing_keys(connection: Connection) -> tuple[str, str, str | None]:
    credentials = make_client(connection)._request_signer._credentials.get_frozen_credentials()  # type: ignore[attr-defined]
    return credentials.access_key, credentials.secret_key, credentials.token


def connect(storage: Storage, tmp_path: Path, *, credentials_dir: Path | None = None) -> Connection:
    settings = Settings(work_dir=tmp_path, credentials_dir=credentials_dir)
    return Connection(storage, settings, attempts=1, pause=lambda _: None)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_a_rotated_secret_is_used_by_the_next_request(store: FaultyStore, tmp_path: Path) -> None:
    mounted = tmp_path / "secret"
    mount_keys(mounted, "1")
    client = make_client(connect(Storage(endpoint=store.endpoint), tmp_path, credentials_dir=mounted))
    bucket = store.make_bucket()
    client.put_object(Bucket=bucket, Key="x", Body=b"1")

    mount_keys(mounted, "2")
    client.put_object(Bucket=bucket, Key="x", Body=b"2")

    assert [key for key in store.signed_with if key.startswith("key ")] == ["key 1", "key 2"]


def test_an_expired_token_is_read_again_once_and_then_is_a_matter_of_access(store: FaultyStore, tmp_path: Path) -> None:
    mounted = tmp_path / "secret"
    mount_keys(mounted, "1")
    output = open_at(store, connect(Storage(endpoint=store.endpoint), tmp_path, credentials_dir=mounted))
    store.requests.clear()
    store.faults.append(Fault("PUT", status=400, code="ExpiredToken"))

    with pytest.raises(AccessDenied, match=r"not allowed to write s3://.* \(ExpiredToken\)"):
        output.put_bytes(b"x", "x")

    assert len(store.requests) == 2


def open_at(store: FaultyStore, connection: Connection) -> Store:
    return open_store(f"s3://{store.make_bucket()}/run", connection, field="spec.output.uri", on_bytes=nothing)


def test_a_secret_of_another_section_has_a_folder_of_its_own(tmp_path: Path) -> None:
    mount_keys(tmp_path / "credentials", "shared")
    mount_keys(tmp_path / "credentials-output", "own")
    own = Storage.model_validate({"endpoint": "http://127.0.0.1:9", "credentialsSecretRef": {"name": "own"}})
    settings = Settings(work_dir=tmp_path, credentials_dir=tmp_path / "credentials")

    assert signing_keys(Connection(own, settings, section="output"))[0] == "key own"
    assert signing_keys(Connection(own, settings))[0] == "key shared"


def test_a_missing_key_is_named_by_its_section(tmp_path: Path) -> None:
    mount(tmp_path / "credentials-output", "1", AWS_ACCESS_KEY_ID="key")
    own = Storage.model_validate({"credentialsSecretRef": {"name": "own"}})
    settings = Settings(work_dir=tmp_path, credentials_dir=tmp_path / "credentials")

    with pytest.raises(InvalidConfiguration, match=r"Secret of spec\.output\.storage\.credentialsSecretRef has no key"):
        make_client(Connection(own, settings, section="output"))


def test_a_web_identity_asks_the_token_service_and_not_the_stores_endpoint(
    store: FaultyStore, identities: "Identities", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("a.web.identity")
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", identities.endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    check_writable(open_at(store, connect(Storage(endpoint=store.endpoint), tmp_path)))

    assert identities.requests == ["POST /"]
    assert "WebIdentityToken=a.web.identity" in identities.bodies[0]
    assert "key of the role" in store.signed_with
    assert not any(request.startswith("POST") for request in store.requests)


def test_a_role_that_does_not_trust_the_pod_is_a_matter_of_access(
    store: FaultyStore, identities: "Identities", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("a.web.identity")
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", identities.endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    identities.refusing = True

    with pytest.raises(AccessDenied, match="the pod's identity gets no credentials to write s3://") as caught:
        check_writable(open_at(store, connect(Storage(endpoint=store.endpoint), tmp_path)))

    assert caught.value.hint == "Check the role of the pod's service account and whom it trusts."


def test_an_instance_role_is_used_where_the_machine_has_one(
    store: FaultyStore, identities: "Identities", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", identities.endpoint)

    check_writable(open_at(store, connect(Storage(endpoint=store.endpoint), tmp_path)))

    assert "PUT /latest/api/token" in identities.requests
    assert "key of the role" in store.signed_with


def test_container_credentials_are_used_where_the_pod_has_them(
    store: FaultyStore, identities: "Identities", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pod-token").write_text("pod identity")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{identities.endpoint}/container")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "pod-token"))

    check_writable(open_at(store, connect(Storage(endpoint=store.endpoint), tmp_path)))

    assert identities.requests == ["GET /container"]
    assert identities.authorizations == ["pod identity"]
    assert "key of the role" in store.signed_with


def test_a_mounted_secret_comes_before_the_pods_identity(
    store: FaultyStore, identities: "Identities", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount_keys(tmp_path / "secret", "1")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{identities.endpoint}/container")

    check_writable(
        open_at(store, connect(Storage(endpoint=store.endpoint), tmp_path, credentials_dir=tmp_path / "secret"))
    )

    assert identities.requests == []


class Identities:
    """What gives a pod credentials on AWS: the token service, the machine's metadata, the container's agent."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.requests: list[str] = []
        self.bodies: list[str] = []
        self.authorizations: list[str] = []
        self.refusing = False

    def answer(self, method: str, path: str) -> tuple[int, str]:
        """Status and body."""
        credentials = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": "key of the role",
            "SecretAccessKey": "secret of the role",
            "Token": "token of the role",
            "Expiration": "2100-01-01T00:00:00Z",
        }
        if method == "POST" and self.refusing:
            return 403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
        if method == "POST":
            return 200, _ASSUMED
        if method == "PUT":
            return 200, "metadata token"
        if path.endswith("/security-credentials/"):
            return 200, "lora-role"
        return 200, json.dumps(credentials)


_ASSUMED = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>key of the role</AccessKeyId><SecretAccessKey>secret of the role</SecretAccessKey>
<SessionToken>token of the role</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration>
</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


@pytest.fixture
def identities() -> Iterator[Identities]:
    made = Identities()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            """Notes the request and gives what a pod would get."""
            made.requests.append(f"{self.command} {self.path}")
            made.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
            made.authorizations += self.headers.get_all("Authorization") or []
            status, body = made.answer(self.command, self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    methods = {f"do_{method}": Handler.answer for method in ("GET", "PUT", "POST")}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Identity", (Handler,), methods))
    made.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()
