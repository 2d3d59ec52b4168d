"""CEL rules: what compiles, what they decide, and what they may cost."""

from typing import Any

import pytest

from lora_devcluster.cel import compile_tree, rule_faults
from lora_devcluster.rule_budget import rule_tree_faults

SPEC: dict[str, Any] = {
    "type": "object",
    "properties": {
        "rank": {"type": "integer"},
        "rate": {"type": "number"},
        "name": {"type": "string", "maxLength": 20},
        "wait": {"type": "string", "format": "duration"},
        "since": {"type": "string", "format": "date-time"},
        "blob": {"type": "string", "format": "byte", "maxLength": 20},
        "size": {"x-kubernetes-int-or-string": True},
        "tags": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 5}},
        "labels": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "string", "maxLength": 5}},
        "parts": {
            "type": "array",
            "maxItems": 5,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["id"],
            "items": {
                "type": "object",
                "required": ["id"],
                "properties": {"id": {"type": "string", "maxLength": 5}, "weight": {"type": "number"}},
            },
        },
        "with-dash": {"type": "boolean"},
        "namespace": {"type": "string", "maxLength": 9},
    },
}


def root(rule: str, place: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """The schema of whole objects with one rule at a place below `spec`."""
    rules = {"x-kubernetes-validations": [{"rule": rule, **more}]}
    return {"type": "object", "properties": {"spec": _with_rules(SPEC, place, rules)}}


def _with_rules(schema: dict[str, Any], place: tuple[str, ...], rules: dict[str, Any]) -> dict[str, Any]:
    if not place:
        return {**schema, **rules}
    if place[0] == "items":
        return {**schema, "items": _with_rules(schema["items"], place[1:], rules)}
    properties = schema["properties"]
    return {**schema, "properties": {**properties, place[0]: _with_rules(properties[place[0]], place[1:], rules)}}


def refusals(rule: str, place: tuple[str, ...] = (), **more: Any) -> list[str]:
    return [str(cause) for cause in rule_tree_faults(root(rule, place, **more), "schema")]


def broken(rule: str, spec: Any, old: Any = None, *, place: tuple[str, ...] = (), **more: Any) -> list[str]:
    tree = compile_tree(root(rule, place, **more))
    before = {"spec": old} if old is not None else None
    return [str(cause) for cause in rule_faults(tree, {"spec": spec}, before)]


@pytest.mark.parametrize(
    "rule",
    [
        "self.rank > 1",
        "self.rate > 1.0",
        "double(self.rank) > self.rate",
        "has(self.rank) && self.tags.all(t, t.startsWith('a'))",
        "self.parts.exists(p, p.weight > 0.5)",
        "self.labels.all(k, self.labels[k] != '')",
        "self.size == 1 || self.size == '50%'",
        "self.wait > duration('1s')",
        "self.?name.orValue('x') != 'y'",
        "self.with__dash__dash == true",
        "self.__namespace__ != ''",
        "self.tags.map(t, t.lowerAscii()).exists(t, t == 'a')",
    ],
)
def test_well_typed_rules_are_accepted(rule: str) -> None:
    assert refusals(rule) == []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("self.rank > 1.0", "found no matching overload for '_>_' applied to '(int, double)'"),
        ("self.rate > 1", "found no matching overload for '_>_' applied to '(double, int)'"),
        ("self.rank + self.rate > 1.0", "found no matching overload for '_+_'"),
        ("self.parts.all(p, p.weight > 0)", "found no matching overload"),
        ("self.name == 3", "found no matching overload for '_==_' applied to '(string, int)'"),
        ("self.missing == 3", "undefined field 'missing'"),
        ("has(self.missing)", "undefined field 'missing'"),
        ("other.rank == 3", "undeclared reference to 'other"),
        ("isURL(self.name)", "undeclared reference to 'isURL'"),
        ("self.rank +", "Syntax error"),
        ("self.rank", "cel expression must evaluate to a bool"),
        ("  ", "rule is not specified"),
    ],
)
def test_a_rule_that_a_server_would_not_compile_is_refused(rule: str, words: str) -> None:
    assert any(words in fault for fault in refusals(rule)), refusals(rule)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"message": " "}, "message must be non-empty"),
        ({"message": "a\nb"}, "message must not contain line breaks"),
        ({"reason": "FieldValueOdd"}, 'Unsupported value: "FieldValueOdd"'),
        ({"fieldPath": ".nowhere"}, "fieldPath must be a valid path"),
        ({"messageExpression": "self.rank"}, "messageExpression must evaluate to a string"),
        ({"optionalOldSelf": True}, "does not evaluate rules with an optional oldSelf"),
    ],
)
def test_a_rule_with_a_wrong_form_is_refused(more: dict[str, Any], words: str) -> None:
    assert any(words in fault for fault in refusals("self.rank > 1", **more)), refusals("self.rank > 1", **more)


def test_a_rule_over_lines_needs_a_message() -> None:
    assert any("message must be specified" in fault for fault in refusals("self.rank\n> 1"))


def test_a_default_that_breaks_a_rule_is_refused() -> None:
    schema = root("self != 'bad'", ("name",))
    schema["properties"]["spec"]["properties"]["name"]["default"] = "bad"

    [fault] = rule_tree_faults(schema, "schema")

    assert "properties[name].default" in fault.field


def test_a_broken_rule_answers_with_its_message_and_reason() -> None:
    words = broken(
        "self.rank > 1", {"rank": 1}, message="rank is too small", reason="FieldValueForbidden", fieldPath=".rank"
    )

    assert words == ["spec.rank: Forbidden: rank is too small"]


def test_a_rule_without_a_message_shows_itself() -> None:
    assert broken("self.rank > 1", {"rank": 1}) == ['spec: Invalid value: "object": failed rule: self.rank > 1']


