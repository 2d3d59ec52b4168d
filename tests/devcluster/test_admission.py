"""Built-in kinds: what the server fills in and what it refuses."""

from typing import Any

import pytest

from lora_devcluster.api import WriteOptions
from tests.support.control import Plane
from tests.support.devcluster import Manifest, container, definition, job, pod

GPU = "nvidia.com/gpu"
SIDECAR = container("x", name="i", restartPolicy="Always")
OWN_NAME = {"fieldRef": {"fieldPath": "metadata.name"}}
OWN_CPU = {"resourceFieldRef": {"resource": "limits.cpu"}}
OWN_LABELS = {"fieldRef": {"fieldPath": "metadata.labels"}}
OWN_FILE: dict[str, Any] = {"path": "p", "fieldRef": {"fieldPath": "spec.containers"}}
OWN_SPEC: dict[str, Any] = {"name": "v", "projected": {"sources": [{"downwardAPI": {"items": [OWN_FILE]}}]}}
NO_UID = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": ""}


def resources(**kinds: dict[str, Any]) -> dict[str, Any]:
    return {"resources": kinds}


def own_file(**item: Any) -> dict[str, Any]:
    return {"name": "v", "downwardAPI": {"items": [item]}}


def noted(text: str) -> dict[str, Any]:
    body = job()
    body["spec"]["template"]["metadata"] = {"annotations": {"note": text}}
    return body


def env(*variables: dict[str, Any]) -> dict[str, Any]:
    return {"env": list(variables)}


def mount(path: str, name: str = "v", **more: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **more}


def policy(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"podFailurePolicy": {"rules": list(rules)}}


def codes(*values: int, action: str = "FailJob", operator: str = "In", **more: Any) -> dict[str, Any]:
    return {"action": action, "onExitCodes": {"operator": operator, "values": list(values), **more}}


