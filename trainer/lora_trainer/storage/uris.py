"""What a URI of the spec points at. Pure; used by every store and fetcher."""

import posixpath
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from lora_trainer.errors import InvalidConfiguration


@dataclass(frozen=True)
class S3Place:
    """A prefix (folder) or key of a bucket; `prefix` has no slash at either end and may be empty."""

    bucket: str
    prefix: str

    def key(self, relative: str) -> str:
        """The key of a file below the prefix: joined by `/`, so that `data` never reaches into `data-old/`."""
        return f"{self.prefix}/{relative}" if self.prefix else relative

    @property
    def listing_prefix(self) -> str:
        """What keys of the folder start with."""
        return f"{self.prefix}/" if self.prefix else ""


@dataclass(frozen=True)
class HubPlace:
    """A model repository on the Hugging Face hub."""

    repository: str
    revision: str | None


@dataclass(frozen=True)
class DiskPlace:
    """A folder or file of this machine, or of a mounted claim."""

    path: Path
    claim: Path | None = None
    """Where the claim that it lies in is mounted."""


Place = S3Place | HubPlace | DiskPlace


def parse_uri(uri: str, *, claims_dir: Path, field: str) -> Place:
    """Where `uri` points; `field` is its YAML path, for the message.

    Raises:
        InvalidConfiguration: the scheme is unknown, or a path leaves its claim.
    """
    scheme, separator, rest = uri.partition("://")
    if separator and scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        return S3Place(bucket, prefix.strip("/"))
    if separator and scheme == "hf":
        repository, at, revision = rest.partition("@")
        return HubPlace(repository, revision if at else None)
    if separator and scheme == "pvc":
        inside = _inside(rest, uri, field)
        return DiskPlace(claims_dir / inside, claims_dir / inside.parts[0])
    if separator and scheme == "file":
        # Percent-encoded where a program wrote it (RFC 8089), plain where a person did.
        return DiskPlace(Path(posixpath.normpath(unquote(rest))))
    raise InvalidConfiguration(
        f"{field} is {uri}, which is no URI that works here; use s3://, hf://, pvc:// or file://"
    )


def join_uri(uri: str, relative: str) -> str:
    """The URI of a file below the folder `uri`."""
    return f"{uri.rstrip('/')}/{relative}"


def is_safe_key(relative: str) -> bool:
    """Whether a relative key names a file inside its folder, and the same one on every file system."""
    parts = relative.split("/")
    return not any(part in {"", ".", ".."} or "\0" in part or "\\" in part for part in parts)


def _inside(path: str, uri: str, field: str) -> PurePosixPath:
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise InvalidConfiguration(f"{field} is {uri}, which leaves its claim; use pvc://claim/path without '..'")
    return relative
