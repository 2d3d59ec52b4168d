"""What lies at an S3 URI: the files of a folder, or one file. Used before fetching."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lora_trainer.storage.ledger import FetchedFile
from lora_trainer.storage.s3_errors import is_missing
from lora_trainer.storage.s3_requests import S3Requests
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

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that are others when any file is another one."""
        content = sorted(astuple(remote.file) for remote in self.files)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def list_files(client: "S3Client", place: S3Place, source: Source, requests: S3Requests) -> Listing:
    """The wanted files of the folder at `place`, or the one file there.

    Raises:
        source.unusable: there is nothing, or a key cannot be a file inside the folder.
        AccessDenied, StorageUnavailable, InvalidConfiguration: the store refuses or fails.
    """
    files = _folder(client, place, source, requests)
    if files:
        _check_keys(files, source)
        return Listing(files, is_folder=True)
    single = _single(client, place, source, requests)
    if not single:
        raise source.unusable(f"{source.field}: there are no files at {source.uri.rstrip('/')}/")
    return Listing(single, is_folder=False)


def list_objects(client: "S3Client", place: S3Place, prefix: str, requests: S3Requests) -> Iterator[Any]:
    """The entries below `place` whose relative key begins with `prefix`, page by page."""
    page: dict[str, str] = {}
    uri = f"s3://{place.bucket}/{place.key(prefix)}".rstrip("/")
    while True:
        question: Any = {"Bucket": place.bucket, "Prefix": place.listing_prefix + prefix, **page}
        answer = requests.ask("list", uri, partial(client.list_objects_v2, **question))
        yield from answer.get("Contents", [])
        if not answer.get("IsTruncated"):
            return
        page = {"ContinuationToken": answer["NextContinuationToken"]}


def _folder(client: "S3Client", place: S3Place, source: Source, requests: S3Requests) -> tuple[RemoteFile, ...]:
    files = []
    for entry in list_objects(client, place, "", requests):
        relative = entry["Key"].removeprefix(place.listing_prefix)
        # Consoles mark a folder by an empty object whose key ends with a slash.
        if relative and not relative.endswith("/"):
            file = FetchedFile(relative, entry["Size"], entry["ETag"].strip('"'))
            files.append(RemoteFile(entry["Key"], file))
    chosen = source.choose(remote.file.path for remote in files)
    return tuple(remote for remote in files if remote.file.path in chosen)


def _single(client: "S3Client", place: S3Place, source: Source, requests: S3Requests) -> tuple[RemoteFile, ...]:
    if not place.prefix:
        return ()
    head = requests.ask("read", source.uri, lambda: head_object(client, place.bucket, place.prefix))
    if head is None:
        return ()
    name = PurePosixPath(place.prefix).name
    return (RemoteFile(place.prefix, FetchedFile(name, head["ContentLength"], head["ETag"].strip('"'))),)


def head_object(client: "S3Client", bucket: str, key: str) -> Any:
    """What the store says of an object; None if there is none."""
    try:
        return client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if is_missing(error):
            return None
        raise


def _check_keys(files: tuple[RemoteFile, ...], source: Source) -> None:
    paths = {remote.file.path for remote in files}
    folders = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    bad = sorted(path for path in paths if not is_safe_key(path) or path in folders)
    if bad:
        raise source.unusable(
            f"{source.field}: the key {bad[0]!r} below {source.uri} cannot be a file of that folder; "
            "rename or remove it"
        )