def test_a_pod_gets_the_servers_defaults() -> None:
    created = Plane().create(pod(container("true", **resources(limits={"cpu": 1}))))

    spec = created["spec"]
    assert (spec["terminationGracePeriodSeconds"], spec["schedulerName"]) == (30, "default-scheduler")
    assert spec["containers"][0]["terminationMessagePath"] == "/dev/termination-log"
    assert spec["containers"][0]["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}
    assert created["status"]["phase"] == "Pending"


def test_a_job_gets_its_selector_and_labels() -> None:
    created = Plane().create(job())

    uid = created["metadata"]["uid"]
    labels = created["spec"]["template"]["metadata"]["labels"]
    assert created["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert (labels["batch.kubernetes.io/job-name"], labels["job-name"]) == ("j", "j")
    assert (created["spec"]["backoffLimit"], created["spec"]["podReplacementPolicy"]) == (6, "TerminatingOrFailed")


def test_a_pod_failure_policy_implies_replacing_only_failed_pods() -> None:
    assert Plane().create(job(**policy(codes(64))))["spec"]["podReplacementPolicy"] == "Failed"


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (pod(container("true"), name="Upper"), "a lowercase RFC 1123 subdomain"),
        (pod(container("true", name="Upper")), "a lowercase RFC 1123 label"),
        (pod(), "spec.containers: Required value"),
        (pod(container("true", image="")), "spec.containers[0].image: Required value"),
        (pod(container("true"), container("true")), 'spec.containers[1].name: Duplicate value: "main"'),
        (pod(container("true"), restartPolicy="Sometimes"), 'Unsupported value: "Sometimes"'),
        (pod(container("true", imagePullPolicy="Maybe")), 'Unsupported value: "Maybe"'),
        (pod(container("true", **resources(limits={GPU: "0.5"}))), "must be an integer"),
        (pod(container("true", **resources(limits={"gpu": 1}))), "a standard resource type or fully qualified"),
        (pod(container("true", **resources(requests={GPU: 1}))), "Limit must be set for non overcommitable"),
        (pod(container("true", **resources(limits={"cpu": 1}, requests={"cpu": 2}))), "less than or equal to cpu"),
        (pod(container("true", **resources(limits={"cpu": "many"}))), "quantities must match the regular expression"),
        (pod(container("true", **resources(limits={"cpu": -1}))), "must be greater than or equal to 0"),
        (pod(container("true", **env({"name": "A=B"}))), "a valid environment variable name"),
        (pod(container("true", **env({"name": "A", "valueFrom": {}}))), "must specify one of"),
        (
            pod(container("true", **env({"name": "A", "value": "x", "valueFrom": OWN_NAME}))),
            "may not be specified when `value` is not empty",
        ),
        (
            pod(container("true", **env({"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": ""}}}))),
            "secretKeyRef.key: Required value",
        ),
        (pod(container("true", volumeMounts=[mount("/a")])), 'volumeMounts[0].name: Not found: "v"'),
        (
            pod(container("true", volumeMounts=[mount("/a"), mount("/a")]), volumes=[{"name": "v"}]),
            "volumeMounts[1].mountPath",
        ),
        (
            pod(container("true", volumeMounts=[mount("/a", subPath="../b")]), volumes=[{"name": "v"}]),
            "must be a relative path and must not contain '..'",
        ),
        (pod(container("true"), volumes=[{"name": "v"}, {"name": "v"}]), 'volumes[1].name: Duplicate value: "v"'),
        (pod(container("true"), volumes=[{"name": "v", "secret": {}}]), "secret.secretName: Required value"),
        (
            pod(container("true"), volumes=[{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]),
            "may not specify more than 1 volume type",
        ),
        (pod(container("true", ports=[{"containerPort": 0}])), "must be between 1 and 65535"),
        (pod(container("true"), tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]), "value must be empty"),
        (pod(container("true"), terminationGracePeriodSeconds=-1), "must be greater than or equal to 0"),
        (pod(container("true", **env({"name": "A", "valueFrom": OWN_LABELS}))), "field label not supported"),
        (pod(container("true"), volumes=[OWN_SPEC]), "sources[0].downwardAPI.items[0].fieldRef.fieldPath"),
        (pod(container("true"), volumes=[own_file(path="/p", **OWN_NAME)]), "must be a relative path"),
        (pod(container("true"), volumes=[own_file(path="a/../b", **OWN_NAME)]), "must not contain '..'"),
        (pod(container("true"), volumes=[own_file(**OWN_NAME)]), "downwardAPI.items[0].path"),
        (pod(container("true"), volumes=[own_file(path="p")]), "one of fieldRef and resourceFieldRef is required"),
        (pod(container("true"), volumes=[own_file(path="p", **OWN_CPU)]), "resourceFieldRef.containerName"),
        (pod(container("true"), volumes=[own_file(path="p", **OWN_NAME, **OWN_CPU)]), "specified simultaneously"),
        (pod(container("true", livenessProbe={"exec": {"command": ["true"]}})), "probes by httpGet and tcpSocket only"),
        (pod(container("true", lifecycle={"preStop": {"sleep": {"seconds": 1}}})), "runs no hooks"),
        (pod(container("true"), initContainers=[SIDECAR]), "no sidecar containers"),
        (job(pod_spec={"restartPolicy": "Always"}), '"Always": supported values: "OnFailure", "Never"'),
        (job(completionMode="Indexed", parallelism=2), "spec.completions"),
        (job(parallelism=-1), "must be greater than or equal to 0"),
        (job(name="n" * 63, completionMode="Indexed", completions=1), "will not able to create pod DNS hostname"),
        (job(pod_spec={"restartPolicy": "OnFailure"}, **policy(codes(1))), 'only "Never" is supported'),
        (job(**policy(codes(1)), podReplacementPolicy="TerminatingOrFailed"), 'value: "TerminatingOrFailed"'),
        (noted("x" * 262144), "template.metadata.annotations: Too long: may not be more than 262144 bytes"),
        (job(**policy(codes(0))), "must not be 0 for the In operator"),
        (job(**policy(codes(2, 1))), "must be ordered"),
        (job(**policy(codes(1, 1))), "Duplicate value"),
        (job(**policy(codes())), "at least one value is required"),
        (job(**policy(codes(1, containerName="other"))), "must be one of the container or initContainer names"),
        (job(**policy(codes(1, action="Explode"))), 'Unsupported value: "Explode"'),
        (job(**policy({"action": "Ignore"})), "specifying one of OnExitCodes and OnPodConditions is required"),
        (job(**policy(*[codes(1)] * 21)), "must have at most 20 items"),
        (job(successPolicy={"rules": [{"succeededCount": 1}]}), "does not carry it out"),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a/b": "x"}},
            "a valid config key",
        ),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": {"a": "x" * 64}}},
            "must be no more than 63 characters",
        ),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": {"a b": "x"}}},
            "name part must consist of alphanumeric characters",
        ),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "ownerReferences": [NO_UID]}},
            "uid must not be empty",
        ),
    ],
)  # fmt: skip
def test_an_object_that_breaks_a_rule_is_refused(obj: Manifest, words: str) -> None:
    refusal = Plane().refusal(obj)

    assert refusal.code == 422
    assert words in refusal.message


def test_every_cause_is_named_for_clients_that_list_them() -> None:
    refusal = Plane().refusal(pod(container("true", image="", imagePullPolicy="Maybe")))

    fields = {cause["field"] for cause in refusal.details["causes"]}
    assert fields == {"spec.containers[0].image", "spec.containers[0].imagePullPolicy"}


def test_a_field_of_the_wrong_type_cannot_be_decoded() -> None:
    refusal = Plane().refusal(job(backoffLimit="many"))

    assert (refusal.code, "cannot be handled as a Job" in refusal.message) == (400, True)


def test_an_unknown_field_is_refused_only_when_asked_to_be_strict() -> None:
    plane, wrong = Plane(), pod(container("true"), restartPolice="Never")

    refusal = plane.refusal(wrong, field_validation="Strict")

    assert (refusal.code, 'strict decoding error: unknown field "spec.restartPolice"' in refusal.message) == (400, True)
    assert "restartPolice" not in plane.create(wrong)["spec"]


