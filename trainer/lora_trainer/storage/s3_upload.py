"""A large file on its way into a bucket, in parts: an object appears only when all of them have arrived.

Used by `s3_store`. Memory: `PARTS_AT_ONCE` and one more parts of `PART_BYTES`, together 80 MiB.
"""

import base64
import hashlib
import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lora_trainer.errors import AccessDenied, StorageUnavailable, TrainingError
from lora_trainer.storage.s3_errors import is_no_such_upload, is_not_implemented, s3_errors
from lora_trainer.storage.s3_requests import S3Requests
from lora_trainer.storage.source import OnBytes
from lora_trainer.storage.store import Changed
from lora_trainer.storage.uris import S3Place

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

logger = logging.getLogger(__name__)

PART_BYTES = 16 << 20
"""S3 takes at most 10,000 parts, so files up to 160 GB."""
PARTS_AT_ONCE = 4


class MultipartUpload:
    """Uploads one file to `key` (relative to `place`)."""

    def __init__(self, client: "S3Client", requests: S3Requests, place: S3Place, key: str, *, on_bytes: OnBytes):
        self._client, self._requests, self._on_bytes = client, requests, on_bytes
        self._object: dict[str, Any] = {"Bucket": place.bucket, "Key": place.key(key)}
        self._uri = f"s3://{place.bucket}/{place.key(key)}"

    def upload(self, path: Path, *, sha256: str) -> None:
        """Uploads a file of this digest; every part carries its own. On failure the parts are given back.

        Raises:
            StorageUnavailable: as `S3Requests.ask`, or the file was changed, or another process aborted the upload.
        """
        with self._begun(sha256) as upload:
            digest = hashlib.sha256()
            with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="upload") as pool:
                parts = []
                for part in self._send_all(upload, path, digest, pool):
                    parts.append(part)
                    self._on_bytes(min(PART_BYTES, path.stat().st_size - (len(parts) - 1) * PART_BYTES))
            if digest.hexdigest() != sha256:
                raise StorageUnavailable(f"{path} was changed while it was stored")
            self._ask(lambda: self._complete(upload, parts))

    def _send_all(self, upload: str, path: Path, digest: Any, pool: ThreadPoolExecutor) -> Iterator[dict[str, Any]]:
        """The parts as the store confirmed them, in order; only `PARTS_AT_ONCE` are in memory besides the next."""
        waiting: list[Future[dict[str, Any]]] = []
        with path.open("rb") as file:
            number = 0
            while data := file.read(PART_BYTES):
                number += 1
                digest.update(data)
                if len(waiting) == PARTS_AT_ONCE:
                    yield waiting.pop(0).result()
                waiting.append(pool.submit(self._send, upload, number, data))
        yield from (one.result() for one in waiting)

    def _send(self, upload: str, number: int, data: bytes) -> dict[str, Any]:
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        answer = self._ask(
            lambda: self._client.upload_part(
                **self._object, UploadId=upload, PartNumber=number, Body=data, ChecksumSHA256=checksum
            )
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    def _complete(self, upload: str, parts: Any) -> None:
        try:
            self._client.complete_multipart_upload(**self._object, UploadId=upload, MultipartUpload={"Parts": parts})
        except ClientError as error:
            # An answer may be lost, and its repetition finds no upload: what lies there is compared anyway.
            if not is_no_such_upload(error):
                raise

    @contextmanager
    def _begun(self, sha256: str) -> Iterator[str]:
        answer = self._ask(
            lambda: self._client.create_multipart_upload(
                **self._object, ChecksumAlgorithm="SHA256", Metadata={"sha256": sha256}
            )
        )
        upload: str = answer["UploadId"]
        try:
            yield upload
        except BaseException:
            _abort(self._client, self._requests, self._object, upload)
            raise

    def _ask(self, call: Any) -> Any:
        return self._requests.ask("write", self._uri, call)


def abort_unfinished(client: "S3Client", requests: S3Requests, place: S3Place, folder: str) -> int:
    """Aborts every multipart upload below `folder` (`state/`, relative to `place`); gives their number.

    Credentials that may not list uploads, and stores that cannot, leave them to the bucket's lifecycle rule.
    """
    prefix = place.listing_prefix + folder
    uri = f"s3://{place.bucket}/{prefix}"
    count = 0
    marker: dict[str, str] = {}
    while True:
        question: Any = {"Bucket": place.bucket, "Prefix": prefix, **marker}
        try:
            answer = requests.ask("list", uri, partial(client.list_multipart_uploads, **question))
        except (AccessDenied, StorageUnavailable) as error:
            if isinstance(error, StorageUnavailable) and not is_not_implemented(error.__cause__):
                raise
            logger.info("unfinished uploads below %s cannot be listed: %s", uri, error)
            return count
        # Some stores take no notice of the prefix.
        for entry in (one for one in answer.get("Uploads", []) if one["Key"].startswith(prefix)):
            count += _abort(client, requests, {"Bucket": place.bucket, "Key": entry["Key"]}, entry["UploadId"])
        if not answer.get("IsTruncated"):
            return count
        marker = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}


def _abort(client: "S3Client", requests: S3Requests, where: Any, upload: str) -> int:
    """1 if the upload is gone now. A failure is no error: what was to be said has been said."""
    uri = f"s3://{where['Bucket']}/{where['Key']}"
    try:
        with s3_errors("abort the upload of", place=uri, field=requests.field, storage=requests.connection.field):
            client.abort_multipart_upload(**where, UploadId=upload)
    except (TrainingError, Changed) as error:
        logger.warning("an unfinished upload stays and costs storage: %s", error)
        return 0
    return 1
