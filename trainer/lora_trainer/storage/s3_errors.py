"""What S3 and boto3 say when something fails, in our words: the only place that knows boto3's exceptions.

Used wherever the store is asked. No message of boto3 is repeated: it could hold a query string or a key.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import urllib3
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    MetadataRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSLError,
)

from lora_trainer.errors import AccessDenied, InvalidConfiguration, StorageUnavailable, TrainingError
from lora_trainer.storage.store import Changed

_CLOCK = "RequestTimeTooSkewed"
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_DENIED = {
    "401",
    "403",
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "Unauthorized",
}
_PASSING = {
    "408",
    "429",
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
}
_WRONG_REGION = {"301", "307", "PermanentRedirect", "IllegalLocationConstraintException"}
_CHANGED = {"412", "PreconditionFailed"}
_MISSING = {"404", "NoSuchKey", "NotFound"}
_NOT_IMPLEMENTED = {"501", "NotImplemented"}


class Transient(StorageUnavailable):
    """May be gone when the same is asked again."""


class CredentialsExpired(AccessDenied):
    """Temporary credentials have run out: their successors may be mounted by now."""


@contextmanager
def s3_errors(operation: str, *, place: str, field: str, storage: str = "spec.storage") -> Iterator[None]:
    """Turns boto3's errors into ours.

    `operation` is a verb (`read`), `place` a URI, `field` the YAML path of that URI, `storage` that of the section
    which says how it is reached.

    Raises:
        Changed: the condition of a request did not hold.
        AccessDenied, InvalidConfiguration, StorageUnavailable: as the store says; Transient if it may pass.
    """
    try:
        yield
    except ClientError as error:
        if _code(error) in _CHANGED:
            raise Changed(place) from error
        raise _from_answer(error, operation, place, field) from error
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, MetadataRetrievalError) as error:
        raise AccessDenied(
            f"{field}: no credentials to {operation} {place}",
            hint=f"Name a Secret in {storage}.credentialsSecretRef, or set {storage}.anonymous.",
        ) from error
    except SSLError as error:
        verified = "CERTIFICATE_VERIFY_FAILED" not in str(error)
        raise (Transient if verified else StorageUnavailable)(
            f"{field}: cannot {operation} {place}: the store's certificate could not be verified",
            hint=f"Give the store's certificate authority in {storage}.caBundleRef.",
        ) from error
    except ParamValidationError as error:
        raise InvalidConfiguration(f"{field}: {place} is no place of an object store; correct the URI") from error
    except FlexibleChecksumError as error:
        raise Transient(f"{field}: {place} arrived damaged") from error
    except (BotoCoreError, HTTPClientError, urllib3.exceptions.HTTPError) as error:
        # urllib3's own: what botocore lets through when the body of an error answer is cut.
        problem = f"the store does not answer ({type(error).__name__})"
        raise Transient(f"{field}: cannot {operation} {place}: {problem}") from error


def is_missing(error: ClientError) -> bool:
    """Whether the store says that there is no such object."""
    return _code(error) in _MISSING


def is_no_such_upload(error: ClientError) -> bool:
    """Whether the store says that the upload has ended or was aborted."""
    return _code(error) == "NoSuchUpload"


def is_not_implemented(error: BaseException | None) -> bool:
    """Whether the store says that it does not know what the request asks for."""
    return isinstance(error, ClientError) and (_status(error) == 501 or _code(error) in _NOT_IMPLEMENTED)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _answer(error: ClientError) -> dict[str, Any]:
    return dict(error.response.get("ResponseMetadata", {}))


def _status(error: ClientError) -> int:
    return int(_answer(error).get("HTTPStatusCode", 0))


def _from_answer(error: ClientError, operation: str, place: str, field: str) -> TrainingError:
    code, status = _code(error), _status(error)
    bucket = place.removeprefix("s3://").partition("/")[0]
    if code == _CLOCK:
        return _wrong_clock(error, operation, place, field)
    if status in {408, 429} or code in _PASSING or (status >= 500 and code not in _NOT_IMPLEMENTED):
        return Transient(f"{field}: the store failed to {operation} {place} ({code or status})")
    if error.operation_name.startswith("AssumeRole"):
        return AccessDenied(
            f"{field}: the pod's identity gets no credentials to {operation} {place} ({code})",
            hint="Check the role of the pod's service account and whom it trusts.",
        )
    if code in {"NoSuchBucket", "InvalidBucketName"}:
        return InvalidConfiguration(f"{field}: bucket '{bucket}' does not exist; create it or correct the URI")
    if code in _WRONG_REGION:
        return InvalidConfiguration(f"{field}: bucket '{bucket}' lies in another region; set spec.storage.region")
    if code in _EXPIRED:
        return CredentialsExpired(f"{field}: not allowed to {operation} {place} ({code})")
    if code in _DENIED or status in {401, 403}:
        return AccessDenied(f"{field}: not allowed to {operation} {place} ({code})")
    return StorageUnavailable(f"{field}: the store failed to {operation} {place} ({code or status})")


def _wrong_clock(error: ClientError, operation: str, place: str, field: str) -> Transient:
    """boto3 signs with this machine's time and does not correct it, so only setting the clock helps."""
    try:
        theirs = parsedate_to_datetime(_answer(error).get("HTTPHeaders", {}).get("date", ""))
        seconds = round((datetime.now(UTC) - theirs).total_seconds())
        difference = f"is {abs(seconds)} s {'behind' if seconds < 0 else 'ahead of'} the store's"
    except (ValueError, TypeError):
        difference = "differs from the store's"
    return Transient(
        f"{field}: the store refuses to {operation} {place}: this machine's clock {difference}",
        hint="Set the clock of the node, or of the store (NTP).",
    )