@pytest.mark.parametrize("kind", ["Pod", "Thing"])
def test_a_kind_other_than_the_resources_is_refused(kind: str) -> None:
    plane = Plane()
    obj = job()
    resource = plane.resource(obj)

    with pytest.raises(Exception, match="does not match the expected kind"):
        plane.api.create(resource, "default", {**obj, "kind": kind}, WriteOptions())


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": "one"}, "cannot be handled as a CustomResourceDefinition"),
        ({"type": "integer", "maxLenght": 1}, "unknown field"),
        ({"type": "array", "items": {"type": "string", "maxLenght": 1}}, "items.maxLenght"),
        ({"type": "object", "additionalProperties": {"type": "string", "maxLength": "1"}}, "cannot be handled"),
    ],
)
def test_a_schema_with_an_unknown_word_or_wrong_type_cannot_be_decoded(schema: dict[str, Any], words: str) -> None:
    obj = definition({"type": "object", "properties": {"a": schema}})

    refusal = Plane().refusal(obj, namespace="", field_validation="Strict")

    assert (refusal.code, words in refusal.message) == (400, True), refusal.message


def test_text_of_a_secret_is_kept_as_data() -> None:
    body = {"stringData": {"a": "x"}, "data": {"b": "eQ=="}}

    created = Plane().create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, **body})

    assert (created["data"], created["type"], "stringData" in created) == ({"a": "eA==", "b": "eQ=="}, "Opaque", False)


def test_data_of_a_secret_must_be_base64() -> None:
    refusal = Plane().refusal({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "?"}})

    assert "must be of type byte" in refusal.message


@pytest.mark.parametrize(("name", "priority"), [("system-cluster-critical", 2_000_000_000), ("mine", 7)])
def test_a_priority_class_gives_the_pod_its_priority(name: str, priority: int) -> None:
    plane = Plane()
    meta = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "mine"}}
    plane.create({**meta, "value": 7}, namespace="")

    assert plane.create(pod(container("true"), priorityClassName=name))["spec"]["priority"] == priority


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"priorityClassName": "none"}, "no PriorityClass with name none was found"),
        ({"serviceAccountName": "none"}, 'serviceaccount "none" not found'),
    ],
)
def test_a_pod_that_names_what_is_not_there_is_forbidden(spec: dict[str, Any], words: str) -> None:
    refusal = Plane().refusal(pod(container("true"), **spec))

    assert (refusal.code, words in refusal.message) == (403, True)


def test_a_jobs_template_is_immutable() -> None:
    plane = Plane()
    created = plane.create(job())

    with pytest.raises(Exception, match=r"spec\.template: Invalid value: .*field is immutable"):
        plane.patch(created, {"spec": {"template": {"spec": {"containers": [container("false")]}}}})


def test_a_suspended_job_that_never_ran_may_be_placed_elsewhere() -> None:
    plane = Plane()
    created = plane.create(job(suspend=True))

    written = plane.patch(created, {"spec": {"template": {"spec": {"nodeSelector": {"gpu": "l4"}}}}})

    assert written.object["spec"]["template"]["spec"]["nodeSelector"] == {"gpu": "l4"}


def test_a_pods_spec_is_immutable() -> None:
    plane = Plane()
    created = plane.create(pod(container("true")))

    with pytest.raises(Exception, match="pod updates may not change fields other than"):
        plane.patch(created, {"spec": {"hostname": "other"}})


def secure(**context: Any) -> dict[str, Any]:
    wanted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, **context}
    return {"securityContext": wanted}


SECURE_POD: dict[str, Any] = {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (pod(container("true", **secure()), **SECURE_POD), ""),
        (pod(container("true"), **SECURE_POD), "allowPrivilegeEscalation != false"),
        (pod(container("true", **secure(capabilities={})), **SECURE_POD), "unrestricted capabilities"),
        (pod(container("true", **secure())), "runAsNonRoot != true"),
        (pod(container("true", **secure())), "seccompProfile"),
        (pod(container("true", **secure(runAsUser=0)), **SECURE_POD), "runAsUser=0"),
        (pod(container("true", **secure(privileged=True)), **SECURE_POD), "privileged"),
        (pod(container("true", **secure()), **SECURE_POD, hostNetwork=True), "host namespaces (hostNetwork=true)"),
        (
            pod(container("true", **secure()), **SECURE_POD, volumes=[{"name": "v", "hostPath": {"path": "/x"}}]),
            "hostPath volumes",
        ),
    ],
)
def test_a_restricted_namespace_takes_only_restricted_pods(obj: Manifest, words: str) -> None:
    plane = Plane()
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    meta = {"name": "safe", "labels": label}
    plane.create({"apiVersion": "v1", "kind": "Namespace", "metadata": meta}, namespace="")

    if words:
        refusal = plane.refusal(obj, namespace="safe")
        assert (refusal.code, 'violates PodSecurity "restricted:latest"' in refusal.message) == (403, True)
        assert words in refusal.message
    else:
        assert plane.create(obj, namespace="safe")["metadata"]["namespace"] == "safe"
