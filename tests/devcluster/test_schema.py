"""Defaults, pruning and validation of values."""

from typing import Any

import pytest

from lora_devcluster.schema import prune, unknown_fields, violations, with_defaults

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


def thing(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "value", "filled"),
    [
        (thing(a={**WHOLE, "default": 1}), {}, {"a": 1}),
        (thing(a={**WHOLE, "default": 1}), {"a": 2}, {"a": 2}),
        (thing(a={**WHOLE, "default": 1}), {"a": None}, {"a": 1}),
        (thing(a={**WHOLE, "default": 1, "nullable": True}), {"a": None}, {"a": None}),
        (thing(a=WHOLE), {"a": None}, {}),
        (thing(b=thing(a={**WHOLE, "default": 1})), {}, {}),
        (thing(b={**thing(a={**WHOLE, "default": 1}), "default": {}}), {}, {"b": {"a": 1}}),
        (thing(b={"type": "array", "items": thing(a={**WHOLE, "default": 1})}), {"b": [{}]}, {"b": [{"a": 1}]}),
        ({"type": "object", "additionalProperties": thing(a={**WHOLE, "default": 1})}, {"x": {}}, {"x": {"a": 1}}),
    ],
)
def test_defaults_fill_in_what_is_absent(schema: Any, value: Any, filled: Any) -> None:
    assert with_defaults(schema, value) == filled


def test_a_default_is_copied_for_every_object() -> None:
    schema = thing(a={"type": "array", "items": TEXT, "default": []})

    with_defaults(schema, {})["a"].append("x")

    assert with_defaults(schema, {}) == {"a": []}


@pytest.mark.parametrize(
    ("schema", "value", "unknown"),
    [
        (thing(a=TEXT), {"b": 1}, ["b"]),
        (thing(a=thing(b=TEXT)), {"a": {"c": 1, "b": "x"}}, ["a.c"]),
        (thing(a={"type": "array", "items": thing(b=TEXT)}), {"a": [{}, {"c": 1}]}, ["a[1].c"]),
        ({**thing(a=TEXT), "x-kubernetes-preserve-unknown-fields": True}, {"b": 1}, []),
        ({"type": "object", "additionalProperties": TEXT}, {"b": "1"}, []),
        (thing(a={"type": "object"}), {"a": {"b": 1}}, ["a.b"]),
    ],
)
def test_unknown_fields_are_found_and_pruned(schema: Any, value: Any, unknown: list[str]) -> None:
    assert list(unknown_fields(schema, value)) == unknown
    assert list(unknown_fields(schema, prune(schema, value))) == []


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        (WHOLE, "a", 'a in body must be of type integer: "string"'),
        (WHOLE, 1.5, 'a in body must be of type integer: "number"'),
        (WHOLE, True, 'a in body must be of type integer: "boolean"'),
        (TEXT, 1, 'a in body must be of type string: "integer"'),
        ({**WHOLE, "minimum": 1}, 0, "Invalid value: 0: a in body should be greater than or equal to 1"),
        ({**WHOLE, "minimum": 1, "exclusiveMinimum": True}, 1, "a in body should be greater than 1"),
        ({**WHOLE, "maximum": 1}, 2, "a in body should be less than or equal to 1"),
        ({"type": "number", "multipleOf": 0.25}, 0.3, "a in body should be a multiple of 0.25"),
        ({**WHOLE, "format": "int32"}, 2**31, "a in body must be of type int32"),
        ({**TEXT, "maxLength": 2}, "abc", "Too long: may not be more than 2 bytes"),
        ({**TEXT, "minLength": 2}, "a", "a in body should be at least 2 chars long"),
        ({**TEXT, "pattern": "^x"}, "a", "a in body should match '^x'"),
        ({**TEXT, "enum": ["x", "y"]}, "z", 'Unsupported value: "z": supported values: "x", "y"'),
        ({**TEXT, "format": "date-time"}, "today", "a in body must be of type date-time"),
        ({"type": "array", "items": TEXT, "maxItems": 1}, ["a", "b"], "Too many: 2: must have at most 1 items"),
        ({"type": "array", "items": TEXT, "minItems": 1}, [], "a in body should have at least 1 items"),
        ({"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"}, ["a", "a"], 'Duplicate value: "a"'),
        ({**thing(b=TEXT), "required": ["b"]}, {}, "Required value"),
        ({"type": "object", "additionalProperties": TEXT, "maxProperties": 0}, {"x": "y"}, "must have at most 0 items"),
        ({**WHOLE, "not": {"enum": [3]}}, 3, "must not validate the schema (not)"),
        ({**WHOLE, "anyOf": [{"minimum": 5}, {"maximum": 1}]}, 3, "must validate at least one schema (anyOf)"),
        ({"x-kubernetes-int-or-string": True}, 1.5, "must be of type integer,string"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_the_servers_words(schema: Any, value: Any, words: str) -> None:
    [cause, *more] = violations(schema, value, "a")

    assert words in cause.message
    assert more == []


def test_elements_of_a_keyed_list_may_not_share_their_key() -> None:
    keyed = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": thing(name=TEXT),
    }

    [cause] = violations(keyed, [{"name": "x"}, {"name": "x"}], "a")

    assert (cause.field, cause.message) == ("a[1]", 'Duplicate value: {"name":"x"}')


@pytest.mark.parametrize("value", [1, "50%"])
def test_an_int_or_string_takes_both(value: Any) -> None:
    assert list(violations({"x-kubernetes-int-or-string": True}, value)) == []


def test_a_whole_number_written_with_a_fraction_is_an_integer() -> None:
    assert list(violations(WHOLE, 2.0)) == []
