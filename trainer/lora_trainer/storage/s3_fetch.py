"""Fetches a folder or a file from an S3 bucket: streamed, verified, only what is missing."""

import hashlib
import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.errors import InvalidConfiguration, StorageUnavailable
from lora_trainer.storage.disk_errors import DiskUnavailable, disk_errors
from lora_trainer.storage.ledger import FetchedFile, Ledger
from lora_trainer.storage.s3_client import s3_errors
from lora_trainer.storage.s3_listing import RemoteFile, list_files
from lora_trainer.storage.source import OnBytes, Source
from lora_trainer.storage.store import Changed
from lora_trainer.storage.uris import S3Place

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_MD5 = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Retry:
    """How often a broken download is tried, and how it waits in between (twice as long each time)."""

    attempts: int = 5
    first_pause_seconds: float = 1.0
    pause: Callable[[float], None] = time.sleep


class _GivenUp(Exception):
    """Another file of the same transfer failed; that one's error is the one to tell."""


class S3Fetcher:
    """Makes a local copy of what `source` names."""

    def __init__(self, client: "S3Client", source: Source, *, on_bytes: OnBytes, retry: Retry) -> None:
        self._client = client
        self._source = source
        self._on_bytes = on_bytes
        self._retry = retry
        self._counting = threading.Lock()
        self._stopped = threading.Event()

    def fetch(self, place: S3Place, target: Path, *, workers: int) -> Path:
        """The folder `target`, or the one file in it, that now equals what lies at `place`.

        Files that are already there are kept, files that are no longer in the bucket removed.

        Raises:
            InvalidConfiguration: `target` holds files that were not fetched, or the bucket does not exist.
            source.unusable: nothing usable lies there.
            AccessDenied, StorageUnavailable: the store or the disk refuses or fails.
        """
        listing = list_files(self._client, place, self._source)
        ledger = Ledger(target)
        _refuse_foreign(target, ledger)
        with ledger.locked():
            present = ledger.present()
            _remove_others(target, {remote.file.path for remote in listing.files})
            missing = [remote for remote in listing.files if remote.file not in present]
            logger.info("fetching %s: %s of %s files", self._source.uri, len(missing), len(listing.files))
            self._download_all(place.bucket, missing, target, ledger=ledger, workers=workers)
        return target if listing.is_folder else target / listing.files[0].file.path

    def _download_all(
        self, bucket: str, remotes: Sequence[RemoteFile], target: Path, *, ledger: Ledger, workers: int
    ) -> None:
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        with disk_errors(partial):
            partial.mkdir(parents=True)
        with ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="fetch") as pool:
            arrivals = {
                pool.submit(self._download, bucket, remote, partial / str(number), target): remote
                for number, remote in enumerate(remotes)
            }
            try:
                for arrival in as_completed(arrivals):
                    arrival.result()
                    ledger.add(arrivals[arrival].file)
            finally:
                # After a failure the others stop at their next chunk instead of reading on.
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
        shutil.rmtree(partial, ignore_errors=True)

    def _download(self, bucket: str, remote: RemoteFile, partial: Path, target: Path) -> None:
        for attempt in range(1, self._retry.attempts + 1):
            try:
                self._stream(bucket, remote, partial)
                break
            except DiskUnavailable:
                raise
            except StorageUnavailable as error:
                if attempt == self._retry.attempts:
                    raise
                logger.warning("%s; try %s of %s follows", error, attempt + 1, self._retry.attempts)
            # Whoever wants to stop need not wait for a dead store.
            self._count(0)
            self._retry.pause(self._retry.first_pause_seconds * 2 ** (attempt - 1))
        final = target / remote.file.path
        with disk_errors(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(final)

    def _stream(self, bucket: str, remote: RemoteFile, partial: Path) -> None:
        place = f"s3://{bucket}/{remote.key}"
        md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
        with disk_errors(partial), partial.open("wb") as file:
            try:
                with s3_errors("read", place=place, field=self._source.field):
                    answer = self._client.get_object(Bucket=bucket, Key=remote.key, IfMatch=f'"{remote.file.etag}"')
                    chunks = answer["Body"].iter_chunks(_CHUNK_BYTES)
            except Changed as error:
                raise StorageUnavailable(f"{self._source.field}: {place} was changed while it was fetched") from error
            while chunk := self._next_chunk(chunks, place):
                file.write(chunk)
                md5.update(chunk)
                sha256.update(chunk)
                size += len(chunk)
                self._count(len(chunk))
        if not _is_whole(remote.file, answer, size=size, md5=md5.hexdigest(), sha256=sha256.hexdigest()):
            raise StorageUnavailable(f"{self._source.field}: {place} arrived damaged")

    def _next_chunk(self, chunks: Any, place: str) -> bytes:
        with s3_errors("read", place=place, field=self._source.field):
            return next(chunks, b"")

    def _count(self, count_bytes: int) -> None:
        if self._stopped.is_set():
            raise _GivenUp
        with self._counting:
            self._on_bytes(count_bytes)


def _is_whole(file: FetchedFile, answer: Any, *, size: int, md5: str, sha256: str) -> bool:
    """Compares with what the store says; an ETag is an MD5 unless the upload had parts or a KMS key."""
    encrypted = answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer
    etag_is_md5 = _MD5.fullmatch(file.etag) is not None and not encrypted
    written = answer.get("Metadata", {}).get("sha256", "")
    return (
        size == file.size_bytes
        and (not etag_is_md5 or md5 == file.etag)
        and (not _SHA256.fullmatch(written) or sha256 == written)
    )


def _refuse_foreign(target: Path, ledger: Ledger) -> None:
    if not ledger.exists() and target.is_dir() and any(target.iterdir()):
        raise InvalidConfiguration(f"{target} holds files that were not fetched; choose another working directory")


def _remove_others(target: Path, wanted: set[str]) -> None:
    with disk_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(target.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(target).as_posix() not in wanted:
                path.unlink()
