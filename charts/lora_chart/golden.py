"""Golden renderings: what Helm makes of the chart's example values. Used by `__main__`."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from lora_devcluster.helm import helm_binary

CHART = Path(__file__).parents[1] / "lora-operator"
EXAMPLES = CHART / "examples"
RELEASE, NAMESPACE = "lora-operator", "lora-system"
TYPICAL = ("minimal", "namespaced", "production", "air-gapped")
"""Examples that have a golden rendering."""

Manifest = dict[str, Any]


def render_golden(name: str) -> str:
    """The objects of one example, ordered by kind and name.

    Generated files and the version are left out: they change often, and have tests of their own.

    Raises:
        RuntimeError: Helm refuses the values; the message is Helm's.
    """
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    objects = [_shortened(found) for found in yaml.load_all(_template(name), Loader=yaml.CSafeLoader) if found]
    objects.sort(key=lambda found: (found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"]))
    text = yaml.safe_dump_all(objects, sort_keys=False, width=120)
    return f"# Made by `python -m lora_chart` from examples/{name}.yaml; do not edit.\n" + text.replace(
        version, "VERSION"
    )


def _template(name: str) -> str:
    command = [
        helm_binary(),
        "template",
        RELEASE,
        CHART,
        "--namespace",
        NAMESPACE,
        "--values",
        EXAMPLES / f"{name}.yaml",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"examples/{name}.yaml: {done.stderr.strip()}")
    return done.stdout


def _shortened(found: Manifest) -> Manifest:
    kind = found["kind"]
    if kind == "CustomResourceDefinition":
        return {**found, "spec": "crds/loratrainings.yaml"}
    if kind == "PrometheusRule":
        return {**found, "spec": "files/alerts.yaml"}
    if kind == "ConfigMap" and "dashboard" in found["metadata"]["name"]:
        return {**found, "data": {name: f"files/dashboards/{name}" for name in found["data"]}}
    return found
