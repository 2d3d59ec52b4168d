"""Results in an S3 bucket: every upload carries its SHA-256, which the server checks, and is read back by HEAD."""

import base64
import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from lora_trainer.errors import StorageUnavailable
from lora_trainer.storage.disk_errors import disk_errors
from lora_trainer.storage.s3_client import is_missing, is_not_implemented, s3_errors
from lora_trainer.storage.source import OnBytes
from lora_trainer.storage.store import ABSENT, Changed, DamagedFile, MissingFile, Version, Versioned
from lora_trainer.storage.uris import S3Place, join_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
SINGLE_PUT_BYTES = 4 << 30
"""S3 takes at most 5 GiB in one request; larger files go up in parts."""
PART_BYTES = 256 << 20


class S3Store:
    """A Store below `place`; `uri` is how the spec names it and `field` where."""

    def __init__(self, client: "S3Client", place: S3Place, uri: str, *, field: str, on_bytes: OnBytes) -> None:
        self._client = client
        self._place = place
        self._uri = uri
        self._field = field
        self._on_bytes = on_bytes
        self._keeps_conditions = True

    def uri_of(self, key: str) -> str:
        """The full URI of a key."""
        return join_uri(self._uri, key)

    def put_file(self, path: Path, key: str, *, sha256: str) -> None:
        """Uploads a file; a server that received anything else than this digest refuses it."""
        size = path.stat().st_size
        with self._errors("write", key), path.open("rb") as file:
            if size <= SINGLE_PUT_BYTES:
                self._put(file, key, sha256)
            else:
                self._client.upload_fileobj(
                    file,
                    self._place.bucket,
                    self._place.key(key),
                    ExtraArgs={"ChecksumAlgorithm": "SHA256", "Metadata": {"sha256": sha256}},
                    Config=TransferConfig(multipart_chunksize=PART_BYTES, multipart_threshold=1),
                )
        self._check_stored(key, size=size, sha256=sha256)
        self._on_bytes(size)

    def put_bytes(self, data: bytes, key: str, *, only_if: Version | None = None) -> None:
        """Uploads `data`; an object appears only when it is complete.

        A store that knows no conditions is asked before and after instead: of two writers at the same moment the
        one that is overwritten then gets Changed, unless it looked before the other one wrote.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        if only_if is None:
            with self._errors("write", key):
                self._put(data, key, sha256)
            self._check_stored(key, size=len(data), sha256=sha256)
        else:
            self._put_if(data, key, sha256, only_if)
        self._on_bytes(len(data))

    def get_bytes(self, key: str) -> bytes:
        """The content of an object. Raises MissingFile."""
        return self.get_versioned(key).content

    def get_versioned(self, key: str) -> Versioned:
        """The content of an object with its ETag as the version. Raises MissingFile."""
        with self._errors("read", key):
            answer = self._get(key)
            return Versioned(answer["Body"].read(), Version(answer["ETag"]))

    def get_file(self, key: str, target: Path, *, sha256: str) -> None:
        """Downloads an object to `target` and checks its digest."""
        digest = hashlib.sha256()
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file, self._errors("read", key):
                for chunk in self._get(key)["Body"].iter_chunks(_CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
        if digest.hexdigest() != sha256:
            target.unlink()
            raise DamagedFile(f"{self.uri_of(key)} is damaged: its SHA-256 is not that of the manifest")

    def list(self, prefix: str = "") -> list[str]:
        """Keys that begin with `prefix`, ascending."""
        folder = self._place.listing_prefix
        with self._errors("list", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._place.bucket, Prefix=folder + prefix
            )
            return sorted(entry["Key"].removeprefix(folder) for page in pages for entry in page.get("Contents", []))

    def delete(self, key: str) -> None:
        """Removes an object; S3 says nothing about one that is not there."""
        with self._errors("delete", key):
            self._client.delete_object(Bucket=self._place.bucket, Key=self._place.key(key))

    def discard_unfinished(self, folders: tuple[str, ...]) -> int:
        """Aborts multipart uploads below these folders; their parts cost storage until then."""
        return 0

    def _put_if(self, data: bytes, key: str, sha256: str, only_if: Version) -> None:
        if self._keeps_conditions:
            condition = {"IfNoneMatch": "*"} if only_if == ABSENT else {"IfMatch": str(only_if)}
            try:
                with self._errors("write", key):
                    self._put(data, key, sha256, **condition)
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
            with self._errors("write", key):
                self._put(data, key, sha256)
        # Also where the store said yes: some take the condition and ignore it.
        if not self._holds(key, data):
            raise Changed(self.uri_of(key))

    def _version(self, key: str) -> Version:
        try:
            return self.get_versioned(key).version
        except MissingFile:
            return ABSENT

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.get_bytes(key) == data
        except MissingFile:
            return False

    def _errors(self, operation: str, key: str) -> Any:
        return s3_errors(operation, place=self.uri_of(key), field=self._field)

    def _put(self, body: Any, key: str, sha256: str, **condition: str) -> None:
        self._client.put_object(
            Bucket=self._place.bucket,
            Key=self._place.key(key),
            Body=body,
            ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
            Metadata={"sha256": sha256},
            **condition,
        )

    def _get(self, key: str) -> Any:
        try:
            return self._client.get_object(Bucket=self._place.bucket, Key=self._place.key(key))
        except ClientError as error:
            if is_missing(error):
                raise MissingFile(self.uri_of(key)) from error
            raise

    def _check_stored(self, key: str, *, size: int, sha256: str) -> None:
        """Asks what lies there now: a proxy may say yes to an upload that it lost."""
        with self._errors("read", key):
            head = self._client.head_object(Bucket=self._place.bucket, Key=self._place.key(key))
        if head["ContentLength"] != size or head.get("Metadata", {}).get("sha256") != sha256:
            raise StorageUnavailable(f"{self._field}: {self.uri_of(key)} is not what was uploaded")
