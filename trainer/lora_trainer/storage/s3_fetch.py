"""Fetches a folder or a file from an S3 bucket: in parallel, verified, only what is missing."""

import logging
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.storage.connection import Connection
from lora_trainer.storage.copies import LocalCopy
from lora_trainer.storage.s3_download import Download, RemoteObject
from lora_trainer.storage.s3_listing import RemoteFile, list_files
from lora_trainer.storage.s3_requests import S3Requests
from lora_trainer.storage.source import OnBytes, Source
from lora_trainer.storage.uris import S3Place

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 1.0


class _GivenUp(Exception):
    """Another file of the same transfer failed; that one's error is the one to tell."""


class S3Fetcher:
    """Makes a local copy of what `source` names."""

    def __init__(self, client: "S3Client", source: Source, connection: Connection, *, on_bytes: OnBytes) -> None:
        self._client, self._source, self._connection = client, source, connection
        self._requests = S3Requests(connection, source.field, keep_on=lambda: self._count(0))
        self._on_bytes = on_bytes
        self._counting = threading.Lock()
        self._stopped = threading.Event()

    def fetch(self, place: S3Place, target: Path, *, workers: int) -> Path:
        """A folder below `target`, or the one file in it, that equals what lies at `place` now.

        What an earlier start fetched is used again, also half a file. Another process that needs the same waits for
        this one; see `copies` for how they share the disk.

        Raises:
            InvalidConfiguration: the folder holds files that were not fetched, or the bucket does not exist.
            source.unusable: nothing usable lies there.
            AccessDenied, StorageUnavailable: the store or the disk refuses or fails.
        """
        listing = list_files(self._client, place, self._source, self._requests)
        copy = LocalCopy(target, listing.digest)
        copy.hold()
        copy.refuse_foreign()
        with copy.ledger.locked(self._wait_for_another):
            present = copy.ledger.present()
            present |= copy.adopt(remote.file for remote in listing.files if remote.file not in present)
            missing = [remote for remote in listing.files if remote.file not in present]
            logger.info("fetching %s: %s of %s files", self._source.uri, len(missing), len(listing.files))
            self._download_all(place.bucket, missing, copy, workers=max(1, workers))
        copy.remove_unused()
        return copy.folder if listing.is_folder else copy.folder / listing.files[0].file.path

    def _wait_for_another(self) -> None:
        self._count(0)
        self._connection.pause(_WAIT_SECONDS)

    def _download_all(self, bucket: str, remotes: Sequence[RemoteFile], copy: LocalCopy, *, workers: int) -> None:
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="fetch") as pool:
            downloads = [(remote, self._download_of(bucket, remote, copy)) for remote in remotes]
            arrivals = {
                pool.submit(self._fetch_range, download, number, copy.folder / remote.file.path): remote
                for remote, download in downloads
                for number in range(download.count)
            }
            try:
                for arrival in as_completed(arrivals):
                    if arrival.result():
                        copy.ledger.add(arrivals[arrival].file)
            finally:
                # After a failure the others stop at their next chunk instead of reading on.
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
        shutil.rmtree(copy.partial, ignore_errors=True)

    def _download_of(self, bucket: str, remote: RemoteFile, copy: LocalCopy) -> Download:
        what = RemoteObject(bucket, remote.key, remote.file.size_bytes, remote.file.etag)
        return Download(self._client, self._requests, what, copy.partial, on_chunk=self._count)

    def _fetch_range(self, download: Download, number: int, target: Path) -> bool:
        """Whether the file is whole now."""
        self._count(0)
        download.open()
        last = download.fetch_range(number)
        if last:
            download.finish(target)
        return last

    def _count(self, count_bytes: int) -> None:
        if self._stopped.is_set():
            raise _GivenUp
        with self._counting:
            self._on_bytes(count_bytes)
