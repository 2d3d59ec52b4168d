"""A store with a certificate of its own authority is trusted by the bundle of the spec, and not without it."""

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lora_api.cluster_spec import Storage
from lora_trainer.errors import StorageUnavailable
from lora_trainer.settings import Settings
from lora_trainer.storage import Connection, check_writable, open_store
from tests.support.object_store import FaultyStore, faulty_store


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key beside it."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form, style = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(form, style, serialization.NoEncryption()))
    (folder / "ca.crt").write_bytes(certificate.public_bytes(form))
    return folder / "ca.crt"


@pytest.fixture(scope="module")
def secure_store(bundle: Path) -> Iterator[FaultyStore]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle, bundle.with_name("key.pem"))
    with faulty_store(context) as store:
        keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=store.endpoint, verify=str(bundle), **keys)
        client.create_bucket(Bucket="secure")
        yield store


def test_the_bundle_of_the_spec_is_trusted(secure_store: FaultyStore, bundle: Path, tmp_path: Path) -> None:
    made = secure_store.connection(tmp_path)
    connection = replace(made, settings=replace(made.settings, ca_bundle=bundle))

    check_writable(open_store("s3://secure/run", connection, field="spec.output.uri", on_bytes=lambda _: None))


def test_a_section_has_a_bundle_of_its_own(secure_store: FaultyStore, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "ca-output").mkdir()
    (tmp_path / "ca-output" / "ca.crt").write_bytes(bundle.read_bytes())
    made = secure_store.connection(tmp_path)
    own = Storage.model_validate(
        {
            "endpoint": secure_store.endpoint,
            "caBundleRef": {"name": "authority", "key": "ca.crt"},
            "credentialsSecretRef": {"name": "keys"},
        }
    )
    (tmp_path / "credentials").rename(tmp_path / "credentials-output")
    settings = Settings(
        work_dir=tmp_path, credentials_dir=made.settings.credentials_dir, ca_bundle=tmp_path / "ca" / "ca.crt"
    )
    connection = Connection(own, settings, section="output")

    check_writable(open_store("s3://secure/run", connection, field="spec.output.uri", on_bytes=lambda _: None))


def test_without_it_the_cure_is_told_at_once(secure_store: FaultyStore, tmp_path: Path) -> None:
    pauses: list[float] = []
    connection = replace(secure_store.connection(tmp_path), pause=pauses.append)

    with pytest.raises(StorageUnavailable, match="the store's certificate could not be verified") as caught:
        check_writable(open_store("s3://secure/run", connection, field="spec.output.uri", on_bytes=lambda _: None))

    assert caught.value.hint == "Give the store's certificate authority in spec.storage.caBundleRef."
    assert pauses == []
