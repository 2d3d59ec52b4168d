"""How stores are reached: a storage section of the spec together with what is mounted for it."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lora_api import names
from lora_api.cluster_spec import Storage
from lora_api.spec import SECTIONS, LoraTrainingSpec, Section
from lora_trainer.settings import Settings


def _untold() -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Connection:
    """Endpoint and options from the spec, places of credentials from the settings."""

    storage: Storage
    settings: Settings
    section: Section | None = None
    """The part of the spec that has a storage section of its own; None: `spec.storage`."""
    attempts: int = 6
    """How often a request is made before the store counts as unavailable: half a minute of pauses."""
    pause: Callable[[float], None] = time.sleep
    """How it waits between two tries."""
    read_timeout_seconds: float = 60.0
    """How long the store may say nothing."""
    on_retry: Callable[[], None] = _untold
    """Told of every request that failed and is made again; in any thread."""

    @classmethod
    def for_section(cls, spec: LoraTrainingSpec, settings: Settings, section: Section) -> "Connection":
        """How the URIs of `spec.<section>` are reached: by its own storage section, else by `spec.storage`."""
        storage = spec.storage_of(section)
        return cls(storage, settings, section=None if storage is spec.storage else section)

    @classmethod
    def for_field(cls, spec: LoraTrainingSpec, settings: Settings, field: str) -> "Connection":
        """How the URI at the YAML path `field` (`spec.dataset.uri`) is reached."""
        for section in SECTIONS:
            if field.startswith(f"spec.{section}."):
                return cls.for_section(spec, settings, section)
        return cls(spec.storage, settings)

    @property
    def field(self) -> str:
        """YAML path of the storage section, for messages."""
        return "spec.storage" if self.section is None else f"spec.{self.section}.storage"

    @property
    def credentials_dir(self) -> Path | None:
        """Folder with the mounted Secret; None: boto3 looks for itself (the pod's identity, a laptop's profile)."""
        if self.section is None:
            return self.settings.credentials_dir
        folder = self._own(str(self.settings.credentials_dir or names.CREDENTIALS_DIR))
        return folder if self.storage.credentials_secret_ref is not None and folder.is_dir() else None

    @property
    def ca_bundle(self) -> Path | None:
        """Certificates that the store's is checked against; None: those of the system."""
        if self.section is None:
            return self.settings.ca_bundle
        mounted = self.settings.ca_bundle
        bundle = self._own(str(mounted.parent if mounted else names.CA_BUNDLE_DIR)) / names.CA_BUNDLE_FILE
        return bundle if self.storage.ca_bundle_ref is not None and bundle.is_file() else None

    def folder_for(self, uri: str) -> Path:
        """Where copies of what `uri` names are kept: the same folder at every start, shared by all that see it."""
        content = json.dumps([self.storage.endpoint, uri]).encode()
        root = self.settings.cache_dir or self.settings.work_dir
        return root / "fetched" / hashlib.sha256(content).hexdigest()[:16]

    def _own(self, folder: str) -> Path:
        assert self.section is not None
        return Path(names.section_dir(folder, self.section))
