"""Files in and out: `fetch` makes a local copy of what a URI names, `open_store` gives the place for results.

Used by `run` and the commands. Schemes: s3://, hf:// (reading only), pvc:// and file://.
"""

from pathlib import Path

from lora_trainer.errors import InvalidConfiguration
from lora_trainer.storage.connection import Connection
from lora_trainer.storage.directory_store import DirectoryStore
from lora_trainer.storage.fence import Fence
from lora_trainer.storage.hub import fetch_from_hub
from lora_trainer.storage.on_disk import check_on_disk
from lora_trainer.storage.publish import (
    Publisher,
    UnreadableManifest,
    describe,
    fetch_published,
    read_manifest,
)
from lora_trainer.storage.s3_client import make_client
from lora_trainer.storage.s3_fetch import S3Fetcher
from lora_trainer.storage.s3_requests import S3Requests
from lora_trainer.storage.s3_store import S3Store
from lora_trainer.storage.source import OnBytes, Source
from lora_trainer.storage.store import DamagedFile, MissingFile, Store, check_writable
from lora_trainer.storage.uris import DiskPlace, HubPlace, S3Place, parse_uri

__all__ = [
    "Connection",
    "DamagedFile",
    "Fence",
    "MissingFile",
    "OnBytes",
    "Publisher",
    "Source",
    "Store",
    "UnreadableManifest",
    "check_writable",
    "describe",
    "fetch",
    "fetch_published",
    "open_store",
    "read_manifest",
]


def fetch(source: Source, target: Path, connection: Connection, *, on_bytes: OnBytes, workers: int = 8) -> Path:
    """A local folder or file with what `source` names: below `target` (a folder of its own), or the place itself
    when it is on this machine already. Nothing may be written into it: other processes may read it too.

    Raises:
        InvalidConfiguration, AccessDenied, StorageUnavailable: as the store answers.
        source.unusable: there is nothing usable.
    """
    place = parse_uri(source.uri, claims_dir=connection.settings.claims_dir, field=source.field)
    match place:
        case DiskPlace(path):
            check_on_disk(place, source)
            return path
        case HubPlace():
            token_file = connection.settings.hub_token_file
            return fetch_from_hub(place, source, target, token_file=token_file, workers=workers, on_bytes=on_bytes)
        case S3Place():
            client = make_client(connection, connections=max(10, workers))
            return S3Fetcher(client, source, connection, on_bytes=on_bytes).fetch(place, target, workers=workers)


def open_store(uri: str, connection: Connection, *, field: str, on_bytes: OnBytes) -> Store:
    """The store at `uri` (s3://, pvc:// or file://); `field` is its YAML path, for messages."""
    place = parse_uri(uri, claims_dir=connection.settings.claims_dir, field=field)
    match place:
        case DiskPlace(path):
            return DirectoryStore(path, uri, on_bytes=on_bytes)
        case S3Place():
            requests = S3Requests(connection, field)
            return S3Store(make_client(connection), place, uri, requests, on_bytes=on_bytes)
        case HubPlace():
            raise InvalidConfiguration(f"{field} is {uri}, but a hub cannot be written to; use s3:// or pvc://")
