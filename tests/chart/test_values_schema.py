"""charts/lora-operator/values.schema.json: what is misspelt or out of bounds is refused and named."""

import json
from typing import Any

import pytest

from tests.support.chart import CHART, run_helm

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt group": ({"operatr": {}}, "operatr"),
    "a misspelt value": ({"operator": {"loglevel": "INFO"}}, "loglevel"),
    "a misspelt field of a profile": ({"profiles": {"default": {"gpuResouce": "x"}}}, "gpuResouce"),
    "a misspelt field of a profile's store": ({"profiles": {"a": {"storage": {"endpont": "x"}}}}, "endpont"),
    "a word instead of a list": ({"watchNamespaces": "team-a"}, "watchNamespaces"),
    "a namespace that cannot be": ({"watchNamespaces": ["Team A"]}, "watchNamespaces"),
    "a level that is none": ({"operator": {"logLevel": "LOUD"}}, "logLevel"),
    "no worker": ({"operator": {"workers": 0}}, "workers"),
    "two operators without election": (
        {"operator": {"replicas": 2, "leaderElection": {"enabled": False}}},
        "replicas",
    ),
    "a place for the pre-flight that is none": ({"profiles": {"a": {"preflight": "job"}}}, "preflight"),
    "a GPU for the pre-flight": ({"profiles": {"a": {"preflightPod": {"gpus": 1}}}}, "gpus"),
    "a port below 1024": ({"operator": {"port": 80}}, "port"),
    "a digest cut short": ({"trainer": {"image": {"digest": "sha256:12"}}}, "digest"),
    "an endpoint without scheme": ({"profiles": {"a": {"storage": {"endpoint": "minio:9000"}}}}, "endpoint"),
    "an endpoint with a password": ({"profiles": {"a": {"storage": {"endpoint": "http://u:p@h"}}}}, "endpoint"),
    "a variable of the operator's own": ({"profiles": {"a": {"env": [{"name": "LORA_X", "value": ""}]}}}, "env"),
    "a variable with two sources": (
        {"profiles": {"a": {"env": [{"name": "X", "value": "", "secretKeyRef": {"name": "s", "key": "k"}}]}}},
        "env",
    ),
    "no default profile": ({"profiles": {"default": None}}, "default"),
    "one of the chart's own labels": ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "app.kubernetes.io/name"),
}


@pytest.mark.parametrize(("values", "named"), REFUSED.values(), ids=REFUSED)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], named: str) -> None:
    result = run_helm("template", "lora", str(CHART), values=values)

    assert result.returncode != 0
    assert named in result.stderr


def open_objects(schema: Any, path: str) -> list[str]:
    if not isinstance(schema, dict):
        return []
    found = [path] if "properties" in schema and schema.get("additionalProperties") is not False else []
    return found + [place for key, part in schema.items() for place in open_objects(part, f"{path}/{key}")]


def test_every_object_with_known_fields_is_closed() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    assert open_objects(schema, "") == []
