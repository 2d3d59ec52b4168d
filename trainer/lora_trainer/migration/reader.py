"""A file of settings, whatever it is: adapter, JSON, TOML, script; with the files that it names."""

import json
import struct
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from lora_trainer.migration.command_line import read_command
from lora_trainer.migration.gui_settings import read_gui_settings
from lora_trainer.migration.locations import existing, last_part
from lora_trainer.migration.metadata import read_metadata
from lora_trainer.migration.prompts import read_prompts
from lora_trainer.migration.source import Source
from lora_trainer.migration.toml_files import is_dataset_definition, read_config, read_dataset_definition
from lora_trainer.migration.unusable import UnusableSettings

_LONGEST_HEADER = 100_000_000
_NO_PARTS: Mapping[str, Any] = {"network.unet": False, "network.textEncoder": False}


def read_adapter(stream: BinaryIO, *, name: str) -> Source:
    """Settings from the header of a `.safetensors` file; its tensors are not read.

    Raises:
        UnusableSettings: the file is none, or holds no training metadata.
    """
    try:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: Any = json.loads(stream.read(length)) if length <= _LONGEST_HEADER else None
        metadata = dict(header.pop("__metadata__", {}))
        tensors = {key: str(value["dtype"]) for key, value in header.items()}
    except (struct.error, ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise UnusableSettings(f"{name} is no .safetensors file, or cut off; copy it again") from error
    source = read_metadata(metadata, tensors=tensors, name=name)
    known = {field: value for field, value in source.fields.items() if field not in _NO_PARTS}
    # Neither part found: names of another kind, which say nothing.
    return replace(source, fields=known) if _NO_PARTS.items() <= source.fields.items() else source


def read_text_settings(text: str, *, folder: Path, name: str) -> Source:
    """Settings from the text of a file that lies in `folder`, whose neighbours may be named in it.

    Raises:
        UnusableSettings: it is no form that is known here, or names a file that is not here.
    """
    if text.lstrip().startswith("{"):
        source = _read_json(text, name)
    elif _is_command(text):
        source = read_command(text)
    else:
        source = _read_toml(text)
    source = _with_named_files(source, folder)
    return replace(source, name=source.name or name)


def _is_command(text: str) -> bool:
    """Whether it is a command line and not TOML that mentions one."""
    if "train_network.py" not in text and not text.lstrip().startswith("--"):
        return False
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError):
        return True
    return False


def _read_json(text: str, name: str) -> Source:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableSettings(f"the file is no valid JSON: {error}; mend it") from error
    if any(key.startswith("ss_") for key in document):
        return read_metadata(document, name=name)
    return read_dataset_definition(document) if is_dataset_definition(document) else read_gui_settings(document)


def _read_toml(text: str) -> Source:
    document = _toml(text, "the file")
    if not document:
        raise UnusableSettings("the file is empty; give settings of Kohya_ss, sd-scripts or an adapter")
    return read_dataset_definition(document) if is_dataset_definition(document) else read_config(document)


def _toml(text: str, what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableSettings(
            f"{what} is neither a command line of train_network.py nor JSON nor valid TOML: {error}"
        ) from error


def _with_named_files(source: Source, folder: Path) -> Source:
    """The source with its configuration, dataset definition and prompts read; the command line wins."""
    raw = dict(source.raw)
    named = raw.pop("config_file", None)
    if named:
        path = _find(str(named), folder, "config_file", ".toml")
        raw = {**read_config(_toml(_text(path), str(path))).raw, **raw}
    source = replace(source, raw=raw)
    definition = raw.get("dataset_config")
    if definition:
        path = _find(str(definition), folder, "dataset_config", "")
        source = replace(source, dataset_config=_read_definition(path))
    return _with_prompts(source, folder)


def _read_definition(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        document: dict[str, Any] = json.loads(text) if path.suffix == ".json" else _toml(text, str(path))
    except ValueError as error:
        raise UnusableSettings(f"{path} is no valid JSON: {error}; mend it") from error
    return document


def _with_prompts(source: Source, folder: Path) -> Source:
    named = source.raw.get("sample_prompts")
    path = _look(str(named), folder) if named else None
    if path is None:
        return source
    sampler = str(source.raw.get("sample_sampler") or "ddim")
    prompts, left = read_prompts(_text(path), suffix=path.suffix, sampler=sampler)
    return replace(source, prompts=prompts, leftovers=(*source.leftovers, *left))


def _find(place: str, folder: Path, argument: str, suffix: str) -> Path:
    path = _look(place, folder) or (_look(place + suffix, folder) if suffix else None)
    if path is None:
        raise UnusableSettings(f"{argument} names {place}, which is not here; copy it beside the settings")
    return path


def _look(place: str, folder: Path) -> Path | None:
    """The file at that path, or one of its name beside the settings."""
    candidates = map(existing, (Path(place), folder / place, folder / last_part(place)))
    return next((path for path in candidates if path is not None and path.is_file()), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableSettings(f"{path} cannot be read as UTF-8 text: {error}") from error
