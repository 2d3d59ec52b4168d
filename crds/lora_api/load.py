"""A LoraTraining from YAML text, read as kubectl reads it, with every error at once and its line.

Used by the `lora` command, the trainer (its mounted file) and the tests of the examples.
"""

import difflib
import json
import re
from dataclasses import dataclass
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lora_api.spec import LoraTraining

Location = tuple[str | int, ...]
_MOST_VALUES = 100_000
"""Far more than a LoraTraining that Kubernetes takes can hold."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file."""

    path: str
    """Where, as a YAML path such as `spec.network.rank`."""
    line: int | None
    """1-based line of the file."""
    message: str
    """What is wrong and what to do, as the rest of a sentence that starts with the path."""

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.path} {self.message}" if self.path else f"{place}{self.message}"


class InvalidTraining(ValueError):
    """The file is no valid LoraTraining; `problems` holds everything that is wrong."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class _Loader(yaml.SafeLoader):
    """YAML as kubectl reads it: `1e-4` is a number, dates and `1:30` are text, a key may stand only once."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of `node`. Raises ConstructorError also where PyYAML lets Python's own errors out."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError) as error:
            problem = f"{str(node.value)[:40]!r} is no value of its kind ({node.tag.rpartition(':')[2]})"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":float", ":timestamp", ":int"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0o?[0-7]+|0x[0-9a-fA-F]+|0|[1-9][0-9_]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return loader.construct_yaml_int(yaml.ScalarNode(node.tag, node.value.replace("0o", "0")))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def parse_yaml(text: str) -> tuple[dict[str, Any], dict[Location, int]]:
    """The single document in `text` and the line of every path in it.

    Raises:
        InvalidTraining: the text is no YAML, holds no or several documents, or a key twice.
    """
    try:
        return _parse(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise InvalidTraining([Problem("", line, f"the file is no valid YAML: {error.problem}")]) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"the file is no valid YAML: it holds the character {hex(error.character)}; remove it"
        raise InvalidTraining([Problem("", line, message)]) from error
    except RecursionError as error:
        raise InvalidTraining([Problem("", None, "the file is nested too deeply; it is no LoraTraining")]) from error


def _parse(text: str) -> tuple[dict[str, Any], dict[Location, int]]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise InvalidTraining([Problem("", 1, "the file must hold one LoraTraining (apiVersion, kind, …)")])
        lines: dict[Location, int] = {}
        _note_lines(node, (), lines)
        return loader.construct_document(node), lines
    finally:
        loader.dispose()


def _note_lines(node: yaml.Node, path: Location, lines: dict[Location, int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if len(lines) > _MOST_VALUES:
        many = f"the file holds more than {_MOST_VALUES:,} values, aliases counted as what they stand for"
        raise InvalidTraining([Problem("", None, f"{many}; it is no LoraTraining")])
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise InvalidTraining([Problem(dotted(path), line, "has a list or a map as a key; write a name")])
            here = (*path, key.value)
            if here in lines:
                problem = Problem(dotted(here), key.start_mark.line + 1, "is set twice; remove one")
                raise InvalidTraining([problem])
            lines[here] = key.start_mark.line + 1
            _note_lines(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*path, index), lines)


def load_training(text: str) -> LoraTraining:
    """The LoraTraining in YAML `text`. Raises InvalidTraining with everything that is wrong."""
    document, lines = parse_yaml(text)
    return parse_training(document, lines)


def parse_training(document: dict[str, Any], lines: dict[Location, int] | None = None) -> LoraTraining:
    """The LoraTraining in a JSON-like document; raises InvalidTraining.

    Goes through JSON so that types are judged as strictly as the API server judges them.
    """
    try:
        text = json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidTraining([Problem("", None, f"the file holds a value that JSON cannot: {error}")]) from error
    try:
        return LoraTraining.model_validate_json(text)
    except ValidationError as error:
        problems = [_problem(details, lines or {}) for details in error.errors(include_url=False)]
        raise InvalidTraining(_one_per_place(problems)) from error


def _one_per_place(problems: list[Problem]) -> list[Problem]:
    """A value that fits none of a field's types is one problem, not one a type."""
    merged: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        fault, _, wanted = problem.message.partition(", but ")
        first = merged.get((problem.path, fault))
        if first and wanted:
            problem = Problem(first.path, first.line, f"{first.message} or {wanted}")
        merged[problem.path, fault] = problem
    return list(merged.values())


def dotted(location: Location) -> str:
    """`("spec", "tolerations", 0)` as `spec.tolerations[0]`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


def _problem(details: ErrorDetails, lines: dict[Location, int]) -> Problem:
    location = _yaml_location(details["loc"])
    line = next((lines[location[:end]] for end in range(len(location), -1, -1) if location[:end] in lines), None)
    return Problem(dotted(location), line, _message(details, location))


def _yaml_location(location: tuple[int | str, ...]) -> Location:
    """Pydantic adds the tried types of a union (`int`, `constrained-str`) to a location; a file has none."""
    return tuple(part for part in location if isinstance(part, int) or part not in {"int", "str", "constrained-str"})


def _message(details: ErrorDetails, location: Location) -> str:
    kind, value, context = details["type"], details.get("input"), details.get("ctx", {})
    seen = _shorten(value)
    match kind:
        case "missing":
            return "is missing; add it"
        case "extra_forbidden":
            return _unknown_field(location)
        case "not_supported_yet" | "uri" | "resolution" | "name" | "argument" | "key":
            return details["msg"]
        case "rule":
            return f"is inconsistent: {details['msg']}"
        case "literal_error":
            return f"is {seen}, but must be {context.get('expected')}"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than" | "multiple_of":
            return f"is {seen}, but {_bound(kind, context)}"
        case "string_pattern_mismatch":
            return f"is {seen}, but must match {context.get('pattern')}"
        case "string_too_long" | "string_too_short" | "too_long" | "too_short":
            return f"has a length of {_length(value)}, but {_bound(kind, context)}"
        case _:
            wanted = details["msg"].removeprefix("Input should be ").replace("a valid ", "a ")
            wanted = (
                wanted.replace("a integer", "an integer").replace("an array", "a list").replace("a array", "a list")
            )
            return f"is {seen}, but must be {wanted}"


def _bound(kind: str, context: dict[str, Any]) -> str:
    words = {
        "greater_than_equal": "must be at least {ge}",
        "greater_than": "must be more than {gt}",
        "less_than_equal": "must be at most {le}",
        "less_than": "must be less than {lt}",
        "multiple_of": "must be a multiple of {multiple_of}",
        "string_too_long": "must have at most {max_length} characters",
        "string_too_short": "must have at least {min_length} characters",
        "too_long": "must have at most {max_length} entries",
        "too_short": "must have at least {min_length} entries",
    }
    return words[kind].format(**context)


def _length(value: object) -> int:
    return len(value) if isinstance(value, (str, list, dict, tuple)) else 0


def _shorten(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else f"'{value}'"
    return text if len(text) <= 80 else text[:77] + "…"


def _unknown_field(location: Location) -> str:
    model = _model_at(location[:-1])
    known = [] if model is None else [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"is no known field; did you mean {close[0]}?"
    return f"is no known field; known are {', '.join(sorted(known))}" if known else "is no known field; remove it"


def _model_at(location: Location) -> type[BaseModel] | None:
    """The model that describes a path of the document, if one does."""
    model: type[BaseModel] | None = LoraTraining
    for part in location:
        if isinstance(part, int):
            continue
        if model is None:
            return None
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        model = _model_in(fields[part].annotation) if part in fields else None
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
