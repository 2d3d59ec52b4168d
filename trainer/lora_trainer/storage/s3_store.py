"""Results in an S3 bucket: every upload carries its SHA-256, which the server checks, and is asked for afterwards."""

import base64
import hashlib
import io
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from botocore.exceptions import ClientError

from lora_trainer.errors import StorageUnavailable
from lora_trainer.storage.s3_download import Download, RemoteObject
from lora_trainer.storage.s3_errors import Transient, is_missing, is_not_implemented
from lora_trainer.storage.s3_listing import head_object, list_objects
from lora_trainer.storage.s3_requests import S3Requests
from lora_trainer.storage.s3_upload import MultipartUpload, abort_unfinished
from lora_trainer.storage.source import OnBytes
from lora_trainer.storage.store import ABSENT, Changed, DamagedFile, MissingFile, Version, Versioned
from lora_trainer.storage.uris import S3Place, join_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

logger = logging.getLogger(__name__)

SINGLE_PUT_BYTES = 64 << 20
"""Larger files go up in parts."""
_RANGES_AT_ONCE = 4
T = TypeVar("T")


class S3Store:
    """A Store below `place`; `uri` is how the spec names it."""

    def __init__(
        self, client: "S3Client", place: S3Place, uri: str, requests: S3Requests, *, on_bytes: OnBytes
    ) -> None:
        self._client = client
        self._place = place
        self._uri = uri
        self._requests = requests
        self._on_bytes = on_bytes
        self._keeps_conditions = True

    def uri_of(self, key: str) -> str:
        """The full URI of a key."""
        return join_uri(self._uri, key)

    def put_file(self, path: Path, key: str, *, sha256: str) -> None:
        """Uploads a file; a server that received anything else than this digest refuses it."""
        size = path.stat().st_size
        if size > SINGLE_PUT_BYTES:
            upload = MultipartUpload(self._client, self._requests, self._place, key, on_bytes=self._on_bytes)
            upload.upload(path, sha256=sha256)
            self._ask("read", key, lambda: self._check_stored(key, size=size, sha256=sha256))
        else:
            self._put(lambda: path.open("rb"), key, size=size, sha256=sha256)
            self._on_bytes(size)

    def put_bytes(self, data: bytes, key: str, *, only_if: Version | None = None) -> None:
        """Uploads `data`; an object appears only when it is complete.

        A store that knows no conditions is asked before and after instead: of two writers at the same moment the
        one that is overwritten then gets Changed, unless it looked before the other one wrote.
        """
        if only_if is None:
            sha256 = hashlib.sha256(data).hexdigest()
            self._put(lambda: io.BytesIO(data), key, size=len(data), sha256=sha256)
        else:
            self._put_if(data, key, only_if)
        self._on_bytes(len(data))

    def get_bytes(self, key: str) -> bytes:
        """The content of an object. Raises MissingFile."""
        return self.get_versioned(key).content

    def get_versioned(self, key: str) -> Versioned:
        """The content of an object with its ETag as the version. Raises MissingFile."""
        return self._ask("read", key, lambda: self._get(key))

    def get_file(self, key: str, target: Path, *, sha256: str) -> None:
        """Downloads an object to `target` and checks its digest."""
        head = self._ask("read", key, lambda: head_object(self._client, self._place.bucket, self._place.key(key)))
        if head is None:
            raise MissingFile(self.uri_of(key))
        if head.get("Metadata", {}).get("sha256", sha256) != sha256:
            raise self._damaged(key)
        etag, size = head["ETag"].strip('"'), head["ContentLength"]
        remote = RemoteObject(self._place.bucket, self._place.key(key), size, etag)
        folder = target.with_name(f"{target.name}.partial")
        download = Download(self._client, self._requests, remote, folder, on_chunk=lambda _: None)
        download.open()
        with ThreadPoolExecutor(_RANGES_AT_ONCE, thread_name_prefix="read") as pool:
            list(pool.map(download.fetch_range, range(download.count)))
        download.finish(target)
        folder.rmdir()
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            target.unlink()
            raise self._damaged(key)

    def list(self, prefix: str = "") -> list[str]:
        """Keys that begin with `prefix`, ascending."""
        entries = list_objects(self._client, self._place, prefix, self._requests)
        return sorted(entry["Key"].removeprefix(self._place.listing_prefix) for entry in entries)

    def delete(self, key: str) -> None:
        """Removes an object; S3 says nothing about one that is not there."""
        where: Any = {"Bucket": self._place.bucket, "Key": self._place.key(key)}
        self._ask("delete", key, lambda: self._client.delete_object(**where))

    def discard_unfinished(self, folders: tuple[str, ...]) -> int:
        """Aborts multipart uploads below these folders; their parts cost storage until then."""
        return sum(abort_unfinished(self._client, self._requests, self._place, folder) for folder in folders)

    def _ask(self, operation: str, key: str, call: Callable[[], T]) -> T:
        return self._requests.ask(operation, self.uri_of(key), call)

    def _put(self, open_body: Callable[[], BinaryIO], key: str, *, size: int, sha256: str) -> None:
        def put() -> None:
            with open_body() as body:
                self._send(body, key, sha256)
            self._check_stored(key, size=size, sha256=sha256)

        self._ask("write", key, put)

    def _put_if(self, data: bytes, key: str, only_if: Version) -> None:
        if self._keeps_conditions:
            try:
                self._ask("write", key, lambda: self._send_if(data, key, only_if))
            except Changed:
                # The answer to a write may be lost, and its repetition then meets our own content.
                if not self._holds(key, data):
                    raise
            except StorageUnavailable as error:
                if not is_not_implemented(error.__cause__):
                    raise
                logger.warning("%s knows no conditional writes; it is asked before and after each", self._uri)
                self._keeps_conditions = False
        if not self._keeps_conditions:
            if self._version(key) != only_if:
                raise Changed(self.uri_of(key))
            self._put(lambda: io.BytesIO(data), key, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        # Also where the store said yes: some take the condition and ignore it.
        if not self._holds(key, data):
            raise Changed(self.uri_of(key))

    def _send_if(self, data: bytes, key: str, only_if: Version) -> None:
        condition: Any = {"IfNoneMatch": "*"} if only_if == ABSENT else {"IfMatch": str(only_if)}
        try:
            self._send(data, key, hashlib.sha256(data).hexdigest(), **condition)
        except ClientError as error:
            if only_if != ABSENT and is_missing(error):
                raise Changed(self.uri_of(key)) from error
            raise
        if self._version_now(key) == only_if:
            raise Transient(f"{self._requests.field}: {self.uri_of(key)} is not what was uploaded")

    def _send(self, body: Any, key: str, sha256: str, **condition: Any) -> None:
        self._client.put_object(
            Bucket=self._place.bucket,
            Key=self._place.key(key),
            Body=body,
            ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
            Metadata={"sha256": sha256},
            **condition,
        )

    def _get(self, key: str) -> Versioned:
        try:
            answer = self._client.get_object(Bucket=self._place.bucket, Key=self._place.key(key))
        except ClientError as error:
            if is_missing(error):
                raise MissingFile(self.uri_of(key)) from error
            raise
        content = answer["Body"].read()
        told = answer.get("Metadata", {}).get("sha256")
        if told is not None and told != hashlib.sha256(content).hexdigest():
            raise Transient(f"{self._requests.field}: {self.uri_of(key)} arrived damaged")
        return Versioned(content, Version(answer["ETag"]))

    def _version(self, key: str) -> Version:
        return self._ask("read", key, lambda: self._version_now(key))

    def _version_now(self, key: str) -> Version:
        head = head_object(self._client, self._place.bucket, self._place.key(key))
        return ABSENT if head is None else Version(head["ETag"])

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.get_bytes(key) == data
        except MissingFile:
            return False

    def _check_stored(self, key: str, *, size: int, sha256: str) -> None:
        """Asks what lies there now: a proxy may say yes to an upload that it lost."""
        head = head_object(self._client, self._place.bucket, self._place.key(key)) or {}
        if head.get("ContentLength") != size or head.get("Metadata", {}).get("sha256") != sha256:
            raise Transient(f"{self._requests.field}: {self.uri_of(key)} is not what was uploaded")

    def _damaged(self, key: str) -> DamagedFile:
        return DamagedFile(f"{self.uri_of(key)} is damaged: its SHA-256 is not that of the manifest")
