"""Prompt files of sd-scripts (text, TOML, JSON) as fields of `samples.prompts[]`."""

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from lora_trainer.migration.draft import Leftover
from lora_trainer.migration.unusable import UnusableSettings
from lora_trainer.migration.values import Kind, read_value

_OPTION = re.compile(r"(?:^|\s)--(?P<name>[a-z]+)\s+(?P<value>(?:(?!\s--[a-z]+\s).)*)", re.DOTALL)
_LONGEST, _MOST = 1024, 32
_SAMPLERS = {"euler_a": "euler_a", "k_euler_a": "euler_a", "euler": "euler", "k_euler": "euler", "ddim": "ddim",
             "dpmsolver++": "dpmpp_2m", "dpm++_2m_karras": "dpmpp_2m_karras"}  # fmt: skip
_FIELDS = {
    "negativePrompt": (("n", "negative_prompt"), Kind.TEXT),
    "widthPx": (("w", "width"), Kind.INTEGER),
    "heightPx": (("h", "height"), Kind.INTEGER),
    "steps": (("s", "sample_steps"), Kind.INTEGER),
    "guidance": (("l", "scale"), Kind.NUMBER),
    "seed": (("d", "seed"), Kind.INTEGER),
    "sampler": (("ss", "sample_sampler"), Kind.TEXT),
}
_DEFAULTS = {"widthPx": 512, "heightPx": 512, "steps": 30, "guidance": 7.5}
_READ = {key for keys, _ in _FIELDS.values() for key in keys} | {"prompt", "enum", "subset"}


def read_prompts(
    text: str, *, suffix: str = ".txt", sampler: str | None = None
) -> tuple[tuple[dict[str, Any], ...], tuple[Leftover, ...]]:
    """The pictures to draw, with sd-scripts' defaults written out, and what of them could not be carried over.

    Raises:
        UnusableSettings: the text is no TOML or JSON, or a value is no number.
    """
    drawn: list[dict[str, Any]] = []
    left: list[Leftover] = []
    for options in _read(text, suffix):
        prompt = str(options.get("prompt", "")).strip()
        if not 0 < len(prompt) <= _LONGEST or len(drawn) == _MOST:
            reason = f"a prompt has 1 to {_LONGEST} characters, and there are at most {_MOST}"
            left.append(Leftover("sample_prompts", prompt[:60] + "…", reason))
            continue
        drawn.append({"prompt": prompt, **_fields({"sample_sampler": sampler, **options}, left)})
    return tuple(drawn), tuple(dict.fromkeys(left))


def _read(text: str, suffix: str) -> list[dict[str, Any]]:
    try:
        if suffix == ".toml":
            document = tomllib.loads(text).get("prompt", {})
            return [{**document, **one} for one in document.get("subset", [])]
        if suffix == ".json":
            return [{"prompt": one} if isinstance(one, str) else dict(one) for one in json.loads(text)]
    except (ValueError, TypeError, AttributeError) as error:
        raise UnusableSettings(f"the prompt file is no valid {suffix[1:].upper()}: {error}; mend it") from error
    lines = [line.strip() for line in text.splitlines()]
    return [_read_line(line) for line in lines if line and not line.startswith("#")]


def _read_line(line: str) -> dict[str, Any]:
    options = {match["name"]: match["value"].strip() for match in _OPTION.finditer(line)}
    return {"prompt": _OPTION.sub("", line).strip(), **options}


def _fields(options: Mapping[str, Any], left: list[Leftover]) -> dict[str, Any]:
    fields: dict[str, Any] = dict(_DEFAULTS)
    for field, (keys, kind) in _FIELDS.items():
        raw = next((options[key] for key in keys if options.get(key) is not None), None)
        try:
            value = read_value(kind, raw)
        except ValueError as error:
            raise UnusableSettings(f"sample_prompts: {field} is '{raw}', but must be {kind.value}") from error
        if value is not None:
            fields[field] = value
    unknown = {key: value for key, value in options.items() if key not in _READ}
    left.extend(Leftover("sample_prompts", f"--{key} {value}", "not known here") for key, value in unknown.items())
    return _fit(fields, left)


def _fit(fields: dict[str, Any], left: list[Leftover]) -> dict[str, Any]:
    """Sizes go down to multiples of 8 of at least 64 px, as in sd-scripts; samplers get their names in the WebUI."""
    for side in ("widthPx", "heightPx"):
        fields[side] = max(64, fields[side] // 8 * 8)
    sampler = fields.pop("sampler", None)
    if sampler in _SAMPLERS:
        fields["sampler"] = _SAMPLERS[sampler]
    elif sampler:
        left.append(Leftover("sample_sampler", sampler, f"known are {', '.join(_SAMPLERS)}; euler_a draws instead"))
    return fields
