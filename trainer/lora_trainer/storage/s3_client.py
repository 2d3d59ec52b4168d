"""The S3 client that a storage section of the spec asks for."""

from typing import TYPE_CHECKING, Literal

from botocore import UNSIGNED
from botocore.config import Config

from lora_trainer.storage.connection import Connection
from lora_trainer.storage.credentials import open_session

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_DEFAULT_REGION = "us-east-1"

Addressing = Literal["path", "virtual", "auto"]


def make_client(connection: Connection, *, connections: int = 10) -> "S3Client":
    """A client for the storage section; may be shared by threads, of which `connections` work at once.

    The endpoint is that of S3 alone: credentials of a role still come from where AWS says. Checksums are sent by the
    store itself, so requests carry none by default: stores that do not know the newer checksum trailers still work.
    Each request is made once; `S3Requests` repeats it.

    Raises:
        InvalidConfiguration: a key of the Secret is missing.
    """
    storage = connection.storage
    session = open_session(connection)
    config = Config(
        signature_version=UNSIGNED if storage.anonymous else "s3v4",
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=10,
        read_timeout=connection.read_timeout_seconds,
        max_pool_connections=connections,
        request_checksum_calculation="when_required",
        s3={"addressing_style": _addressing(connection)},
    )
    return session.client(
        "s3",
        endpoint_url=storage.endpoint,
        region_name=storage.region or session.region_name or _DEFAULT_REGION,
        verify=str(connection.ca_bundle) if connection.ca_bundle else None,
        config=config,
    )


def _addressing(connection: Connection) -> Addressing:
    match connection.storage.addressing:
        case "Path":
            return "path"
        case "Virtual":
            return "virtual"
        case _:
            return "path" if connection.storage.endpoint else "auto"
