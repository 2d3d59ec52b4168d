"""One object of a bucket on its way into a file: in ranges, continued where it stopped, verified at the end.

Used by `s3_fetch` and `s3_store`. Memory: one chunk of 1 MiB for each range that is read at once.
"""

import hashlib
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.errors import StorageUnavailable
from lora_trainer.storage.disk_errors import disk_errors
from lora_trainer.storage.s3_errors import Transient
from lora_trainer.storage.s3_requests import S3Requests
from lora_trainer.storage.store import Changed

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CHUNK_BYTES = 1 << 20
RANGE_BYTES = 64 << 20
"""Larger objects are read in ranges of this size, several at once."""
JOURNAL_BYTES = 8 << 20
"""After so many bytes of a range it is noted that they lie on the disk, for a start after a killed one."""
_MD5 = re.compile(r"[0-9a-f]{32}")
_MD5_OF_PARTS = re.compile(r"([0-9a-f]{32})-([0-9]+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteObject:
    """An object as a listing or HEAD described it."""

    bucket: str
    key: str
    size_bytes: int
    etag: str
    """Without quotes."""

    @property
    def uri(self) -> str:
        """For messages."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """A file name that only this content of this key has."""
        return hashlib.sha256(f"{self.bucket}/{self.key} {self.etag}".encode()).hexdigest()[:32]


class Download:
    """The ranges 0 to `count - 1` of an object may be fetched by different threads; then one calls `finish`."""

    def __init__(
        self,
        client: "S3Client",
        requests: S3Requests,
        remote: RemoteObject,
        folder: Path,
        *,
        on_chunk: Callable[[int], None],
    ) -> None:
        """The bytes gather in a file of `folder` that a later start finds again; `on_chunk` is told their number."""
        self._client, self._requests, self._remote, self._on_chunk = client, requests, remote, on_chunk
        self._partial = folder / remote.name
        self._journal = folder / f"{remote.name}.journal"
        self._noting = threading.Lock()
        self.count = max(1, -(-remote.size_bytes // RANGE_BYTES))
        self._offsets = [number * RANGE_BYTES for number in range(self.count)]
        self._left = self.count
        self._opened = False
        self._answer: dict[str, Any] = {}

    def open(self) -> None:
        """Makes the partial file, or takes up one that an earlier start left; once, whichever range comes first."""
        with self._noting, disk_errors(self._partial):
            if self._opened:
                return
            self._opened = True
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            if self._journal.exists() and self._partial.exists():
                self._take_up()
            else:
                self._journal.unlink(missing_ok=True)
                with self._partial.open("wb") as file:
                    file.truncate(self._remote.size_bytes)

    def fetch_range(self, number: int) -> bool:
        """Fetches what is missing of a range; whether it was the last one. Raises as `S3Requests.ask`."""
        try:
            with disk_errors(self._partial), self._partial.open("r+b") as file:
                self._requests.ask("read", self._remote.uri, lambda: self._stream(number, file.fileno()))
        except Changed as error:
            raise StorageUnavailable(
                f"{self._requests.field}: {self._remote.uri} was changed while it was fetched"
            ) from error
        with self._noting:
            self._left -= 1
            return self._left == 0

    def finish(self, target: Path) -> None:
        """Verifies the whole object as far as the store tells, and gives it its name.

        What arrived damaged is fetched again from its beginning.
        """
        for _ in range(self._requests.connection.attempts - 1):
            if self._is_whole():
                break
            self._start_again()
        else:
            if not self._is_whole():
                self.discard()
                raise StorageUnavailable(f"{self._requests.field}: {self._remote.uri} arrived damaged")
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._partial.replace(target)
            self._journal.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes what has arrived so far."""
        self._journal.unlink(missing_ok=True)
        self._partial.unlink(missing_ok=True)

    def _start_again(self) -> None:
        self.discard()
        self._offsets = [number * RANGE_BYTES for number in range(self.count)]
        self._left, self._opened = self.count, False
        self.open()
        for number in range(self.count):
            self.fetch_range(number)

    def _take_up(self) -> None:
        for line in self._journal.read_text(encoding="ascii").splitlines():
            number, _, offset = line.partition(" ")
            # A killed process may leave half a line.
            if number.isdecimal() and offset.isdecimal() and int(number) < self.count:
                self._offsets[int(number)] = min(int(offset), self._end(int(number)))

    def _end(self, number: int) -> int:
        return min((number + 1) * RANGE_BYTES, self._remote.size_bytes)

    def _stream(self, number: int, descriptor: int) -> None:
        end, noted = self._end(number), self._offsets[number]
        if noted == end and end:
            return
        answer = self._get(noted, end)
        for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
            os.pwrite(descriptor, chunk, self._offsets[number])
            self._offsets[number] += len(chunk)
            self._on_chunk(len(chunk))
            if self._offsets[number] - noted >= JOURNAL_BYTES:
                noted = self._offsets[number]
                self._note(number, noted, descriptor)
        if self._offsets[number] < end:
            raise Transient(f"{self._requests.field}: the answer for {self._remote.uri} ended too early")

    def _get(self, start: int, end: int) -> Any:
        part: Any = {} if start == 0 and end == self._remote.size_bytes else {"Range": f"bytes={start}-{end - 1}"}
        answer: Any = self._client.get_object(
            Bucket=self._remote.bucket, Key=self._remote.key, IfMatch=f'"{self._remote.etag}"', **part
        )
        if answer["ContentLength"] != end - start:
            raise StorageUnavailable(
                f"{self._requests.field}: asked for {end - start} bytes of {self._remote.uri}, the store sends "
                f"{answer['ContentLength']}"
            )
        self._answer = answer
        return answer

    def _note(self, number: int, offset: int, descriptor: int) -> None:
        # First the bytes, then the note of them: also when the machine loses its power in between.
        os.fdatasync(descriptor)
        with self._noting, self._journal.open("a", encoding="ascii") as journal:
            journal.write(f"{number} {offset}\n")

    def _is_whole(self) -> bool:
        """Compares with what the store says; an ETag is an MD5 unless a key of a KMS or the client's encrypts."""
        if not self._answer:
            self._answer = self._requests.ask("read", self._remote.uri, self._head)
        told = self._answer.get("Metadata", {}).get("sha256", "")
        if _SHA256.fullmatch(told):
            return self._digest("sha256") == str(told)
        encrypted = self._answer.get("ServerSideEncryption", "AES256") != "AES256"
        if encrypted or "SSECustomerAlgorithm" in self._answer:
            return True
        if _MD5.fullmatch(self._remote.etag):
            return self._digest("md5") == self._remote.etag
        return self._parts_are_whole()

    def _parts_are_whole(self) -> bool:
        """A multipart ETag is the MD5 of its parts' MD5s; the first part tells the size of all but the last."""
        match = _MD5_OF_PARTS.fullmatch(self._remote.etag)
        if match is None:
            return True
        size = int(self._requests.ask("read", self._remote.uri, lambda: self._head(PartNumber=1))["ContentLength"])
        count = int(match[2])
        if size == 0 or -(-self._remote.size_bytes // size) != count:
            return True
        parts = hashlib.md5(usedforsecurity=False)
        with disk_errors(self._partial), self._partial.open("rb") as file:
            for _ in range(count):
                parts.update(_md5_of_next(file, size))
        return parts.hexdigest() == match[1]

    def _head(self, **part: Any) -> Any:
        return self._client.head_object(Bucket=self._remote.bucket, Key=self._remote.key, **part)

    def _digest(self, algorithm: str) -> str:
        with disk_errors(self._partial), self._partial.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _md5_of_next(file: Any, count_bytes: int) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    while count_bytes and (chunk := file.read(min(count_bytes, _CHUNK_BYTES))):
        digest.update(chunk)
        count_bytes -= len(chunk)
    return digest.digest()
