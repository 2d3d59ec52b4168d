"""Which files make up a captioning model, and their digests. Used by `prepare` and by `blip`; knows no torch."""

import json
from collections.abc import Mapping
from pathlib import Path

from lora_trainer.digests import sha256_of
from lora_trainer.errors import BaseModelUnavailable

WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_KIND = "blip"
_TOKENIZERS = ("tokenizer.json", "vocab.txt")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_FURTHER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
FILES = (_CONFIG, WEIGHTS, *_TOKENIZERS, *_PROCESSORS, *_FURTHER)
"""What is worth fetching: everything that is loaded."""
DIGESTS = "captioner/"
"""Begins the names of their digests."""
HINT = "Name a transformers folder of a BLIP captioning model, with safetensors."


def digests_of(folder: Path, *, field: str) -> Mapping[str, str]:
    """SHA-256 of every file that is loaded, as `captioner/<file>`; `field` begins the messages.

    Raises:
        BaseModelUnavailable: a file that is needed is missing.
    """
    check_files(folder, field=field)
    present = (name for name in FILES if (folder / name).is_file())
    return {f"{DIGESTS}{name}": sha256_of(folder / name) for name in present}


def check_files(folder: Path, *, field: str) -> None:
    """Raises BaseModelUnavailable that names the first file that is missing, or the kind of model if it is no BLIP."""
    if not folder.is_dir():
        raise BaseModelUnavailable(f"{field}: {folder.name} is a file; give the folder of the model", hint=HINT)
    for names in ((_CONFIG,), (WEIGHTS,), _TOKENIZERS, _PROCESSORS):
        if not any((folder / name).is_file() for name in names):
            pickled = "; pickled weights (.bin) are refused because they can run code, convert them to safetensors"
            why = pickled if names == (WEIGHTS,) else ""
            raise BaseModelUnavailable(f"{field} holds no {' or '.join(names)}{why}", hint=HINT)
    try:
        kind = json.loads((folder / _CONFIG).read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise BaseModelUnavailable(f"{field}: {_CONFIG} cannot be read: {error}", hint=HINT) from error
    if kind != _KIND:
        raise BaseModelUnavailable(f"{field} holds a model of the kind {kind}, but only {_KIND} is known", hint=HINT)
