"""The S3 client and the translation of its errors: the only place that knows boto3's exceptions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)

from lora_trainer.errors import AccessDenied, InvalidConfiguration, StorageUnavailable, TrainingError
from lora_trainer.storage.connection import Connection
from lora_trainer.storage.store import Changed

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_DEFAULT_REGION = "us-east-1"
_REQUIRED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_OPTIONAL = ("AWS_SESSION_TOKEN",)

_DENIED = {
    "403",
    "401",
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "Unauthorized",
}
_WRONG_REGION = {"301", "307", "PermanentRedirect", "IllegalLocationConstraintException"}
_CHANGED = {"412", "PreconditionFailed", "ConditionalRequestConflict"}
_MISSING = {"404", "NoSuchKey", "NotFound"}

Addressing = Literal["path", "virtual", "auto"]


def make_client(connection: Connection, *, connections: int = 10) -> "S3Client":
    """A client for `spec.storage`; may be shared by threads, of which `connections` work at once.

    Checksums are sent by the store itself, so requests carry none by default: stores that do not know the
    newer checksum trailers still work.

    Raises:
        InvalidConfiguration: a file of the credentials is missing.
    """
    storage = connection.storage
    session = boto3.session.Session(**_credentials(connection))
    ca_bundle = connection.settings.ca_bundle
    config = Config(
        signature_version=UNSIGNED if storage.anonymous else "s3v4",
        retries={"mode": "standard", "total_max_attempts": connection.attempts},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=connections,
        request_checksum_calculation="when_required",
        s3={"addressing_style": _addressing(connection)},
    )
    return session.client(
        "s3",
        endpoint_url=storage.endpoint,
        region_name=storage.region or session.region_name or _DEFAULT_REGION,
        verify=str(ca_bundle) if ca_bundle else None,
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


def _credentials(connection: Connection) -> dict[str, Any]:
    """boto3's arguments from the mounted Secret; none without a mount: boto3 then looks for itself."""
    folder = connection.settings.credentials_dir
    if folder is None or connection.storage.anonymous:
        return {}
    missing = [name for name in _REQUIRED if not (folder / name).is_file()]
    if missing:
        raise InvalidConfiguration(
            f"the Secret of spec.storage.credentialsSecretRef has no key {' and no key '.join(missing)}; add it"
        )
    names = [*_REQUIRED, *(name for name in _OPTIONAL if (folder / name).is_file())]
    return {name.lower(): _read_secret(folder / name) for name in names}


def _read_secret(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()


@contextmanager
def s3_errors(operation: str, *, place: str, field: str) -> Iterator[None]:
    """Turns boto3's errors into ours. `operation` is a verb (`read`), `place` a URI, `field` a YAML path.

    No message of boto3 is shown that could hold a query string or a key.
    """
    try:
        yield
    except ClientError as error:
        if is_changed(error):
            raise Changed(place) from error
        raise _from_answer(error, operation, place, field) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise AccessDenied(
            f"{field}: no credentials to {operation} {place}",
            hint="Name a Secret in spec.storage.credentialsSecretRef, or set spec.storage.anonymous.",
        ) from error
    except SSLError as error:
        raise StorageUnavailable(
            f"{field}: cannot {operation} {place}: the store's certificate could not be verified",
            hint="Give the store's certificate authority in spec.storage.caBundleRef.",
        ) from error
    except FlexibleChecksumError as error:
        raise StorageUnavailable(f"{field}: {place} arrived damaged") from error
    except (BotoCoreError, HTTPClientError) as error:
        problem = f"the store does not answer ({type(error).__name__})"
        raise StorageUnavailable(f"{field}: cannot {operation} {place}: {problem}") from error


def is_missing(error: ClientError) -> bool:
    """Whether the store says that there is no such object."""
    return _code(error) in _MISSING


def is_changed(error: ClientError) -> bool:
    """Whether the condition of a request did not hold, or met another writer's request."""
    return _code(error) in _CHANGED


def is_not_implemented(error: BaseException | None) -> bool:
    """Whether the store says that it does not know what the request asks for."""
    return isinstance(error, ClientError) and (_status(error) == 501 or _code(error) == "NotImplemented")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    metadata: dict[str, Any] = dict(error.response.get("ResponseMetadata", {}))
    return int(metadata.get("HTTPStatusCode", 0))


def _from_answer(error: ClientError, operation: str, place: str, field: str) -> TrainingError:
    code, status = _code(error), _status(error)
    bucket = place.removeprefix("s3://").partition("/")[0]
    if code in {"NoSuchBucket", "InvalidBucketName"}:
        return InvalidConfiguration(f"{field}: bucket '{bucket}' does not exist; create it or correct the URI")
    if code in _WRONG_REGION:
        return InvalidConfiguration(f"{field}: bucket '{bucket}' lies in another region; set spec.storage.region")
    if code in _DENIED or status in {401, 403}:
        return AccessDenied(f"{field}: not allowed to {operation} {place} ({code})")
    return StorageUnavailable(f"{field}: the store failed to {operation} {place} ({code or status})")
