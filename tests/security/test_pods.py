"""What pods may do: all fit the Pod Security standard "restricted", and no LoraTraining can make one that does more."""

from collections.abc import Iterator
from typing import Any

import pytest

from lora_api import LoraTraining
from lora_api.cluster_spec import Pod, Scheduling, Storage
from lora_api.names import ANNOTATION_TRAINING
from lora_devcluster.pod_security import pod_security_faults
from lora_operator.manifests import build_evaluation_job, build_job, build_preflight_job
from lora_operator.profiles import Profile
from tests.support.chart import TYPICAL, Manifest, hooks, render
from tests.support.documents import make_training
from tests.support.scenario import Scenario

SECRET, BUNDLE = {"name": "theirs"}, {"name": "theirs", "key": "theirs"}
STORE = {
    "endpoint": "https://theirs:9000",
    "region": "theirs",
    "addressing": "Path",
    "credentialsSecretRef": SECRET,
    "caBundleRef": BUNDLE,
}
EVERYTHING = make_training(
    ("baseModel", {"uri": "hf://theirs/x", "vaeUri": "pvc://theirs/x", "tokenSecretRef": BUNDLE, "storage": STORE}),
    ("dataset", {"uri": "pvc://theirs-too/x", "storage": STORE}),
    ("output", {"uri": "s3://theirs/out", "name": "theirs", "storage": STORE}),
    ("storage", STORE),
    ("parallelism", {"nodes": 2, "gpusPerNode": 4}),
    (
        "scheduling",
        {
            "queueName": "theirs",
            "queuePriorityClass": "theirs",
            "queueTopology": {"required": "theirs"},
            "priorityClass": "theirs",
            "nodeSelector": {"theirs": "theirs"},
            "tolerations": [{"key": "theirs", "operator": "Exists"}],
            "affinity": {"theirs": [{"hostPath": "/", "privileged": True}]},
            "startDeadlineSeconds": 600,
        },
    ),
    (
        "pod",
        {
            "image": "theirs",
            "resources": {"requests": {"theirs.io/x": "1"}, "limits": {"theirs.io/x": "1"}},
            "env": [
                {"name": "theirs", "value": "theirs"},
                {"name": "theirs2", "secretKeyRef": BUNDLE},
                {"name": "theirs3", "configMapKeyRef": BUNDLE},
            ],
            "serviceAccountName": "theirs",
            "labels": {"theirs": "theirs"},
            "annotations": {"theirs": "theirs"},
            "cacheVolumeClaim": "theirs",
            "sharedMemory": "3Gi",
        },
    ),
)
PROFILES = {
    "default": Profile(image="trainer:1"),
    "checks inside": Profile(image="trainer:1", preflight="InitContainer"),
}
REACHED = {
    "metadata.annotations.theirs",
    "metadata.annotations.kueue.x-k8s.io/podset-required-topology",
    "metadata.labels.theirs",
    "spec.affinity.theirs",
    "spec.containers.env.name",
    "spec.containers.env.value",
    "spec.containers.env.valueFrom.configMapKeyRef.key",
    "spec.containers.env.valueFrom.configMapKeyRef.name",
    "spec.containers.env.valueFrom.secretKeyRef.key",
    "spec.containers.env.valueFrom.secretKeyRef.name",
    "spec.containers.image",
    "spec.containers.resources.limits.theirs.io/x",
    "spec.containers.resources.requests.theirs.io/x",
    "spec.containers.volumeMounts.mountPath",
    "spec.nodeSelector.theirs",
    "spec.priorityClassName",
    "spec.serviceAccountName",
    "spec.tolerations.key",
    "spec.volumes.configMap.items.key",
    "spec.volumes.configMap.name",
    "spec.volumes.persistentVolumeClaim.claimName",
    "spec.volumes.secret.items.key",
    "spec.volumes.secret.secretName",
}
"""All places of a pod that words of a LoraTraining get to: docs/security.md says what each of them means."""
VOLUMES = {"name", "configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "secret"}
CONFINED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def templates(training: LoraTraining) -> Iterator[Manifest]:
    """The pods of every kind of Job, with every kind of profile."""
    for profile in PROFILES.values():
        jobs = (
            build_job(training, profile, attempt=1),
            build_preflight_job(training, profile),
            build_evaluation_job(training, profile, generation=2, attempts=1),
        )
        yield from (job["spec"]["template"] for job in jobs)


def words(value: Any, path: str = "") -> Iterator[str]:
    """Paths of everything that holds a word of the training: keys that are its own words end a path."""
    if isinstance(value, dict):
        for key, part in value.items():
            here = f"{path}.{key}".removeprefix(".")
            if "theirs" in key:
                yield here
            elif key != ANNOTATION_TRAINING:
                yield from words(part, here)
    elif isinstance(value, list):
        for part in value:
            yield from words(part, path)
    elif "theirs" in str(value):
        yield path


def containers(spec: Manifest) -> list[Manifest]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


def pods_of_chart(values: dict[str, Any]) -> dict[str, Manifest]:
    """The specs of all pods that an installation and its test make, by kind and name."""
    found = {}
    for manifest in (*render(values), *hooks(values)):
        if manifest["kind"] in {"Pod", "Deployment", "Job"}:
            spec = manifest["spec"] if manifest["kind"] == "Pod" else manifest["spec"]["template"]["spec"]
            found[f"{manifest['kind']}/{manifest['metadata']['name']}"] = spec
    return found


def test_the_training_says_everything_that_reaches_a_pod() -> None:
    spec = EVERYTHING.spec

    assert spec.pod.model_fields_set == set(Pod.model_fields)
    assert spec.scheduling.model_fields_set == set(Scheduling.model_fields)
    assert spec.storage.model_fields_set == set(Storage.model_fields) - {"anonymous"}


def test_words_of_a_training_get_to_these_places_of_its_pods_and_no_others() -> None:
    found = {path.replace("initContainers", "containers") for pod in templates(EVERYTHING) for path in words(pod)}

    assert found == REACHED


@pytest.mark.parametrize("training", [EVERYTHING, make_training()], ids=["everything", "nothing"])
def test_what_confines_a_pod_is_the_same_whatever_the_training_says(training: LoraTraining) -> None:
    for pod in templates(training):
        spec = pod["spec"]
        assert pod_security_faults(spec, "restricted") == []
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsUser"] == 65532
        assert {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "hostname", "nodeName"}.isdisjoint(spec)
        assert {source for volume in spec["volumes"] for source in volume} <= VOLUMES
        assert all(container["securityContext"] == CONFINED for container in containers(spec))
        assert all("hostPort" not in port for container in containers(spec) for port in container.get("ports", ()))


def test_secrets_are_mounted_for_reading_only() -> None:
    for pod in templates(EVERYTHING):
        secret = {volume["name"] for volume in pod["spec"]["volumes"] if "secret" in volume}
        mounts = [mount for container in containers(pod["spec"]) for mount in container["volumeMounts"]]
        assert all(mount["readOnly"] for mount in mounts if mount["name"] in secret)
        assert all(v["secret"]["defaultMode"] == 0o440 for v in pod["spec"]["volumes"] if "secret" in v)


@pytest.mark.parametrize("values", TYPICAL.values(), ids=TYPICAL)
def test_every_pod_of_the_chart_is_restricted_and_cannot_write_to_its_image(values: dict[str, Any]) -> None:
    found = pods_of_chart(values)

    assert len(found) >= 3
    for spec in found.values():
        assert pod_security_faults(spec, "restricted") == []
        assert all(one["securityContext"]["readOnlyRootFilesystem"] is True for one in containers(spec))


async def test_a_restricted_namespace_takes_the_pods_of_a_whole_life(scenario: Scenario) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    await scenario.send("PATCH", "/api/v1/namespaces/ml", label)
    await scenario.start_operator()

    await scenario.create(("parallelism.gpusPerNode", 1))
    await scenario.until_phase("Succeeded")
    await scenario.change({"spec": {"evaluation": {}}})
    await scenario.until_condition("Evaluated", "Completed")

    pods = {pod["metadata"]["labels"]["lora-operator.io/stage"]: pod["spec"] for pod in scenario.stored("", "pods")}
    assert set(pods) == {"preflight", "training", "evaluation"}
    assert all(pod_security_faults(spec, "restricted") == [] for spec in pods.values())
