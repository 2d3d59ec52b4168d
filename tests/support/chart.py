"""The chart as Helm renders it, for tests."""

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from lora_devcluster.helm import helm_binary

CHART = Path(__file__).parents[2] / "charts" / "lora-operator"
NAMESPACE = "lora-system"
EXAMPLES = ("minimal", "namespaced", "production", "air-gapped", "profiles")

Manifest = dict[str, Any]
Values = dict[str, Any]
Rights = set[tuple[str, str, str]]
"""(API group, resource, verb)"""

TYPICAL: dict[str, Values] = {
    "defaults": {},
    "minimal": {
        "crds": {"enabled": False},
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "theirs"},
        "metrics": {"service": {"enabled": False}},
    },
    "namespaced": {"watchNamespaces": ["team-a", "team-b"]},
    "gpu cluster": {
        "imagePullSecrets": ["registry"],
        "commonLabels": {"team": "ml"},
        "operator": {
            "image": {"repository": "registry.example.com/lora-operator", "digest": "sha256:" + "0" * 64},
            "logLevel": "DEBUG",
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "infra", "operator": "Exists"}],
            "priorityClassName": "system-cluster-critical",
            "podLabels": {"sidecar.istio.io/inject": "false"},
            "podAnnotations": {"prometheus.io/scrape": "true"},
        },
        "serviceAccount": {"annotations": {"note": "no cloud identity needed"}},
        "trainer": {"image": {"repository": "registry.example.com/lora-trainer", "tag": "0.1.0-cu128"}},
        "metrics": {"service": {"annotations": {"prometheus.io/scrape": "true"}}},
        "profiles": {
            "default": {
                "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "resources": {"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"memory": "24Gi"}},
                "storage": {
                    "endpoint": "https://minio.example.com:9000",
                    "addressing": "Path",
                    "credentialsSecretRef": {"name": "s3-credentials"},
                    "caBundleRef": {"name": "company-ca", "key": "ca.crt"},
                },
            },
            "large": {
                "image": "registry.example.com/lora-trainer:nightly",
                "imagePullPolicy": "Always",
                "imagePullSecrets": ["registry"],
                "runtimeClassName": "nvidia",
                "priorityClass": "training",
                "serviceAccountName": "trainer",
                "sharedMemory": "8Gi",
                "workVolumeSize": "200Gi",
                "preflight": "InitContainer",
                "preflightPod": {
                    "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "4Gi"}},
                    "nodeSelector": {"pool": "cpu"},
                    "tolerations": [{"key": "cpu", "operator": "Exists"}],
                },
                "terminationGracePeriodSeconds": 300,
                "env": [{"name": "HF_ENDPOINT", "value": "https://mirror.example.com"}],
                "podLabels": {"cost-center": "42"},
                "podAnnotations": {"example.com/note": "large pictures"},
                "gpuResource": "nvidia.com/gpu.shared",
            },
        },
    },
}


@functools.cache
def helm() -> str:
    """Path of the helm binary."""
    return str(helm_binary())


def run_helm(*arguments: str, values: Values | None = None) -> subprocess.CompletedProcess[str]:
    """One call of Helm; never raises for a refusal."""
    return subprocess.run(
        [helm(), *arguments, "--values", "-"],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@functools.cache
def _objects(values: str, kinds: tuple[str, ...]) -> tuple[Manifest, ...]:
    """Rendered and read once for each set of values: nobody may change them."""
    known = [word for kind in kinds for word in ("--api-versions", f"monitoring.coreos.com/v1/{kind}")]
    result = run_helm("template", "lora", str(CHART), "--namespace", NAMESPACE, *known, values=json.loads(values))
    assert result.returncode == 0, result.stderr
    return tuple(manifest for manifest in yaml.load_all(result.stdout, Loader=yaml.CSafeLoader) if manifest)


def _all(values: Values | None, kinds: tuple[str, ...] = ()) -> tuple[Manifest, ...]:
    return _objects(json.dumps(values or {}, sort_keys=True), kinds)


def _is_hook(manifest: Manifest) -> bool:
    return "helm.sh/hook" in manifest["metadata"].get("annotations", {})


def render(values: Values | None = None, *, kinds: tuple[str, ...] = ()) -> list[Manifest]:
    """Every object of a release `lora` in NAMESPACE with these values over the chart's.

    `kinds`: what the cluster has of the Prometheus operator's.
    """
    return [manifest for manifest in _all(values, kinds) if not _is_hook(manifest)]


def hooks(values: Values | None = None) -> list[Manifest]:
    """Every object of the release's test."""
    return [manifest for manifest in _all(values) if _is_hook(manifest)]


def refusal(values: Values) -> str:
    """What Helm says about values that it does not take."""
    result = run_helm("template", "lora", str(CHART), "--namespace", NAMESPACE, values=values)
    assert result.returncode != 0, "the values were taken"
    return result.stderr


def example(name: str) -> Values:
    """The values of a file of the chart's examples."""
    values: Values = yaml.safe_load((CHART / "examples" / f"{name}.yaml").read_text())
    return values


def of_kind(kind: str, values: Values | None = None) -> list[Manifest]:
    """The objects of one kind."""
    return [manifest for manifest in render(values) if manifest["kind"] == kind]


def only(kind: str, values: Values | None = None) -> Manifest:
    """The one object of a kind."""
    [manifest] = of_kind(kind, values)
    return manifest


def rights(role: Manifest) -> Rights:
    """What a Role or ClusterRole gives."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
