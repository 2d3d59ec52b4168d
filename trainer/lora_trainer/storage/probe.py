"""Asks whether something is there and may be read, without fetching it. Used by `preflight`."""

from lora_trainer.storage.connection import Connection
from lora_trainer.storage.hub import check_repository
from lora_trainer.storage.on_disk import check_on_disk
from lora_trainer.storage.s3_client import make_client
from lora_trainer.storage.s3_listing import list_files
from lora_trainer.storage.s3_requests import S3Requests
from lora_trainer.storage.source import Source
from lora_trainer.storage.uris import DiskPlace, HubPlace, S3Place, parse_uri


def check_readable(source: Source, connection: Connection) -> None:
    """Raises what fetching `source` would raise now, but for what only its bytes can tell."""
    place = parse_uri(source.uri, claims_dir=connection.settings.claims_dir, field=source.field)
    match place:
        case DiskPlace():
            check_on_disk(place, source)
        case HubPlace():
            check_repository(place, source, token_file=connection.settings.hub_token_file)
        case S3Place():
            requests = S3Requests(connection, source.field, keep_on=lambda: None)
            list_files(make_client(connection), place, source, requests)
