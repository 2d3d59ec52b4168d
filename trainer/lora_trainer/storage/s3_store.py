"""Results in an S3 bucket: every upload carries its SHA-256, which the server checks, and is read back by HEAD."""

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from lora_trainer.errors import StorageUnavailable
from lora_trainer.storage.disk_errors import disk_errors
from lora_trainer.storage.s3_client import is_missing, s3_errors
from lora_trainer.storage.source import OnBytes
from lora_trainer.storage.store import DamagedFile, MissingFile
from lora_trainer.storage.uris import S3Place, join_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

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

    def put_bytes(self, data: bytes, key: str) -> None:
        """Uploads `data`; an object appears only when it is complete."""
        sha256 = hashlib.sha256(data).hexdigest()
        with self._errors("write", key):
            self._put(data, key, sha256)
        self._check_stored(key, size=len(data), sha256=sha256)
        self._on_bytes(len(data))

    def get_bytes(self, key: str) -> bytes:
        """The content of an object. Raises MissingFile."""
        with self._errors("read", key):
            data: bytes = self._get(key)["Body"].read()
            return data

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

    def _errors(self, operation: str, key: str) -> Any:
        return s3_errors(operation, place=self.uri_of(key), field=self._field)

    def _put(self, body: Any, key: str, sha256: str) -> None:
        self._client.put_object(
            Bucket=self._place.bucket,
            Key=self._place.key(key),
            Body=body,
            ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
            Metadata={"sha256": sha256},
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
