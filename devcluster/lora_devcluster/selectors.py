"""Label and field selectors: parsing and matching. Used by list, watch and deletecollection."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from lora_devcluster.errors import Json, bad_request

Labels = Mapping[str, str]
Predicate = Callable[[Json], bool]

_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_SET = re.compile(rf"^(?P<key>{_NAME})\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUAL = re.compile(rf"^(?P<key>{_NAME})\s*(?P<op>==|=|!=)\s*(?P<value>[-A-Za-z0-9_.]*)$")
_EXISTS = re.compile(rf"^(?P<absent>!?)\s*(?P<key>{_NAME})$")


def _split(text: str) -> list[str]:
    """The requirements of a selector; commas inside parentheses do not separate."""
    return [part.strip() for part in re.split(r",(?![^()]*\))", text) if part.strip()]


def _label_requirement(text: str) -> Callable[[Labels], bool]:
    if found := _SET.match(text):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        wanted = found["op"] == "in"
        return lambda labels: (labels.get(key) in values) is wanted
    if found := _EQUAL.match(text):
        key, value, same = found["key"], found["value"], found["op"] != "!="
        return lambda labels: (labels.get(key) == value) is same
    if found := _EXISTS.match(text):
        key, present = found["key"], not found["absent"]
        return lambda labels: (key in labels) is present
    raise bad_request(f'unable to parse requirement: found "{text}", expected: in, notin, =, ==, !=, or a name')


def label_selector(text: str) -> Predicate:
    """A test on objects' labels, e.g. `app=x,tier in (a,b),!old`."""
    requirements = [_label_requirement(part) for part in _split(text)]
    return lambda obj: all(test(obj["metadata"].get("labels") or {}) for test in requirements)


def matches(selector: Json | None, labels: Labels) -> bool:
    """Whether labels fit a LabelSelector object; an absent selector fits nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression_holds(rule, labels) for rule in selector.get("matchExpressions") or ())


def _expression_holds(rule: Json, labels: Labels) -> bool:
    present, value = rule["key"] in labels, labels.get(rule["key"])
    match rule["operator"]:
        case "In":
            return value in rule["values"]
        case "NotIn":
            return value not in rule["values"]
        case "Exists":
            return present
        case _:
            return not present


_POD_FIELDS = ("spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase", "status.podIP")
_EVENT_FIELDS = (
    "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
    "involvedObject.apiVersion", "involvedObject.fieldPath", "reason", "type", "source", "reportingComponent",
)  # fmt: skip
_SELECTABLE = {
    "pods": _POD_FIELDS,
    "events": _EVENT_FIELDS,
    "jobs": ("status.successful",),
    "secrets": ("type",),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
}


def _at(obj: Json, path: str) -> str:
    value: Any = obj
    for name in path.split("."):
        value = (value or {}).get(name)
    return "" if value is None else str(value)


def field_selector(text: str, plural: str) -> Predicate:
    """A test on the few fields that Kubernetes lets clients select by.

    Raises:
        ApiError: 400 for any other field.
    """
    allowed = ("metadata.name", "metadata.namespace", *_SELECTABLE.get(plural, ()))
    tests: list[Predicate] = []
    for part in _split(text):
        path, operator, value = re.split(r"(!=|==|=)", part, maxsplit=1) if "=" in part else (part, "", "")
        if not operator:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        if path not in allowed:
            raise bad_request(f"field label not supported: {path}")
        tests.append(_field_test(path, value, operator != "!="))
    return lambda obj: all(test(obj) for test in tests)


def _field_test(path: str, value: str, same: bool) -> Predicate:
    return lambda obj: (_at(obj, path) == value) is same


def predicate(labels: str, fields: str, plural: str) -> Predicate:
    """Both selectors as one test."""
    by_label, by_field = label_selector(labels), field_selector(fields, plural)
    return lambda obj: by_label(obj) and by_field(obj)
