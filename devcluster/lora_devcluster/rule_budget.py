"""The `x-kubernetes-validations` of a definition: do they compile, are they well formed, are they cheap enough?"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from lora_devcluster.cel import (
    Compiler,
    Rule,
    RuleError,
    RuleTree,
    compile_tree,
    mentions_old_self,
    rule_faults,
    typed_schema,
)
from lora_devcluster.cel_ast import read_checked
from lora_devcluster.cel_cost import DEFINITION_LIMIT, RULE_LIMIT, Estimator, max_elements
from lora_devcluster.errors import Cause, Json, forbidden, invalid_value, required, unsupported

_REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")
_ADVICE = (
    "(try simplifying the rule{}, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings "
    "are declared)"
)


@dataclass(frozen=True)
class _Place:
    """Where a rule stands, how often it may run on one object, and whether old and new values can be paired."""

    path: str
    times: float = 1.0
    paired: bool = True
    at_root: bool = False


def rule_tree_faults(schema: Json, path: str) -> Iterator[Cause]:
    """Everything that is wrong with the rules of a structural schema, and with defaults that break them."""
    costs: list[float] = []
    faults = list(_node_faults(schema, _Place(path, at_root=True), costs))
    yield from faults
    total = sum(costs)
    if total > DEFINITION_LIMIT:
        words = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by "
        yield forbidden(path, words + _excess(total, DEFINITION_LIMIT) + " " + _ADVICE.format("s"))
    if not faults:
        yield from _default_faults(schema, compile_tree(schema), path)


def _excess(cost: float, limit: float) -> str:
    factor = cost / limit
    return "factor of more than 100x" if factor > 100 else f"factor of {factor:.1f}x"


def _node_faults(schema: Json, place: _Place, costs: list[float]) -> Iterator[Cause]:
    rules = schema.get("x-kubernetes-validations") or ()
    if rules:
        compiler = Compiler(typed_schema(schema, place.at_root))
        for index, rule in enumerate(rules):
            here = replace(place, path=f"{place.path}.x-kubernetes-validations[{index}]")
            yield from _rule_faults(rule, schema, (compiler, here), costs)
    for name, child in (schema.get("properties") or {}).items():
        inner = replace(place, path=f"{place.path}.properties[{name}]", at_root=False)
        yield from _node_faults(child, inner, costs)
    for keyword in ("items", "additionalProperties"):
        child = schema.get(keyword)
        if isinstance(child, dict):
            paired = place.paired and (keyword != "items" or schema.get("x-kubernetes-list-type") == "map")
            times = place.times * max_elements(schema)
            yield from _node_faults(child, _Place(f"{place.path}.{keyword}", times, paired), costs)


def _rule_faults(rule: Json, schema: Json, where: tuple[Compiler, _Place], costs: list[float]) -> Iterator[Cause]:
    compiler, place = where
    yield from _form_faults(rule, schema, place.path)
    if not rule.get("rule", "").strip():
        return
    if rule.get("optionalOldSelf") is not None:
        words = "this laptop-sized cluster does not evaluate rules with an optional oldSelf"
        yield forbidden(f"{place.path}.optionalOldSelf", words)
        return
    if mentions_old_self(rule["rule"]) and not place.paired:
        within = place.path.rpartition(".x-kubernetes-validations")[0]
        words = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {within}"
        yield invalid_value(f"{place.path}.rule", rule["rule"], words)
    try:
        compiled = compiler.compile(rule)
    except RuleError as error:
        yield invalid_value(f"{place.path}.rule", rule["rule"], str(error))
        return
    yield from _cost_faults(compiled, schema, place, costs)


def _cost_faults(rule: Rule, schema: Json, place: _Place, costs: list[float]) -> Iterator[Cause]:
    once = Estimator(typed_schema(schema, place.at_root)).cost(read_checked(rule.checked))
    cost = once * place.times
    costs.append(cost)
    if cost > RULE_LIMIT:
        words = f"estimated rule cost exceeds budget by {_excess(cost, RULE_LIMIT)} " + _ADVICE.format("")
        yield forbidden(f"{place.path}.rule", words)


def _form_faults(rule: Json, schema: Json, path: str) -> Iterator[Cause]:
    text, message = rule.get("rule", ""), rule.get("message")
    if not text.strip():
        yield required(f"{path}.rule", "rule is not specified")
    if message is not None and not message.strip():
        yield invalid_value(f"{path}.message", message, "message must be non-empty if specified")
    if message and "\n" in message.strip():
        yield invalid_value(f"{path}.message", message, "message must not contain line breaks")
    if message and len(message) > 2048:
        yield invalid_value(f"{path}.message", message, "message must have a maximum length of 2048 characters")
    if "\n" in text.strip() and not message and not rule.get("messageExpression"):
        yield required(f"{path}.message", "message must be specified if rule contains line breaks")
    if rule.get("reason") is not None and rule["reason"] not in _REASONS:
        yield unsupported(f"{path}.reason", rule["reason"], _REASONS)
    if rule.get("fieldPath") and not _leads_somewhere(schema, rule["fieldPath"]):
        yield invalid_value(f"{path}.fieldPath", rule["fieldPath"], "fieldPath must be a valid path")


def _leads_somewhere(schema: Json, path: str) -> bool:
    if not path.startswith("."):
        return False
    here: Any = schema
    for name in path[1:].split("."):
        here = (here.get("properties") or {}).get(name) if isinstance(here, dict) else None
    return here is not None


def _default_faults(schema: Json, tree: RuleTree | None, path: str) -> Iterator[Cause]:
    """Defaults have to keep the rules of their own place and below."""
    if tree is None:
        return
    if "default" in schema:
        yield from rule_faults(tree, schema["default"], None, f"{path}.default")
    for name, child in (schema.get("properties") or {}).items():
        yield from _default_faults(child, tree.properties.get(name), f"{path}.properties[{name}]")
    for keyword, below in (("items", tree.items), ("additionalProperties", tree.values)):
        if isinstance(schema.get(keyword), dict):
            yield from _default_faults(schema[keyword], below, f"{path}.{keyword}")
