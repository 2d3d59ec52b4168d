"""Builders of LoraTraining documents for tests."""

import copy
from typing import Any

from lora_api import LoraTraining, parse_training

_MINIMAL: dict[str, Any] = {
    "apiVersion": "lora-operator.io/v1alpha1",
    "kind": "LoraTraining",
    "metadata": {"name": "hina", "namespace": "ml"},
    "spec": {
        "baseModel": {"uri": "s3://models/sd15"},
        "dataset": {"uri": "s3://lora/data"},
        "output": {"uri": "s3://lora/runs/hina"},
    },
}


def make_document(*changes: tuple[str, Any], name: str = "hina") -> dict[str, Any]:
    """A valid document with `(path, value)` changes to its spec, such as `("network.rank", 4)`."""
    document = copy.deepcopy(_MINIMAL)
    document["metadata"]["name"] = name
    for path, value in changes:
        *parents, last = path.split(".")
        place = document["spec"]
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return document


def make_training(*changes: tuple[str, Any], name: str = "hina") -> LoraTraining:
    """The same, parsed."""
    return parse_training(make_document(*changes, name=name))
