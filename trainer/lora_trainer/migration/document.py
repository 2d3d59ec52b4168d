"""The LoraTraining file: the fields that are valid and differ from our defaults, in the order of the reference.

What the spec refuses is taken out and told, so that the file can be used.
"""

import copy
import json
import re
from typing import Any

from lora_api import names
from lora_api.load import InvalidTraining, Problem, parse_training
from lora_api.spec import LoraTraining
from lora_trainer.migration.draft import Draft
from lora_trainer.migration.unusable import UnusableSettings

_REQUIRED = re.compile(r"spec\.(baseModel\.uri|dataset\.uri|dataset\.subsets(\[[0-9]+\](\.uri)?)?|output\.uri)")
_PLAIN = re.compile(r"[A-Za-z/.][A-Za-z0-9 _./@:+-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "none"}
_Document = dict[str, Any]


def settle(name: str, draft: Draft) -> LoraTraining:
    """The training of these fields; each that the spec refuses is taken out and noted in `draft`.

    Raises:
        UnusableSettings: a field that cannot be left out is wrong.
    """
    document = _nested(name, draft)
    while problems := _problems(document):
        document = _without_cause(document, problems, draft)
    return parse_training(document)


def _nested(name: str, draft: Draft) -> _Document:
    spec: _Document = {}
    for path, value in draft.fields.items():
        *parents, last = path.split(".")
        here = spec
        for parent in parents:
            here = here.setdefault(parent, {})
        here[last] = value
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": name}, "spec": spec}


def _problems(document: _Document) -> list[Problem]:
    try:
        parse_training(document)
    except InvalidTraining as error:
        return error.problems
    return []


def _without_cause(document: _Document, problems: list[Problem], draft: Draft) -> _Document:
    """The document without the field, or the fields of one name, that cause one of the problems."""
    for problem in problems:
        for paths in _suspects(document, problem):
            if any(_REQUIRED.fullmatch(path) for path in paths):
                continue
            changed = copy.deepcopy(document)
            values = {path: _remove(changed, _steps(path)) for path in paths}
            if problem not in _problems(changed):
                for path, value in values.items():
                    reason = problem.message.removeprefix("is inconsistent: ")
                    draft.leave(path.removeprefix("spec."), value, reason)
                return changed
    told = "\n".join(f"- {problem}" for problem in problems)
    raise UnusableSettings(f"the settings make no valid LoraTraining:\n{told}")


def _suspects(document: _Document, problem: Problem) -> list[list[str]]:
    """The field that the problem lies in; for a rule over a section, the fields that it names, in its order."""
    section = _at(document, _steps(problem.path))
    if not isinstance(section, dict):
        return [] if section is None else [[problem.path]]
    words = re.findall(r"[A-Za-z0-9]+(?:\[\])?(?:\.[A-Za-z0-9]+(?:\[\])?)*", problem.message)
    leaves = _leaves(section, problem.path)
    named = [[path for path in leaves if _means(word, path.removeprefix(f"{problem.path}."))] for word in words]
    return [paths for paths in named if paths]


def _means(word: str, path: str) -> bool:
    """Whether a rule's word, such as `blocks[].rank`, names a path, such as `network.blocks[3].rank`."""
    general = re.sub(r"\[[0-9]+\]", "[]", path)
    return general == word or general.endswith(f".{word}")


def _leaves(value: Any, path: str) -> list[str]:
    """The paths of everything inside."""
    if isinstance(value, dict):
        inner = [(f"{path}.{name}", child) for name, child in value.items()]
    elif isinstance(value, list):
        inner = [(f"{path}[{index}]", child) for index, child in enumerate(value)]
    else:
        return []
    return [leaf for here, child in inner for leaf in (here, *_leaves(child, here))]


def _steps(path: str) -> list[str | int]:
    return [int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", path)]


def _at(document: Any, steps: list[str | int]) -> Any:
    for step in steps:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return None
    return document


def _remove(document: _Document, steps: list[str | int]) -> Any:
    return _at(document, steps[:-1]).pop(steps[-1])


def render(training: LoraTraining, draft: Draft, *, origin: str) -> str:
    """YAML with remarks beside the fields and, at the end, what was not carried over."""
    document = {
        "apiVersion": training.api_version,
        "kind": training.kind,
        "metadata": {"name": training.name},
        "spec": training.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True),
    }
    remarks = {f"spec.{path}": remark for path, remark in draft.remarks.items()}
    lines = [_remark(origin), *_lines(document, "", 0, remarks)]
    if draft.leftovers:
        lines.append("# Not carried over:")
        lines += [_remark(f"  {leftover}") for leftover in draft.leftovers]
    return "\n".join(lines) + "\n"


def _remark(text: str) -> str:
    """A comment of one line, without letters that YAML forbids."""
    return "# " + "".join(letter if letter.isprintable() else "?" for letter in text)


def _lines(fields: dict[str, Any], path: str, depth: int, remarks: dict[str, str]) -> list[str]:
    lines = []
    for name, value in fields.items():
        here = f"{path}.{name}".strip(".")
        remark = f"  # {remarks[here]}" if here in remarks else ""
        key = "  " * depth + _scalar(name) + ":"
        if isinstance(value, dict) and value:
            lines += [f"{key}{remark}", *_lines(value, here, depth + 1, remarks)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{key}{remark}")
            for item in value:
                lines += _item(item, here, depth + 1, remarks)
        else:
            lines.append(f"{key} {_scalar(value)}{remark}")
    return lines


def _item(item: dict[str, Any], path: str, depth: int, remarks: dict[str, str]) -> list[str]:
    first, *others = _lines(item, path, depth + 1, remarks)
    return ["  " * depth + "- " + first.lstrip(), *others]


def _scalar(value: Any) -> str:
    """A value as YAML 1.2 and kubectl read it: numbers short, text plain where it can only be text."""
    if isinstance(value, float) and not isinstance(value, bool):
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
    if isinstance(value, str) and _is_plain(value):
        return value
    return "".join(map(_escaped, json.dumps(value, ensure_ascii=False)))


def _escaped(letter: str) -> str:
    """A letter of a text in quotes: what YAML forbids or takes for the end of a line becomes its number."""
    number = ord(letter)
    return letter if letter.isprintable() else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _is_plain(text: str) -> bool:
    return (
        _PLAIN.fullmatch(text) is not None
        and text.lower() not in _WORDS
        and not re.match(r"\.?[0-9]|\.(inf|nan)", text.lower())
        and ": " not in text
        and not text.endswith((" ", ":"))
    )


def summary(draft: Draft) -> list[str]:
    """What to tell the user beside the file."""
    count = len(draft.leftovers)
    if not count:
        return ["every setting was carried over"]
    head = f"{count} setting{'s were' if count > 1 else ' was'} not carried over:"
    return [head, *(f"  {leftover}" for leftover in draft.leftovers)]