def test_a_message_expression_makes_the_message() -> None:
    words = broken("self.rank > 1", {"rank": 1}, messageExpression="'rank is ' + string(self.rank)")

    assert words == ['spec: Invalid value: "object": rank is 1']


def test_a_rule_that_fails_to_evaluate_counts_as_broken() -> None:
    [words] = broken("self.rank > 1", {}, message="rank is too small")

    assert words.endswith("evaluating rule: rank is too small")


def test_whole_numbers_in_number_fields_are_doubles() -> None:
    assert broken("self.rate > 0.5", {"rate": 1}) == []


@pytest.mark.parametrize(
    ("rule", "spec", "kept"),
    [
        ("self.wait > duration('1m')", {"wait": "1h30m"}, True),
        ("self.wait > duration('1m')", {"wait": "500ms"}, False),
        ("self.since < timestamp('2026-01-02T00:00:00Z')", {"since": "2026-01-01T23:00:00-02:00"}, False),
        ("self.since.getFullYear() == 2026", {"since": "2026-01-01T00:00:00Z"}, True),
        ("self.blob == b'x'", {"blob": "eA=="}, True),
        ("self.size == 1 || self.size == '1'", {"size": "1"}, True),
    ],
)
def test_formatted_strings_are_what_they_stand_for(rule: str, spec: dict[str, Any], kept: bool) -> None:
    assert (broken(rule, spec) == []) is kept


def test_names_that_cel_cannot_spell_are_escaped() -> None:
    assert broken("self.with__dash__dash && self.__namespace__ == 'n'", {"with-dash": True, "namespace": "n"}) == []


def test_a_transition_rule_runs_only_on_changes() -> None:
    rule = "self.rank == oldSelf.rank"

    assert broken(rule, {"rank": 2}) == []
    assert broken(rule, {"rank": 2}, {"rank": 2}) == []
    assert broken(rule, {"rank": 2}, {"rank": 1}) != []


def test_the_words_old_self_in_a_text_make_no_transition_rule() -> None:
    assert broken("self.name != 'oldSelf'", {"name": "oldSelf"}) != []


def test_elements_of_a_keyed_list_are_compared_with_themselves() -> None:
    rule, place = "self.weight >= oldSelf.weight", ("parts", "items")
    old = {"parts": [{"id": "a", "weight": 1.0}, {"id": "b", "weight": 2.0}]}
    new = {"parts": [{"id": "b", "weight": 1.5}, {"id": "a", "weight": 1.5}, {"id": "c", "weight": 0.0}]}

    [words] = broken(rule, new, old, place=place)

    assert words.startswith("spec.parts[0]")


def test_a_transition_rule_on_elements_without_a_key_is_refused() -> None:
    faults = refusals("self == oldSelf", ("tags", "items"))

    assert any("oldSelf cannot be used on the uncorrelatable portion" in fault for fault in faults)


def unbounded(schema: dict[str, Any], rule: str) -> list[str]:
    body = {"type": "object", "properties": {"a": schema}, "x-kubernetes-validations": [{"rule": rule}]}
    return [str(cause) for cause in rule_tree_faults({"type": "object", "properties": {"spec": body}}, "schema")]


LIST_OF_TEXT = {"type": "array", "items": {"type": "string", "maxLength": 10}}


@pytest.mark.parametrize(
    ("schema", "rule", "accepted"),
    [
        ({"type": "string", "maxLength": 1000}, "self.a.matches('^[a-z]+$')", True),
        ({"type": "string"}, "self.a.startsWith('x')", True),
        ({"type": "string"}, "self.a.contains(self.a)", False),
        ({**LIST_OF_TEXT, "maxItems": 100}, "self.a.all(x, self.a.exists_one(y, x == y))", True),
        (LIST_OF_TEXT, "self.a.all(x, self.a.exists_one(y, x == y))", False),
        ({**LIST_OF_TEXT, "maxItems": 100}, "self.a.all(x, x.matches('^[a-z]+$'))", True),
        ({"type": "array", "items": {"type": "string"}}, "self.a.all(x, x.matches('^[a-z]+$'))", False),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            "self.a.all(k, self.a[k].contains('x'))",
            False,
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 32},
            "self.a.all(k, k.matches('^[a-z]+$'))",
            True,
        ),
    ],
)
def test_a_rule_must_be_cheap_at_the_largest_size_its_schema_allows(
    schema: dict[str, Any], rule: str, accepted: bool
) -> None:
    faults = unbounded(schema, rule)

    assert (faults == []) is accepted, faults
    assert accepted or "estimated rule cost exceeds budget" in faults[0]


def test_a_rule_inside_a_list_costs_as_often_as_the_list_may_be_long() -> None:
    items = {"type": "string", "maxLength": 1000, "x-kubernetes-validations": [{"rule": "self.matches('^[a-z]+$')"}]}

    def refused(**limits: int) -> bool:
        listed = {"type": "array", "items": items, **limits}
        return bool(list(rule_tree_faults({"type": "object", "properties": {"a": listed}}, "schema")))

    assert (refused(maxItems=100), refused()) == (False, True)


def test_all_rules_together_have_a_budget_too() -> None:
    rule = {"rule": "self.all(x, self.all(y, x != y + 'abc'))"}
    listed = {**LIST_OF_TEXT, "maxItems": 600, "x-kubernetes-validations": [rule]}
    many = {"type": "object", "properties": {f"a{number}": listed for number in range(40)}}

    alone = list(rule_tree_faults({"type": "object", "properties": {"a": listed}}, "schema"))
    [fault] = rule_tree_faults(many, "schema")

    assert (alone, "cost total for entire OpenAPIv3 schema exceeds budget" in fault.message) == ([], True)
