"""What lies at an S3 URI: the files of a folder, or one file. Used before fetching."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from lora_trainer.storage.ledger import FetchedFile
from lora_trainer.storage.s3_client import is_missing, s3_errors
from lora_trainer.storage.source import Source
from lora_trainer.storage.uris import S3Place, is_safe_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class RemoteFile:
    """An object of the bucket and the local file that it becomes."""

    key: str
    file: FetchedFile


@dataclass(frozen=True)
class Listing:
    """What lies at a URI."""

    files: tuple[RemoteFile, ...]
    is_folder: bool


def list_files(client: "S3Client", place: S3Place, source: Source) -> Listing:
    """The wanted files of the folder at `place`, or the one file there.

    Raises:
        source.unusable: there is nothing, or a key cannot be a file inside the folder.
        AccessDenied, StorageUnavailable, InvalidConfiguration: the store refuses or fails.
    """
    files = _folder(client, place, source)
    if files:
        _check_keys(files, source)
        return Listing(files, is_folder=True)
    single = _single(client, place, source)
    if not single:
        raise source.unusable(f"{source.field}: there are no files at {source.uri.rstrip('/')}/")
    return Listing(single, is_folder=False)


def _folder(client: "S3Client", place: S3Place, source: Source) -> tuple[RemoteFile, ...]:
    files = []
    prefix = place.listing_prefix
    with s3_errors("list", place=source.uri, field=source.field):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=prefix)
        for entry in (entry for page in pages for entry in page.get("Contents", [])):
            relative = entry["Key"].removeprefix(prefix)
            # Consoles mark a folder by an empty object whose key ends with a slash.
            if relative and not relative.endswith("/"):
                file = FetchedFile(relative, entry["Size"], entry["ETag"].strip('"'))
                files.append(RemoteFile(entry["Key"], file))
    chosen = source.choose(remote.file.path for remote in files)
    return tuple(remote for remote in files if remote.file.path in chosen)


def _single(client: "S3Client", place: S3Place, source: Source) -> tuple[RemoteFile, ...]:
    if not place.prefix:
        return ()
    with s3_errors("read", place=source.uri, field=source.field):
        try:
            head = client.head_object(Bucket=place.bucket, Key=place.prefix)
        except ClientError as error:
            if is_missing(error):
                return ()
            raise
    name = PurePosixPath(place.prefix).name
    return (RemoteFile(place.prefix, FetchedFile(name, head["ContentLength"], head["ETag"].strip('"'))),)


def _check_keys(files: tuple[RemoteFile, ...], source: Source) -> None:
    paths = {remote.file.path for remote in files}
    folders = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    bad = sorted(path for path in paths if not is_safe_key(path) or path in folders)
    if bad:
        raise source.unusable(
            f"{source.field}: the key {bad[0]!r} below {source.uri} cannot be a file of that folder; "
            "rename or remove it"
        )
