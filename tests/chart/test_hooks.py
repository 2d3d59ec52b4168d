"""charts/lora-operator: what `helm test` makes. That it passes is seen in test_variants.py."""

from typing import Any

import pytest
import yaml

from lora_api import load_training, names
from lora_devcluster.pod_security import pod_security_faults
from tests.support.chart import NAMESPACE, TYPICAL, Manifest, Values, hooks, only, refusal, rights


def found(kind: str, values: Values | None = None) -> list[Manifest]:
    return [one for one in hooks(values) if one["kind"] == kind]


def pods(values: Values | None = None) -> dict[str, Manifest]:
    return {one["metadata"]["name"].rsplit("-", 1)[1]: one["spec"] for one in found("Pod", values)}


def weight(manifest: Manifest) -> int:
    return int(manifest["metadata"]["annotations"]["helm.sh/hook-weight"])


def the_training(values: Values | None = None) -> Manifest:
    """The one that is carried out: the later one of two of the same name."""
    return max(found(names.KIND, values), key=weight)


def test_model_and_pictures_are_there_before_the_training_and_that_before_its_result() -> None:
    order = [one["metadata"]["name"] for one in sorted(hooks(), key=weight)][-3:]

    name = "lora-lora-operator-test"
    assert order == [f"{name}-inputs", name, f"{name}-result"]


def test_a_good_test_leaves_nothing_behind() -> None:
    policies = {one["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for one in hooks()}

    assert policies == {"before-hook-creation,hook-succeeded"}


def test_the_training_is_one_that_can_be_carried_out() -> None:
    training = load_training(yaml.safe_dump(the_training()))

    assert training.spec.parallelism.gpus_per_node == 0
    assert not training.spec.suspend


def test_the_training_uses_the_claim_of_the_pod_that_makes_model_and_pictures() -> None:
    [inputs] = [pod for pod in found("Pod") if pod["metadata"]["name"].endswith("-inputs")]
    [volume] = [volume["name"] for volume in inputs["spec"]["volumes"] if "ephemeral" in volume]
    spec = the_training()["spec"]

    claim = f"pvc://{inputs['metadata']['name']}-{volume}/"
    assert all(spec[part]["uri"].startswith(claim) for part in ("baseModel", "dataset", "output"))


def test_what_a_failed_test_left_goes_before_its_claim_does() -> None:
    before, training = sorted(found(names.KIND), key=weight)
    [inputs] = [pod for pod in found("Pod") if pod["metadata"]["name"].endswith("-inputs")]

    # Helm removes the old object of that name before it makes this one, and a suspended training has no pods.
    assert before["metadata"]["name"] == training["metadata"]["name"]
    assert weight(before) < weight(inputs) < weight(training)
    assert load_training(yaml.safe_dump(before)).spec.suspend


def test_the_secret_of_a_profile_is_not_asked_for() -> None:
    for manifest in found(names.KIND):
        # A storage of its own takes the place of the profile's.
        assert manifest["spec"]["storage"] == {"anonymous": True}


def test_a_gpu_is_tried_on_request() -> None:
    manifest = the_training({"test": {"gpus": 1}})

    assert manifest["spec"]["parallelism"] == {"gpusPerNode": 1}


@pytest.mark.parametrize("values", TYPICAL.values(), ids=TYPICAL)
def test_its_pods_may_run_in_a_restricted_namespace(values: Values) -> None:
    for spec in pods(values).values():
        assert pod_security_faults(spec, "restricted") == []
        assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in spec["containers"])


def test_images_are_those_of_operator_and_profile() -> None:
    images = {name: spec["containers"][0]["image"] for name, spec in pods().items()}

    assert images == {"inputs": "lora-trainer:0.1.0", "result": "lora-operator:0.1.0"}


def test_the_volume_is_made_where_the_training_can_run() -> None:
    placed: dict[str, Any] = {"nodeSelector": {"pool": "gpu"}, "tolerations": [{"operator": "Exists"}]}

    inputs = pods({"profiles": {"default": placed}})["inputs"]

    assert {field: inputs[field] for field in placed} == placed


def test_who_waits_may_look_at_this_training_and_do_nothing_else() -> None:
    [role] = found("Role")
    [binding] = found("RoleBinding")
    [account] = found("ServiceAccount")
    training = the_training()

    assert rights(role) == {(names.GROUP, names.PLURAL, "get")}
    assert [rule["resourceNames"] for rule in role["rules"]] == [[training["metadata"]["name"]]]
    assert binding["subjects"][0]["name"] == account["metadata"]["name"] == pods()["result"]["serviceAccountName"]
    assert pods()["inputs"]["automountServiceAccountToken"] is False


def test_the_service_does_not_lead_to_its_pods() -> None:
    selector = only("Service")["spec"]["selector"].items()

    assert not any(selector <= one["metadata"]["labels"].items() for one in found("Pod"))


@pytest.mark.parametrize(
    ("values", "namespace"),
    [
        ({}, NAMESPACE),
        ({"watchNamespaces": ["team-a", "team-b"]}, "team-a"),
        ({"watchNamespaces": ["team-a", "team-b"], "test": {"namespace": "team-b"}}, "team-b"),
        ({"test": {"namespace": "ml"}}, "ml"),
    ],
)
def test_it_trains_where_the_operator_watches(values: Values, namespace: str) -> None:
    assert {one["metadata"]["namespace"] for one in hooks(values)} == {namespace}


def test_a_namespace_that_nobody_watches_is_refused() -> None:
    words = refusal({"watchNamespaces": ["team-a"], "test": {"namespace": "ml"}})

    assert "test.namespace is ml" in words


def test_a_profile_that_is_not_there_is_refused() -> None:
    assert "test.profile is big" in refusal({"test": {"profile": "big"}})
