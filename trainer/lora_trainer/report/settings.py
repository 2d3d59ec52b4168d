"""The settings of runs as tables: what differs from the defaults, and between runs. Pure; used by `writing`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from lora_api.spec import LoraTrainingSpec

_LONGEST = 400
_REQUIRED = {
    "baseModel": {"uri": "s3://bucket/model"},
    "dataset": {"uri": "s3://bucket/data"},
    "output": {"uri": "s3://bucket/run"},
    # Without it nothing is evaluated; with it, these are the defaults of what is.
    "evaluation": {},
}
_MISSING = object()


@dataclass(frozen=True)
class Setting:
    """One field of the spec."""

    path: str
    value: str | None
    """As in YAML; None: not set."""
    default: str | None
    is_changed: bool


@dataclass(frozen=True)
class ComparedSetting:
    """One field in which runs differ."""

    path: str
    values: tuple[str | None, ...]
    """Of each run."""


def settings_of(spec: Mapping[str, Any]) -> tuple[Setting, ...]:
    """Every field of `spec` (names as in YAML) with its default, in the order of the reference."""
    defaults = flattened(_defaults())
    found = []
    for path, value in flattened(spec).items():
        default = defaults.get(path, _MISSING)
        has_default = default is not _MISSING and path not in ("baseModel.uri", "dataset.uri", "output.uri")
        expected = _text(default) if has_default else None
        found.append(Setting(path, _text(value), expected, _text(value) != expected))
    return tuple(found)


def compared(specs: Sequence[Mapping[str, Any]]) -> tuple[ComparedSetting, ...]:
    """The fields in which `specs` differ; where results lie and are called is no setting."""
    tables = [{path: _text(value) for path, value in flattened(spec).items()} for spec in specs]
    paths = dict.fromkeys(path for table in tables for path in table)
    rows = (ComparedSetting(path, tuple(table.get(path) for table in tables)) for path in paths)
    return tuple(row for row in rows if len(set(row.values)) > 1 and not row.path.startswith("output."))


def flattened(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value; lists are values."""
    flat: dict[str, Any] = {}
    for name, value in spec.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


@cache
def _defaults() -> Mapping[str, Any]:
    return LoraTrainingSpec.model_validate_json(json.dumps(_REQUIRED)).model_dump(mode="json", by_alias=True)


def _text(value: Any) -> str | None:
    if value is None or value == [] or value == {}:
        return None
    text = value if isinstance(value, str) else json.dumps(_set_only(value), ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _set_only(value: Any) -> Any:
    """Without the fields of a list's entries that were not set."""
    if isinstance(value, list):
        return [_set_only(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _set_only(one) for name, one in value.items() if one not in (None, "", [], {})}
    return value
