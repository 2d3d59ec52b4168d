"""lora_api.crd: what a real API server demands, and that CEL and Python judge alike."""

from collections.abc import Iterator
from typing import Any

import pytest

from lora_api import InvalidTraining, crd, parse_training
from lora_devcluster.schema import CustomResourceDefinition
from tests.support.documents import make_document

SCHEMA = crd.build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}[]")


NODES = list(walk(SCHEMA))


def test_the_file_is_as_generated() -> None:
    assert crd.main(["--check"]) == 0, f"run: {crd.COMMAND}"


def test_drift_is_noticed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "loratrainings.yaml"
    stale.write_text("something else")
    monkeypatch.setattr(crd, "CRD_PATH", stale)

    assert crd.main(["--check"]) == 1
    assert crd.COMMAND in capsys.readouterr().err


def test_every_node_has_a_type() -> None:
    assert [path for path, node in NODES if "type" not in node and not node.get("x-kubernetes-int-or-string")] == []


def test_every_field_is_explained() -> None:
    fields = [(path, node) for path, node in NODES if path.startswith((".spec.", ".status.")) and path[-1] != "]"]

    assert [path for path, node in fields if not node.get("description")] == []


def test_every_string_list_and_map_of_the_spec_is_bounded() -> None:
    bound = {"string": "maxLength", "array": "maxItems"}
    unbounded = [
        path
        for path, node in NODES
        if path.startswith(".spec")
        and not node.get("enum")
        and (
            (node.get("type") in bound and bound[node["type"]] not in node)
            or ("additionalProperties" in node and "maxProperties" not in node)
        )
    ]

    assert unbounded == []


def test_nothing_of_json_schema_that_a_structural_schema_forbids_is_left() -> None:
    forbidden = {"$ref", "$defs", "title", "oneOf", "allOf", "const", "exclusiveMinimum_", "nullable"}
    assert [path for path, node in NODES if forbidden & node.keys()] == []
    assert [path for path, node in NODES if node.get("additionalProperties") is False] == []
    assert [p for p, n in NODES if not isinstance(n.get("exclusiveMinimum", True), bool)] == []


def test_rules_stay_within_one_line_and_have_a_message() -> None:
    rules = [rule for _, node in NODES for rule in node.get("x-kubernetes-validations", ())]

    assert len(rules) > 60
    assert all(rule["message"] and "\n" not in rule["message"] + rule["rule"] for rule in rules)


@pytest.fixture(scope="module")
def definition() -> CustomResourceDefinition:
    return CustomResourceDefinition(crd.build_crd())
