"""A LoraTraining file as the commands read it, with `--set path=value` on top."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_api.load import InvalidTraining, Location, Problem, dotted, parse_training, parse_yaml
from lora_api.spec import LoraTraining
from lora_trainer.errors import InvalidConfiguration

_TOP_LEVEL = {"apiVersion", "kind", "metadata", "spec"}
_CURE = "Correct the file, or what --set says."
_STEP = re.compile(r"(?P<name>[^.\[\]]+)(?P<indices>(\[[0-9]+\])*)")


def load_training_file(path: Path, overrides: Sequence[str] = ()) -> LoraTraining:
    """The LoraTraining in `path` after `overrides` such as `training.epochs=3`.

    Raises:
        InvalidConfiguration: the file cannot be read, or with everything that is wrong and its line.
    """
    text = read_text(path)
    try:
        return parse_with(text, overrides)
    except InvalidTraining as error:
        raise InvalidConfiguration(f"{path} is no valid LoraTraining:\n{error}", hint=_CURE) from error


def parse_with(text: str, overrides: Sequence[str]) -> LoraTraining:
    """The LoraTraining in `text` after `overrides`. Raises InvalidTraining with everything that is wrong."""
    document, lines = parse_yaml(text)
    for override in overrides:
        location, value = parse_override(override)
        _set(document, location, value)
        # Neither the value nor a section made for it stands in the file; 0 shows no line.
        lines[location] = 0
        for depth in range(1, len(location)):
            lines.setdefault(location[:depth], 0)
    return parse_training(document, lines)


def read_text(path: Path) -> str:
    """The text of a file. Raises InvalidConfiguration that names it."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{path} is not UTF-8; save it as UTF-8", hint="") from error
    except OSError as error:
        raise InvalidConfiguration(f"{path} cannot be read: {error.strerror}", hint="Check the path.") from error


def parse_override(text: str) -> tuple[Location, Any]:
    """`training.epochs=3` as (("spec", "training", "epochs"), 3); the value is read as YAML 1.2.

    Paths are those of the file; `spec.` in front may be left out. Raises InvalidTraining.
    """
    path, equals, value = text.partition("=")
    steps = [_STEP.fullmatch(step) for step in path.strip().split(".")]
    if not equals or None in steps:
        raise InvalidTraining([Problem("", None, f"--set {text} is no override; write --set path=value")])
    location: list[str | int] = []
    for step in filter(None, steps):
        location.append(step["name"])
        location += [int(index) for index in re.findall(r"[0-9]+", step["indices"])]
    if location[0] not in _TOP_LEVEL:
        location.insert(0, "spec")
    return tuple(location), _parse_value(text, value)


def _parse_value(text: str, value: str) -> Any:
    try:
        document, _ = parse_yaml(f"value: {value}")
    except InvalidTraining as error:
        problem = error.problems[0].message.removeprefix("the file is no valid YAML: ")
        raise InvalidTraining([Problem("", None, f"--set {text}: the value is no valid YAML: {problem}")]) from error
    if set(document) != {"value"}:
        raise InvalidTraining([Problem("", None, f"--set {text}: the value must be one YAML value")])
    return document["value"]


def _set(document: Any, location: Location, value: Any) -> None:
    """Puts `value` at `location`, making sections on the way; null takes the field away, so its default holds."""
    here = document
    for depth, step in enumerate(location[:-1]):
        _check_step(here, location, depth)
        if isinstance(step, str) and here.get(step) is None:
            here[step] = {}
        here = here[step]
    _check_step(here, location, len(location) - 1)
    last = location[-1]
    if value is None and isinstance(last, str):
        here.pop(last, None)
    else:
        here[last] = value


def _check_step(here: Any, location: Location, depth: int) -> None:
    step, above = location[depth], dotted(location[:depth])
    if isinstance(step, str) and not isinstance(here, dict):
        raise InvalidTraining([Problem(above, None, f"has no fields, so --set cannot set {dotted(location)}")])
    if isinstance(step, int) and not (isinstance(here, list) and step < len(here)):
        count = len(here) if isinstance(here, list) else 0
        raise InvalidTraining([Problem(above, None, f"has {count} entries, so --set cannot set {dotted(location)}")])
