"""CEL rules of custom resources: type-checked when the definition is created, evaluated on every write.

Uses Google's C++ evaluator by way of cel-expr-python. The API server's own functions (`quantity`, `url`, `isIP` …)
are not there: a rule that needs one is refused.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cel_expr_python import cel
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lora_devcluster.cel_types import TypeBook, escaped, is_dynamic
from lora_devcluster.errors import Cause, Json
from lora_devcluster.schema import join

_EXTENSIONS = (
    "extensions: [{name: strings}, {name: lists}, {name: sets}, {name: math}, {name: optional}, {name: bindings}, "
    "{name: encoders}]"
)
_OLD_SELF = re.compile(r"\boldSelf\b")
_STRING_LITERAL = re.compile(r"\"(\\.|[^\"\\])*\"|'(\\.|[^'\\])*'")
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w)")
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
_META: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 253},
        "generateName": {"type": "string", "maxLength": 253},
    },
}
_ROOT_FIELDS: Json = {
    "apiVersion": {"type": "string", "maxLength": 253},
    "kind": {"type": "string", "maxLength": 63},
    "metadata": _META,
}


class RuleError(Exception):
    """A rule that does not compile; the message is the compiler's."""


@dataclass(frozen=True)
class Rule:
    """One compiled rule with what its refusal says."""

    text: str
    program: cel.Expression
    checked: bytes
    message: str
    message_program: cel.Expression | None
    reason: str
    field_path: str

    @property
    def is_transition(self) -> bool:
        return mentions_old_self(self.text)


@dataclass(frozen=True)
class RuleTree:
    """The rules at one place of a schema and below it; places without rules are left out."""

    schema: Json
    rules: tuple[Rule, ...] = ()
    properties: Mapping[str, "RuleTree"] = field(default_factory=dict)
    items: "RuleTree | None" = None
    values: "RuleTree | None" = None

    def __bool__(self) -> bool:
        return bool(self.rules or self.properties or self.items or self.values)


def mentions_old_self(rule: str) -> bool:
    """Whether a rule compares with the value before; words inside string literals do not count."""
    return bool(_OLD_SELF.search(_STRING_LITERAL.sub('""', rule)))


@cache
def _configuration() -> cel.EnvConfig:
    return cel.NewEnvConfigFromYaml(_EXTENSIONS)


@cache
def _evaluation_environment() -> cel.Env:
    variables = {"self": cel.Type.DYN, "oldSelf": cel.Type.DYN}
    return cel.NewEnv(config=_configuration(), variables=variables)


class Compiler:
    """Compiles the rules at one place of a schema."""

    def __init__(self, schema: Json) -> None:
        book = TypeBook()
        self_type = book.type_of(schema)
        variables = {"self": self_type, "oldSelf": self_type}
        self._environment = cel.NewEnv(descriptor_pool=book.pool(), config=_configuration(), variables=variables)

    def compile(self, rule: Json) -> Rule:
        """A rule ready to run.

        Raises:
            RuleError: the rule does not compile, is not a condition, or its message expression is not a string.
        """
        checked = self._check(rule["rule"], cel.Type.BOOL, "cel expression must evaluate to a bool")
        words = rule.get("messageExpression")
        if words:
            self._check(words, cel.Type.STRING, "messageExpression must evaluate to a string")
        return Rule(
            text=rule["rule"],
            program=_evaluation_environment().compile(rule["rule"]),
            checked=checked,
            message=rule.get("message") or f"failed rule: {rule['rule']}",
            message_program=_evaluation_environment().compile(words) if words else None,
            reason=rule.get("reason") or "FieldValueInvalid",
            field_path=rule.get("fieldPath") or "",
        )

    def _check(self, expression: str, wanted: cel.Type, complaint: str) -> bytes:
        try:
            compiled = self._environment.compile(expression)
        except RuntimeError as error:
            raise RuleError(f"compilation failed: {error}") from error
        if compiled.return_type() not in (wanted, cel.Type.DYN):
            raise RuleError(complaint)
        checked: bytes = compiled.serialize()
        return checked


def rooted(schema: Json) -> Json:
    """The schema of a whole custom resource with the fields that rules may always use."""
    return {**schema, "properties": {**(schema.get("properties") or {}), **_ROOT_FIELDS}}


def typed_schema(schema: Json, at_root: bool) -> Json:
    return rooted(schema) if at_root or schema.get("x-kubernetes-embedded-resource") else schema


