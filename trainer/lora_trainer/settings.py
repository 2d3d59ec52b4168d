"""What the surroundings tell the trainer: places of mounted files, address to listen on, number of the attempt.

The only module beside `__main__` that reads the environment. In a pod the operator sets every variable; on
a laptop none is set, and the defaults are those of a local run.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lora_api import names
from lora_trainer.errors import InvalidConfiguration

_SECRET_NAME = re.compile(r"(SECRET|TOKEN|PASSWORD|ACCESS_KEY)(_|$)(?!.*(FILE|DIR|PATH)$)")


@dataclass(frozen=True)
class Address:
    """Where the progress server listens."""

    host: str
    port: int


@dataclass(frozen=True)
class Settings:
    """Places and numbers given by the surroundings; `None` means: not there."""

    work_dir: Path
    """Scratch space: files on their way to the store, and fetched ones unless there is a cache."""
    cache_dir: Path | None = None
    """Fetched files and latents that outlive this run; None: they lie in `work_dir`."""
    claims_dir: Path = Path(names.CLAIMS_DIR)
    """`pvc://claim/path` lies at `claims_dir/claim/path`."""
    credentials_dir: Path | None = None
    """Files named like the AWS variables. None: what boto3 finds by itself."""
    hub_token_file: Path | None = None
    """Access token for gated hf:// models."""
    ca_bundle: Path | None = None
    """Certificates (PEM) that the store's certificate is checked against."""
    termination_log: Path | None = None
    """Where the last word is written for the kubelet."""
    listen: Address | None = None
    """None: no progress server."""
    attempt: int = 1
    """Number of the Job, from 1."""
    pod: str = ""
    """Name and uid of the pod, `name/uid`; empty: not in a pod."""
    grace_seconds: float | None = None
    """How long the process lives after it was told to stop; None: as long as it wants."""
    cpu_threads: int = 1
    """Threads of an operation on the CPU; sums, and so the last bits of the adapter, depend on it."""

    def secrets(self, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
        """Every value that must not be written down: of variables that are called so, and of mounted files."""
        named = tuple(value.strip() for name, value in environment.items() if _SECRET_NAME.search(name))
        return named + tuple(_read_secrets(self))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """The settings in `environment`. Raises InvalidConfiguration that names the variable."""
        listen = environment.get(names.ENV_LISTEN_ADDRESS)
        return cls(
            work_dir=_path(environment, names.ENV_WORK_DIR) or Path.home() / ".cache" / "lora-operator",
            claims_dir=_path(environment, names.ENV_CLAIMS_DIR) or Path(names.CLAIMS_DIR),
            credentials_dir=_path(environment, names.ENV_CREDENTIALS_DIR),
            hub_token_file=_path(environment, names.ENV_HUB_TOKEN_FILE),
            ca_bundle=_path(environment, names.ENV_CA_BUNDLE),
            termination_log=_path(environment, names.ENV_TERMINATION_LOG),
            listen=_address(listen) if listen else None,
            attempt=_counting_number(environment, names.ENV_ATTEMPT),
            cache_dir=_path(environment, names.ENV_CACHE_DIR),
            pod=_pod(environment),
            grace_seconds=_grace(environment),
            cpu_threads=_counting_number(environment, "OMP_NUM_THREADS"),
        )


def _read_secrets(settings: Settings) -> Iterator[str]:
    """Contents of the credentials' files, those of single sections among them, and of the hub's token."""
    folder = settings.credentials_dir
    files = list(folder.parent.glob(f"{folder.name}*/AWS_*")) if folder else []
    for file in (*files, settings.hub_token_file):
        # Who needs the file says that it cannot be read; here it only means that there is nothing to hide.
        with suppress(OSError, UnicodeDecodeError):
            if file is not None:
                yield file.read_text().strip()


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    value = environment.get(name)
    return Path(value) if value else None


def _pod(environment: Mapping[str, str]) -> str:
    name, uid = environment.get(names.ENV_POD_NAME, ""), environment.get(names.ENV_POD_UID, "")
    return f"{name}/{uid}" if name or uid else ""


def _grace(environment: Mapping[str, str]) -> float | None:
    return (
        float(_counting_number(environment, names.ENV_GRACE_SECONDS))
        if names.ENV_GRACE_SECONDS in environment
        else None
    )


def _address(value: str) -> Address:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidConfiguration(f"{names.ENV_LISTEN_ADDRESS} is {value!r}, but must be host:port; correct it")
    return Address(host.strip("[]"), int(port))


def _counting_number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "1")
    if not value.isdecimal() or int(value) < 1:
        raise InvalidConfiguration(f"{name} is {value!r}, but must be a number from 1; correct it")
    return int(value)
