"""The generated CRD as an API server applies it to a document, for tests."""

import copy
import functools
from pathlib import Path
from typing import Any

import yaml

from lora_devcluster.cel import RuleTree, compile_tree, rule_faults
from lora_devcluster.schema import unknown_fields, violations, with_defaults

_PATH = Path(__file__).parents[2] / "crds" / "loratrainings.yaml"


@functools.cache
def _schema() -> tuple[dict[str, Any], RuleTree | None]:
    [version] = yaml.safe_load(_PATH.read_text())["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    return schema, compile_tree(schema)


def refusals(document: dict[str, Any]) -> list[str]:
    """Everything for which a server would refuse to create the document; none: it is accepted."""
    schema, rules = _schema()
    filled = with_defaults(schema, copy.deepcopy(document))
    unknown = [path for path in unknown_fields(schema, filled) if not path.startswith("metadata")]
    faults = [f"{cause.field}: {cause.message}" for cause in violations(schema, filled)]
    return [f"unknown field {path}" for path in unknown] + (
        faults or [f"{cause.field}: {cause.message}" for cause in rule_faults(rules, filled, None)]
    )