def compile_tree(schema: Json, at_root: bool = True) -> RuleTree:
    """All rules of a schema that has passed the checks of a definition."""
    rules = schema.get("x-kubernetes-validations") or ()
    compiler = Compiler(typed_schema(schema, at_root)) if rules else None
    below = {name: compile_tree(child, False) for name, child in (schema.get("properties") or {}).items()}
    items, values = schema.get("items"), schema.get("additionalProperties")
    return RuleTree(
        schema=typed_schema(schema, at_root),
        rules=tuple(compiler.compile(rule) for rule in rules) if compiler else (),
        properties={name: tree for name, tree in below.items() if tree},
        items=(compile_tree(items, False) or None) if isinstance(items, dict) else None,
        values=(compile_tree(values, False) or None) if isinstance(values, dict) else None,
    )


def to_cel(schema: Json, value: Any) -> Any:
    """A JSON value as CEL sees it: numbers by their schema's type, names escaped, dates and durations parsed."""
    if is_dynamic(schema):
        return value
    match schema["type"]:
        case "object":
            return _object_to_cel(schema, value)
        case "array":
            return [to_cel(schema["items"], part) for part in value]
        case "number":
            return float(value)
        case "integer":
            return int(value)
        case "string":
            return _string_to_cel(schema.get("format", ""), value)
        case _:
            return value


def _object_to_cel(schema: Json, value: Json) -> Json:
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    if isinstance(additional, dict):
        return {name: to_cel(additional, part) for name, part in value.items()}
    known = ((escaped(name), properties[name], part) for name, part in value.items() if name in properties)
    return {name: to_cel(child, part) for name, child, part in known if name is not None and part is not None}


def _string_to_cel(form: str, value: str) -> Any:
    """Dates and durations as messages, which the evaluator also takes inside other values."""
    if form in ("date", "date-time", "datetime"):
        moment, stamp = datetime.fromisoformat(value), Timestamp()
        stamp.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        return stamp
    if form == "duration":
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(value))
        span = Duration()
        span.FromTimedelta(timedelta(seconds=-seconds if value.startswith("-") else seconds))
        return span
    return base64.b64decode(value) if form == "byte" else value


def rule_faults(tree: RuleTree | None, value: Any, old: Any, path: str = "") -> Iterator[Cause]:
    """Every rule that a valid value breaks; rules about changes run only where there was a value before."""
    if tree is None or value is None:
        return
    if tree.rules:
        data = {"self": to_cel(tree.schema, value)}
        if old is not None:
            data["oldSelf"] = to_cel(tree.schema, old)
        for rule in tree.rules:
            if old is not None or not rule.is_transition:
                yield from _rule_fault(rule, value, data, path)
    if isinstance(value, dict):
        yield from _object_rule_faults(tree, value, old if isinstance(old, dict) else {}, path)
    elif isinstance(value, list) and tree.items:
        before = _correlated(tree.schema, old or [])
        for index, part in enumerate(value):
            earlier = before.get(_identity(tree.schema, part))
            yield from rule_faults(tree.items, part, earlier, f"{path}[{index}]")


def _object_rule_faults(tree: RuleTree, value: Json, old: Json, path: str) -> Iterator[Cause]:
    for name, part in value.items():
        below = tree.properties.get(name, tree.values)
        yield from rule_faults(below, part, old.get(name), join(path, name))


def _identity(schema: Json, part: Any) -> tuple[Any, ...] | None:
    """What makes an element the same one as before; None in lists that have no such notion."""
    if schema.get("x-kubernetes-list-type") != "map":
        return None
    return tuple(part.get(key) for key in schema["x-kubernetes-list-map-keys"])


def _correlated(schema: Json, old: list[Any]) -> dict[tuple[Any, ...] | None, Any]:
    if schema.get("x-kubernetes-list-type") != "map":
        return {}
    return {_identity(schema, part): part for part in old}


def _rule_fault(rule: Rule, value: Any, data: Json, path: str) -> Iterator[Cause]:
    outcome = rule.program.eval(data=data)
    where = (path + rule.field_path).removeprefix(".")
    shown = '"object"' if isinstance(value, dict) else '"array"' if isinstance(value, list) else None
    seen = shown or (
        f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else value
    )
    if outcome.type() in (cel.Type.ERROR, cel.Type.UNKNOWN):
        words = f"Invalid value: {seen}: {outcome.value()} evaluating rule: {rule.message}"
        yield Cause(where, "FieldValueInvalid", words)
    elif outcome.value() is not True:
        yield Cause(where, rule.reason, _refusal(rule, seen, data))


def _refusal(rule: Rule, seen: Any, data: Json) -> str:
    message = rule.message
    if rule.message_program:
        words = rule.message_program.eval(data=data)
        if words.type() == cel.Type.STRING and str(words.value()).strip():
            message = str(words.value())
    prefix = {"FieldValueForbidden": "Forbidden", "FieldValueRequired": "Required value"}.get(rule.reason)
    if rule.reason == "FieldValueDuplicate":
        prefix = f"Duplicate value: {seen}"
    return f"{prefix}: {message}" if prefix else f"Invalid value: {seen}: {message}"
