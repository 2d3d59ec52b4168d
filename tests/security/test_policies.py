"""examples/policies: ready ValidatingAdmissionPolicies, judged by a real CEL evaluator over good and bad trainings."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from lora_api import parse_training
from tests.support.admission_policies import Policy, load_policy
from tests.support.documents import make_document

ROOT = Path(__file__).parents[2]
POLICIES = {path.stem: load_policy(path) for path in sorted((ROOT / "examples" / "policies").glob("*.yaml"))}
DIGEST = "@sha256:" + "0" * 64
LIMITED = ("limits.activeSeconds", 3600)
QUEUED = ("scheduling.queueName", "main")
GOOD: dict[str, tuple[tuple[str, Any], ...]] = {
    "small": (LIMITED, QUEUED),
    "on the CPU": (LIMITED, ("parallelism.gpusPerNode", 0)),
    "two nodes of four GPUs": (LIMITED, QUEUED, ("parallelism", {"nodes": 2, "gpusPerNode": 4})),
    "own image": (LIMITED, QUEUED, ("pod.image", f"registry.example.com/ml/trainer{DIGEST}")),
    "own store": (LIMITED, QUEUED, ("storage", {"endpoint": "https://minio.example.com:9000"})),
    "a Secret for trainings": (LIMITED, QUEUED, ("storage.credentialsSecretRef", {"name": "lora-s3"})),
    "model of the hub": (LIMITED, QUEUED, ("baseModel.uri", "hf://stabilityai/sd-turbo@main")),
    "claim": (LIMITED, QUEUED, ("baseModel.uri", "pvc://models/sd15"), ("pod.cacheVolumeClaim", "models")),
    "tolerant": (LIMITED, QUEUED, ("scheduling.tolerations", [{"key": "spot", "operator": "Exists"}])),
}
BAD: dict[str, tuple[str, tuple[str, Any], str]] = {
    "image from elsewhere": ("images", ("pod.image", f"docker.io/x{DIGEST}"), "registry that is not allowed"),
    "image of a look-alike": (
        "images", ("pod.image", f"registry.example.com/mlx/trainer{DIGEST}"), "registry that is not allowed"
    ),
    "image by tag": ("images", ("pod.image", "ghcr.io/example/trainer:latest"), "pinned by its digest"),
    "code by a variable": ("images", ("pod.env", [{"name": "PYTHONPATH", "value": "/x"}]), "sets a variable"),
    "server by a variable": ("images", ("pod.env", [{"name": "HF_ENDPOINT", "value": "http://x"}]), "sets a variable"),
    "profile of others": ("profiles", ("profile", "a100"), "not allowed in this namespace"),
    "bucket of others": ("stores", ("dataset.uri", "s3://private/data"), "names a bucket"),
    "bucket of a like name": ("stores", ("dataset.uri", "s3://lora-private/data"), "names a bucket"),
    "model of anybody": ("stores", ("baseModel.uri", "hf://somebody/model"), "an owner that is not allowed"),
    "claim of others": ("stores", ("baseModel.uri", "pvc://home/sd15"), "names a claim"),
    "cache of others": ("stores", ("pod.cacheVolumeClaim", "home"), "cacheVolumeClaim is not allowed"),
    "metadata service": ("stores", ("storage.endpoint", "http://169.254.169.254"), "endpoint of spec is not allowed"),
    "nine GPUs": ("gpus", ("parallelism", {"nodes": 3, "gpusPerNode": 3}), "more GPUs"),
    "without end": ("gpus", ("limits", {}), "must be set"),
    "three days": ("gpus", ("limits", {"activeSeconds": 259200}), "two days"),
    "in no queue": ("queue", ("scheduling", {}), "queueName is missing"),
    "a Secret of others": ("secrets", ("storage.credentialsSecretRef", {"name": "database"}), "names a Secret"),
    "an account of others": ("secrets", ("pod.serviceAccountName", "admin"), "serviceAccountName is not allowed"),
    "an annotation": ("pods", ("pod.annotations", {"vault.hashicorp.com/role": "db"}), "annotations holds a key"),
    "a label": ("pods", ("pod.labels", {"app": "payments"}), "labels holds a key"),
    "every taint": ("pods", ("scheduling.tolerations", [{"operator": "Exists"}]), "or all taints"),
    "urgency": ("pods", ("scheduling.priorityClass", "system-node-critical"), "priorityClass is not for trainings"),
}  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_policies_are_objects_that_kubernetes_takes(policy: Policy, version: str) -> None:
    for document in policy.documents:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_policy_refuses_as_it_is_bound(policy: Policy) -> None:
    rules, binding = policy.documents

    assert (rules["spec"]["failurePolicy"], binding["spec"]["validationActions"]) == ("Fail", ["Deny"])
    assert binding["spec"]["policyName"] == rules["metadata"]["name"]


@pytest.mark.parametrize("changes", GOOD.values(), ids=GOOD)
def test_good_trainings_pass_every_policy(changes: tuple[tuple[str, Any], ...]) -> None:
    document = make_document(*changes)

    parse_training(document)
    assert {name: policy.refusals(document) for name, policy in POLICIES.items()} == dict.fromkeys(POLICIES, ())


@pytest.mark.parametrize(("name", "change", "said"), BAD.values(), ids=BAD)
def test_bad_trainings_are_refused_by_one_policy_with_the_cure(name: str, change: tuple[str, Any], said: str) -> None:
    document = make_document(LIMITED, QUEUED, change)
    found = {policy: refusals for policy, each in POLICIES.items() if (refusals := each.refusals(document))}

    parse_training(document)
    assert list(found) == [name]
    assert said in " ".join(found[name])


@pytest.mark.parametrize(("label", "allowed"), [("a100_spot", True), ("a100", True), ("a10", False), ("", False)])
def test_a_label_of_the_namespace_allows_further_profiles(label: str, allowed: bool) -> None:
    namespace = {"metadata": {"name": "ml", "labels": {"lora-profiles": label} if label else {"other": "x"}}}

    assert POLICIES["profiles"].refusals(make_document(("profile", "a100")), namespace=namespace) is not allowed


@pytest.mark.parametrize("name", ["stores", "gpus", "pods"])
def test_what_may_change_later_is_judged_again(name: str) -> None:
    _, change, _ = next(bad for bad in BAD.values() if bad[0] == name)

    assert POLICIES[name].refusals(make_document(LIMITED, change), old=make_document(LIMITED))


@pytest.mark.parametrize("name", ["stores", "gpus", "pods"])
def test_what_does_not_fit_can_still_lose_its_finalizers(name: str) -> None:
    """Else a deletion in the foreground, which is Argo CD's, would never end."""
    _, change, _ = next(bad for bad in BAD.values() if bad[0] == name)
    old, new = make_document(LIMITED, change), make_document(LIMITED, change)
    old["metadata"]["finalizers"] = ["foregroundDeletion"]

    assert POLICIES[name].refusals(new, old=old) == ()


