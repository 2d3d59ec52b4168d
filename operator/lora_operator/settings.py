"""What the environment tells the operator, read once by `__main__`; nothing else reads the environment."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_operator.errors import SettingsError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True)
class Election:
    """The Lease by which one of several operators is chosen."""

    namespace: str
    name: str = "lora-operator"
    seconds: int = 15
    """How long others wait for a leader that no longer renews; it renews three times as often."""


@dataclass(frozen=True)
class Settings:
    """Settings of one operator process."""

    profiles_file: Path
    """YAML file that maps names to profiles."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; none: all of the cluster."""
    http_address: str = "0.0.0.0"
    """Address of /metrics, /healthz and /readyz."""
    http_port: int = 8080
    """Their port; 0: any free one."""
    identity: str = "lora-operator"
    """Who reports events: the name of the pod."""
    progress_interval_seconds: float = 5.0
    """How often each running pod is asked for its progress."""
    status_interval_seconds: float = 30.0
    """How long after a write of a status the next one waits, if all it tells is progress."""
    resync_seconds: float = 300.0
    """How often everything is listed and looked at again."""
    workers: int = 8
    """Trainings that are looked at side by side."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    kubeconfig: str | None = None
    """Path of a kubeconfig; none: the pod's own ServiceAccount."""
    election: Election | None = None
    """None: this operator acts at once, whoever else does."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """The settings in `environment`. Raises SettingsError that names the variable."""
        profiles_file = environment.get("LORA_PROFILES_FILE")
        if not profiles_file:
            raise SettingsError("LORA_PROFILES_FILE is not set; name the YAML file with the profiles")
        return cls(
            profiles_file=Path(profiles_file),
            namespaces=_names(environment.get("LORA_NAMESPACES", "")),
            http_address=environment.get("LORA_HTTP_ADDRESS") or cls.http_address,
            http_port=int(_number(environment, "LORA_HTTP_PORT", 8080, 0, 65535)),
            identity=environment.get("POD_NAME") or socket.gethostname(),
            progress_interval_seconds=_number(environment, "LORA_PROGRESS_INTERVAL_SECONDS", 5, 0.05, 3600),
            status_interval_seconds=_number(environment, "LORA_STATUS_INTERVAL_SECONDS", 30, 0, 3600),
            resync_seconds=_number(environment, "LORA_RESYNC_SECONDS", 300, 1, 86400),
            workers=int(_number(environment, "LORA_WORKERS", 8, 1, 256)),
            log_level=_level(environment.get("LORA_LOG_LEVEL") or "INFO"),
            kubeconfig=environment.get("KUBECONFIG") or None,
            election=_election(environment),
        )


def _election(environment: Mapping[str, str]) -> Election | None:
    wanted = environment.get("LORA_LEADER_ELECTION") or "false"
    if wanted not in {"true", "false"}:
        raise SettingsError(f"LORA_LEADER_ELECTION is {wanted!r}, but must be true or false")
    if wanted == "false":
        return None
    namespace = environment.get("LORA_LEASE_NAMESPACE")
    if not namespace:
        raise SettingsError("LORA_LEASE_NAMESPACE is not set; name the namespace of the Lease, which is the operator's")
    seconds = int(_number(environment, "LORA_LEASE_SECONDS", Election.seconds, 2, 3600))
    return Election(namespace, environment.get("LORA_LEASE_NAME") or Election.name, seconds)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _number(environment: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    text = environment.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        raise SettingsError(f"{name} is {text!r}, but must be a number") from None
    if not least <= value <= most:
        raise SettingsError(f"{name} is {text}, but must be between {least} and {most}")
    return value


def _level(text: str) -> str:
    if text.upper() not in LEVELS:
        raise SettingsError(f"LORA_LOG_LEVEL is {text!r}, but must be one of {', '.join(LEVELS)}")
    return text.upper()
