"""How stores are reached: the spec's storage section together with what is mounted."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lora_api.cluster_spec import Storage
from lora_trainer.settings import Settings


@dataclass(frozen=True)
class Connection:
    """Endpoint and options from the spec, places of credentials from the settings."""

    storage: Storage
    settings: Settings
    attempts: int = 5
    """How often a request is made before the store counts as unavailable."""
    pause: Callable[[float], None] = time.sleep
    """How it waits before it tries a broken download again."""

    def folder_for(self, uri: str) -> Path:
        """Where a copy of what `uri` names is kept: the same folder at every start with these settings."""
        content = json.dumps([self.storage.endpoint, uri]).encode()
        return self.settings.work_dir / "fetched" / hashlib.sha256(content).hexdigest()[:16]