def test_a_training_that_cannot_be_judged_is_refused() -> None:
    assert all(policy.refusals({"kind": "LoraTraining"}) for policy in POLICIES.values())


# Whatever the API learns to name, the policies must look at: the fields come from the definition itself.


def fields(wanted: Callable[[str], bool]) -> list[str]:
    """Paths of the fields of a spec whose name is wanted, such as `dataset.subsets[].uri`."""
    definition = yaml.safe_load((ROOT / "crds" / "loratrainings.yaml").read_text())
    [version] = definition["spec"]["versions"]
    return sorted(_fields(version["schema"]["openAPIV3Schema"]["properties"]["spec"], "", wanted))


def _fields(schema: dict[str, Any], path: str, wanted: Callable[[str], bool]) -> Iterator[str]:
    for name, part in schema.get("properties", {}).items():
        here = f"{path}.{name}".removeprefix(".")
        if wanted(name):
            yield here
        yield from _fields(part, here, wanted)
    if "items" in schema:
        yield from _fields(schema["items"], f"{path}[]", wanted)


def with_field(path: str, value: Any) -> dict[str, Any]:
    """A document that holds the value there, in a list of one element where the path says so."""
    document = make_document(LIMITED, QUEUED)
    place, parts = document["spec"], path.split(".")
    for part in parts[:-1]:
        name = part.removesuffix("[]")
        place = place.setdefault(name, [{}] if part.endswith("[]") else {})
        place = place[0] if isinstance(place, list) else place
    place[parts[-1]] = value
    return document


URIS = fields(lambda name: name == "uri" or name.endswith("Uri"))
SECRETS = fields(lambda name: name.endswith(("SecretRef", "secretKeyRef")))
ENDPOINTS = fields(lambda name: name == "endpoint")


def test_the_definition_names_stores_and_secrets() -> None:
    assert len(URIS) >= 10
    assert len(SECRETS) >= 6
    assert len(ENDPOINTS) == 4


@pytest.mark.parametrize("path", URIS)
def test_no_field_can_name_a_bucket_of_others(path: str) -> None:
    assert POLICIES["stores"].refusals(with_field(path, "s3://private/x")) != ()
    assert POLICIES["stores"].refusals(with_field(path, "s3://models/x")) == ()


@pytest.mark.parametrize("path", ENDPOINTS)
def test_no_field_can_name_another_server(path: str) -> None:
    assert POLICIES["stores"].refusals(with_field(path, "http://10.0.0.1")) != ()


@pytest.mark.parametrize("path", SECRETS)
def test_no_field_can_name_a_secret_of_others(path: str) -> None:
    assert POLICIES["secrets"].refusals(with_field(path, {"name": "database", "key": "k"})) != ()
    assert POLICIES["secrets"].refusals(with_field(path, {"name": "lora-x", "key": "k"})) == ()
