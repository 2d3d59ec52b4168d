"""LoraTraining files on disk for tests of the commands."""

from pathlib import Path
from typing import Any

import yaml

from tests.support.documents import make_document


def write_training(folder: Path, *changes: tuple[str, Any]) -> Path:
    """Writes a valid document with `(path, value)` changes to its spec as `lora.yaml`."""
    path = folder / "lora.yaml"
    path.write_text(yaml.safe_dump(make_document(*changes), sort_keys=False), encoding="utf-8")
    return path
