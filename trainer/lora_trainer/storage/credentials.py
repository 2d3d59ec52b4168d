"""Where an S3 client takes its credentials from: a mounted Secret, read anew for each request, or boto3's own search.

Used by `s3_client`. Temporary credentials rotate: the kubelet replaces the mounted files while a pod runs.
"""

import functools
from pathlib import Path

import boto3
import botocore.session
from botocore.credentials import CredentialProvider, CredentialResolver, Credentials, ReadOnlyCredentials
from botocore.loaders import Loader, create_loader

from lora_trainer.errors import InvalidConfiguration
from lora_trainer.storage.connection import Connection

_REQUIRED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_TOKEN = "AWS_SESSION_TOKEN"
_CURRENT = "..data"
"""The link that the kubelet turns to the newest version of all files of a Secret at once."""


def open_session(connection: Connection) -> boto3.session.Session:
    """A session with the mounted Secret of the connection; without one boto3 looks for itself.

    Raises:
        InvalidConfiguration: a key of the Secret is missing.
    """
    folder = connection.credentials_dir
    session = botocore.session.Session()
    session.register_component("data_loader", _descriptions())
    if folder is not None and not connection.storage.anonymous:
        _read(folder, connection.field)
        provider = _MountedSecret(folder, connection.field)
        session.register_component("credential_provider", CredentialResolver([provider]))
    return boto3.session.Session(botocore_session=session)


@functools.cache
def _descriptions() -> Loader:
    """boto3's descriptions of AWS' services, which take far longer to read than a client takes to be made."""
    return create_loader()


class _MountedSecret(CredentialProvider):
    METHOD = "mounted-secret"

    def __init__(self, folder: Path, field: str) -> None:
        super().__init__()
        self._folder, self._field = folder, field

    def load(self) -> Credentials:
        return _MountedCredentials(self._folder, self._field)


class _MountedCredentials(Credentials):
    """What the files hold at the moment of a request."""

    def __init__(self, folder: Path, field: str) -> None:
        super().__init__("", "", method=_MountedSecret.METHOD)
        self._folder, self._field = folder, field

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        try:
            return _read(self._folder, self._field)
        except InvalidConfiguration:
            # The files were replaced between two reads.
            return _read(self._folder, self._field)


def _read(folder: Path, field: str) -> ReadOnlyCredentials:
    """The keys of one version of the Secret."""
    # Resolved once, so that a key is never combined with the secret of another version.
    current = (folder / _CURRENT).resolve() if (folder / _CURRENT).exists() else folder
    found = {name: _value(current / name) for name in (*_REQUIRED, _TOKEN)}
    missing = [name for name in _REQUIRED if not found[name]]
    if missing:
        raise InvalidConfiguration(
            f"the Secret of {field}.credentialsSecretRef has no key {' and no key '.join(missing)}; add it"
        )
    return ReadOnlyCredentials(found[_REQUIRED[0]], found[_REQUIRED[1]], found[_TOKEN])


def _value(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
