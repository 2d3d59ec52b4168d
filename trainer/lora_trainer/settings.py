"""What the surroundings tell the trainer: places of mounted files, address to listen on, number of the attempt.

The only module beside `__main__` that reads the environment. In a pod the operator sets every variable; on
a laptop none is set, and the defaults are those of a local run.
"""

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lora_api import names
from lora_trainer.errors import InvalidConfiguration

_ENV_LAUNCHER = "LORA_LAUNCHER_PID"
_MASTER = ("MASTER_ADDR", "MASTER_PORT")
_LOOPBACK = "lo"
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_SECRET_NAME = re.compile(r"(SECRET|TOKEN|PASSWORD|ACCESS_KEY)(_|$)(?!.*(FILE|DIR|PATH)$)")


@dataclass(frozen=True)
class Address:
    """Where something listens."""

    host: str
    port: int


@dataclass(frozen=True)
class Ranks:
    """Which process of a run this one is, and where all meet; as torchrun and the launcher of `lora run` say."""

    rank: int
    """Among all processes; 0 leads."""
    size: int
    """Processes of the run."""
    local_rank: int
    """Among those on this machine: the number of the GPU."""
    local_size: int
    meeting: Address
    """Where rank 0, or what started it, keeps the store by which they find each other."""
    store_is_there: bool = False
    """Whoever started the processes keeps that store itself, as torchrun does."""
    restart: str = "0"
    """How often torchrun has started them anew in the same store."""
    launcher: int | None = None
    """Process id of the launcher: without it, nobody would stop this process."""


@dataclass(frozen=True)
class Node:
    """Which of several nodes this is, and where the processes of all of them meet; as the operator says."""

    rank: int
    meeting: Address


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
    """Where the progress server listens; None: there is none."""
    attempt: int = 1
    """Number of the Job, from 1."""
    pod: str = ""
    """Name and uid of the pod, `name/uid`; empty: not in a pod."""
    grace_seconds: float | None = None
    """How long the process lives after it was told to stop; None: as long as it wants."""
    cpu_threads: int = 1
    """Threads of an operation on the CPU; sums, and so the last bits of the adapter, depend on it."""
    ranks: Ranks | None = None
    """None: this process was started alone."""
    node: Node | None = None
    """None: all processes of a run are on this machine."""

    @property
    def leads(self) -> bool:
        """Whether this process is the one that reports, draws, publishes and saves."""
        return self.ranks is None or self.ranks.rank == 0

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
            listen=_address(names.ENV_LISTEN_ADDRESS, listen) if listen else None,
            attempt=_counting_number(environment, names.ENV_ATTEMPT),
            cache_dir=_path(environment, names.ENV_CACHE_DIR),
            pod=_pod(environment),
            grace_seconds=_grace(environment),
            cpu_threads=_counting_number(environment, "OMP_NUM_THREADS"),
            ranks=_ranks(environment),
            node=_node(environment),
        )


def environment_of(
    ranks: Ranks, *, termination_log: Path, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment of a process that the launcher starts: `environment`, with what makes it that rank.

    The threads of the machine are divided. Where all processes are on it, they are not to be heard on any network.
    """
    threads = _counting_number(environment, "OMP_NUM_THREADS") // ranks.local_size
    told = {
        "RANK": ranks.rank,
        "LOCAL_RANK": ranks.local_rank,
        "WORLD_SIZE": ranks.size,
        "LOCAL_WORLD_SIZE": ranks.local_size,
        "MASTER_ADDR": ranks.meeting.host,
        "MASTER_PORT": ranks.meeting.port,
        "OMP_NUM_THREADS": max(1, threads),
        _ENV_LAUNCHER: ranks.launcher or "",
        names.ENV_TERMINATION_LOG: termination_log,
    }
    at_home = ranks.size == ranks.local_size and _LOOPBACK in {name for _, name in socket.if_nameindex()}
    interfaces = dict.fromkeys(_INTERFACES, _LOOPBACK) if at_home else {}
    return {**interfaces, **environment, **{name: str(value) for name, value in told.items()}}


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


def _ranks(environment: Mapping[str, str]) -> Ranks | None:
    if "RANK" not in environment:
        return None
    size = _counting_number(environment, "WORLD_SIZE")
    rank, local_rank = _number(environment, "RANK"), _number(environment, "LOCAL_RANK")
    if rank >= size:
        raise InvalidConfiguration(f"RANK is {rank}, but must be below WORLD_SIZE, which is {size}; correct it")
    launcher = environment.get(_ENV_LAUNCHER)
    return Ranks(
        rank=rank,
        size=size,
        local_rank=local_rank,
        local_size=_counting_number(environment, "LOCAL_WORLD_SIZE"),
        meeting=_address("MASTER_ADDR:MASTER_PORT", ":".join(environment.get(name, "") for name in _MASTER)),
        store_is_there=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        restart=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
        launcher=int(launcher) if launcher else None,
    )


def _node(environment: Mapping[str, str]) -> Node | None:
    meeting = environment.get(names.ENV_RENDEZVOUS)
    if not meeting:
        return None
    return Node(_number(environment, names.ENV_NODE_RANK), _address(names.ENV_RENDEZVOUS, meeting))


def _address(name: str, value: str) -> Address:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidConfiguration(f"{name} is {value!r}, but must be host:port; correct it")
    return Address(host.strip("[]"), int(port))


def _counting_number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "1")
    if not value.isdecimal() or int(value) < 1:
        raise InvalidConfiguration(f"{name} is {value!r}, but must be a number from 1; correct it")
    return int(value)


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    if not value.isdecimal():
        raise InvalidConfiguration(f"{name} is {value!r}, but must be a number from 0; correct it")
    return int(value)
