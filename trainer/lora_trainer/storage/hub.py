"""Fetches a model or dataset repository from the Hugging Face hub: only the wanted files, resumed where it stopped."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)
from huggingface_hub.utils import tqdm

from lora_trainer.errors import AccessDenied, StorageUnavailable, TrainingError
from lora_trainer.storage.copies import LocalCopy
from lora_trainer.storage.disk_errors import disk_errors
from lora_trainer.storage.source import OnBytes, Source
from lora_trainer.storage.uris import HubPlace

_TOKEN_HINT = "Accept the model's terms on the hub and name a token in spec.baseModel.tokenSecretRef."


def fetch_from_hub(
    place: HubPlace, source: Source, target: Path, *, token_file: Path | None, workers: int, on_bytes: OnBytes
) -> Path:
    """A folder below `target` with the wanted files of the repository's revision, one for each of its commits.

    Raises:
        source.unusable: no such repository, revision or files, or the hub is switched off.
        AccessDenied: the repository is gated, and there is no token that may read it.
        StorageUnavailable: the hub does not answer, or the disk fails.
    """
    token = _token(token_file)
    with disk_errors(target), _hub_errors(place, source):
        commit, wanted = _wanted(place, source, token)
        copy = LocalCopy(target, commit[:16])
        copy.hold()
        huggingface_hub.snapshot_download(
            place.repository,
            repo_type=source.repository,
            revision=commit,
            local_dir=copy.folder,
            allow_patterns=sorted(wanted),
            token=token,
            max_workers=max(1, workers),
            tqdm_class=_bar_that_asks(on_bytes),
        )
    folder = copy.folder
    files = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.relative_to(folder).parts]
    if not files:
        raise _holds_nothing(source)
    on_bytes(sum(path.stat().st_size for path in files))
    copy.remove_unused()
    return folder


def check_repository(place: HubPlace, source: Source, *, token_file: Path | None) -> None:
    """Asks whether the wanted files are there and may be fetched, without fetching. Raises as `fetch_from_hub`."""
    token = _token(token_file)
    with _hub_errors(place, source):
        # What a gated repository holds is told to everybody; whether it may be read is another question.
        huggingface_hub.auth_check(place.repository, repo_type=source.repository, token=token)
        if not _wanted(place, source, token)[1]:
            raise _holds_nothing(source)


def _wanted(place: HubPlace, source: Source, token: str | None) -> tuple[str, frozenset[str]]:
    """The commit that the revision names now, and the wanted files of it."""
    there = huggingface_hub.repo_info(
        place.repository, repo_type=source.repository, revision=place.revision, token=token
    )
    return str(there.sha), source.choose(file.rfilename for file in there.siblings or ())


def _token(file: Path | None) -> str | None:
    return file.read_text(encoding="utf-8").strip() if file and file.is_file() else None


def _holds_nothing(source: Source) -> TrainingError:
    return source.unusable(f"{source.field}: {source.uri} holds none of {', '.join(source.patterns) or 'any file'}")


@contextmanager
def _hub_errors(place: HubPlace, source: Source) -> Iterator[None]:
    try:
        yield
    except (HTTPError, HFValidationError, OfflineModeIsEnabled, LocalEntryNotFoundError, XetDownloadError) as error:
        raise _translated(error, place, source) from error


def _bar_that_asks(on_bytes: OnBytes) -> type[Any]:
    """An invisible progress bar: at every chunk it asks `on_bytes` whether to go on, which may raise.

    The library reports the same bytes to several bars, so they are counted once at the end instead.
    """
    asking = threading.Lock()

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            with asking:
                on_bytes(0)
            super().update(n)

    return Bar


def _translated(error: Exception, place: HubPlace, source: Source) -> TrainingError:
    """The hub's errors in our words; its own texts hold URLs and request ids."""
    match error:
        case GatedRepoError():
            return AccessDenied(
                f"{source.field}: {place.repository} is gated, and access was refused", hint=_TOKEN_HINT
            )
        case RevisionNotFoundError():
            return source.unusable(f"{source.field}: {place.repository} has no revision {place.revision}")
        case RepositoryNotFoundError():
            return source.unusable(
                f"{source.field}: there is no public repository {place.repository}, or it is private and the token "
                "may not read it; correct the name or name a token in spec.baseModel.tokenSecretRef"
            )
        case HFValidationError():
            return source.unusable(f"{source.field}: {source.uri} is no repository name; use hf://owner/repo")
        case OfflineModeIsEnabled():
            return source.unusable(f"{source.field}: {source.uri} is not here, and the hub is switched off")
        case HfHubHTTPError() if error.response is not None and error.response.status_code in {401, 403}:
            return AccessDenied(f"{source.field}: not allowed to read {place.repository}", hint=_TOKEN_HINT)
    return StorageUnavailable(
        f"{source.field}: the hub does not answer, so {place.repository} cannot be fetched",
        hint="Check the pod's way to the hub, or put the model into your own store (s3://, pvc://).",
    )
