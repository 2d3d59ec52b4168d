"""The real kubectl against the laptop-sized cluster."""

import json
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lora_devcluster import ThreadedCluster
from tests.support.devcluster import container, definition, job, pod, widget
from tests.support.kubectl import KUBECTL, Kubectl

SPEC: dict[str, Any] = {
    "type": "object",
    "description": "What the widget shall be.",
    "required": ["uri"],
    "x-kubernetes-validations": [{"rule": "self.uri == oldSelf.uri", "message": "uri is immutable"}],
    "properties": {
        "uri": {"type": "string", "maxLength": 50, "pattern": "^s3://", "description": "Where it lies."},
        "rank": {"type": "integer", "default": 16, "minimum": 1},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    },
}
STATUS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "phase": {"type": "string"},
        "conditions": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
            },
        },
    },
}
COLUMNS = [
    {"name": "Rank", "type": "integer", "jsonPath": ".spec.rank"},
    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
    {"name": "URI", "type": "string", "jsonPath": ".spec.uri", "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]


@pytest.fixture(scope="module", autouse=True)
def widgets(shared: ThreadedCluster) -> Iterator[None]:
    """The kind `Widget` for the tests of this module."""
    kubectl = Kubectl(shared.kubeconfig)
    kubectl.apply(definition(SPEC, STATUS, additionalPrinterColumns=COLUMNS))
    kubectl("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=60s")
    yield
    kubectl("delete", "crd", "widgets.example.com")


def toy(**spec: Any) -> dict[str, Any]:
    return widget("toy", spec={"uri": "s3://b/toy", **spec})


def ready(kubectl: Kubectl) -> None:
    status = {"status": {"phase": "Done", "conditions": [{"type": "Ready", "status": "True"}]}}
    kubectl("patch", "wd", "toy", "--subresource=status", "--type=merge", "-p", json.dumps(status))


def test_apply_creates_configures_and_leaves_alone(kubectl: Kubectl) -> None:
    answers = [kubectl.apply(toy()), kubectl.apply(toy(rank=2)), kubectl.apply(toy(rank=2))]

    assert [answer.split()[-1] for answer in answers] == ["created", "configured", "unchanged"]
    assert kubectl.get("wd", "toy")["metadata"]["generation"] == 2


def test_a_field_taken_out_of_the_applied_file_goes(kubectl: Kubectl) -> None:
    kubectl.apply(toy(tags=["a"], rank=2))

    kubectl.apply(toy())

    assert kubectl.get("wd", "toy")["spec"] == {"uri": "s3://b/toy", "rank": 16}


def test_server_side_apply_creates_and_takes_back(kubectl: Kubectl) -> None:
    kubectl.apply(toy(tags=["a"]), options=("--server-side",))

    kubectl.apply(toy(), options=("--server-side",))

    assert kubectl.get("wd", "toy")["spec"] == {"uri": "s3://b/toy", "rank": 16}


def test_server_side_apply_conflicts_name_the_other_manager(kubectl: Kubectl) -> None:
    kubectl.apply(toy(rank=1), options=("--server-side", "--field-manager=them"))
    manifest = yaml.safe_dump(toy(rank=2))

    words = kubectl.refusal("apply", "--server-side", "-f", "-", stdin=manifest)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest)

    assert 'conflict with "them": .spec.rank' in words
    assert kubectl.get("wd", "toy")["spec"]["rank"] == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"uri": "gs://b"}, "spec.uri in body should match '^s3://'"),
        ({"rank": "a"}, 'spec.rank in body must be of type integer: "string"'),
        ({"rank": 0}, "spec.rank in body should be greater than or equal to 1"),
        ({"rnak": 1}, 'strict decoding error: unknown field "spec.rnak"'),
    ],
)
def test_what_the_definition_forbids_is_refused_by_field(kubectl: Kubectl, change: dict[str, Any], words: str) -> None:
    assert words in kubectl.refusal("apply", "-f", "-", stdin=yaml.safe_dump(toy(**change)))


def test_a_transition_rule_is_kept(kubectl: Kubectl) -> None:
    kubectl.apply(toy())

    words = kubectl.refusal("patch", "wd", "toy", "--type=merge", "-p", '{"spec": {"uri": "s3://other"}}')

    assert 'The Widget "toy" is invalid: spec: Invalid value: "object": uri is immutable' in words


def test_get_shows_the_declared_columns(kubectl: Kubectl) -> None:
    kubectl.apply(toy())
    ready(kubectl)

    plain, wide = kubectl("get", "widgets").splitlines(), kubectl("get", "toys", "-o", "wide").splitlines()

    assert plain[0].split() == ["NAME", "RANK", "READY", "AGE"]
    assert plain[1].split()[:3] == ["toy", "16", "True"]
    assert wide[0].split() == ["NAME", "RANK", "READY", "URI", "AGE"]


def test_wait_sees_a_condition_and_a_field(kubectl: Kubectl) -> None:
    kubectl.apply(toy())
    waiting = threading.Thread(target=ready, args=(kubectl,))

    waiting.start()
    kubectl("wait", "--for=condition=Ready", "wd/toy", "--timeout=60s")
    kubectl("wait", "--for=jsonpath={.status.phase}=Done", "wd/toy", "--timeout=60s")
    waiting.join()


def test_explain_prints_the_descriptions(kubectl: Kubectl) -> None:
    assert "Where it lies." in kubectl("explain", "widget.spec.uri")
    assert "Specifies the number of retries" in kubectl("explain", "job.spec.backoffLimit")


def test_labels_and_annotations_select_and_show(kubectl: Kubectl) -> None:
    kubectl.apply(toy())
    kubectl("label", "wd", "toy", "a=b")
    kubectl("annotate", "wd", "toy", "note=x y")

    assert kubectl("get", "wd", "-l", "a=b", "-o", "name") == "widget.example.com/toy\n"
    assert kubectl("get", "wd", "-l", "a!=b", "-o", "name") == ""
    assert "note: x y" in kubectl("describe", "wd", "toy")


@pytest.mark.parametrize(
    ("kind", "patch"),
    [("merge", '{"spec": {"rank": 3}}'), ("json", '[{"op": "replace", "path": "/spec/rank", "value": 3}]')],
)
def test_patches_change_a_custom_object(kubectl: Kubectl, kind: str, patch: str) -> None:
    kubectl.apply(toy())

    kubectl("patch", "wd", "toy", f"--type={kind}", "-p", patch)

    assert kubectl.get("wd", "toy")["spec"]["rank"] == 3


def test_a_strategic_patch_of_a_custom_object_is_refused(kubectl: Kubectl) -> None:
    kubectl.apply(toy())

    words = kubectl.refusal("patch", "wd", "toy", "--type=strategic", "-p", '{"spec": {"rank": 3}}')

    assert "strategic-merge-patch+json is not supported" in words


def test_a_strategic_patch_of_a_builtin_object_merges(kubectl: Kubectl) -> None:
    kubectl.apply(pod(container("sleep", "60"), name="p", nodeSelector={"room": "nowhere"}))

    kubectl("patch", "pod", "p", "-p", '{"spec": {"containers": [{"name": "main", "image": "busybox:2"}]}}')

    assert kubectl.get("pod", "p")["spec"]["containers"][0]["command"] == ["sleep", "60"]


def test_replace_of_an_older_version_is_a_conflict(kubectl: Kubectl) -> None:
    kubectl.apply(toy())
    old = kubectl.get("wd", "toy")
    kubectl("label", "wd", "toy", "a=b")

    words = kubectl.refusal("replace", "-f", "-", stdin=json.dumps(old))

    assert "the object has been modified; please apply your changes to the latest version and try again" in words


def test_dry_run_and_diff_keep_nothing(kubectl: Kubectl) -> None:
    kubectl.apply(toy())
    wanted = yaml.safe_dump(toy(rank=5))

    kubectl("apply", "--dry-run=server", "-f", "-", stdin=wanted)
    difference = kubectl.run("diff", "-f", "-", stdin=wanted)

    assert "+  rank: 5" in difference.stdout
    assert kubectl.get("wd", "toy")["spec"]["rank"] == 16


def test_create_sends_simple_kinds_as_protocol_buffers(kubectl: Kubectl) -> None:
    kubectl("create", "secret", "generic", "s", "--from-literal=key=value")
    kubectl("create", "configmap", "c", "--from-literal=a=b")
    kubectl("create", "serviceaccount", "sa")

    assert kubectl.get("secret", "s")["data"] == {"key": "dmFsdWU="}
    assert kubectl.get("configmap", "c")["data"] == {"a": "b"}
    assert kubectl.get("serviceaccount", "sa")["metadata"]["name"] == "sa"


def test_a_kind_that_is_not_read_from_protocol_buffers_says_what_to_do(kubectl: Kubectl) -> None:
    words = kubectl.refusal("create", "job", "j", "--image=busybox:1")

    assert "send JSON or YAML (kubectl apply -f)" in words


def test_a_job_runs_logs_and_is_complete(kubectl: Kubectl) -> None:
    kubectl.apply(job(container("sh", "-c", "echo one; echo two")))
    kubectl("wait", "--for=condition=Complete", "job/j", "--timeout=60s")

    assert kubectl("logs", "job/j") == "one\ntwo\n"
    assert kubectl("logs", "job/j", "--tail=1") == "two\n"
    assert kubectl("get", "jobs").splitlines()[1].split()[:3] == ["j", "Complete", "1/1"]
    assert kubectl("get", "pods").splitlines()[1].split()[1:3] == ["0/1", "Completed"]


def test_times_of_log_lines_are_not_kept(kubectl: Kubectl) -> None:
    kubectl.apply(pod(container("true")))
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/p", "--timeout=60s")

    assert "keeps no times of log lines" in kubectl.refusal("logs", "p", "--timestamps")


def test_logs_follow_a_running_container(kubectl: Kubectl) -> None:
    kubectl.apply(pod(container("sh", "-c", "echo up; sleep 0.2; echo down")))
    kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/p", "--timeout=60s")

    assert kubectl("logs", "-f", "p").splitlines() == ["up", "down"]


def test_describe_tells_the_story_of_a_pod(kubectl: Kubectl) -> None:
    kubectl.apply(pod(container("sh", "-c", "exit 3")))
    kubectl("wait", "--for=jsonpath={.status.phase}=Failed", "pod/p", "--timeout=60s")

    story = kubectl("describe", "pod", "p")

    assert "Exit Code:    3" in story
    assert all(reason in story for reason in ("Scheduled", "Created", "Started"))


def test_deleting_a_job_takes_its_pods_along(kubectl: Kubectl) -> None:
    kubectl.apply(job(container("sleep", "60")))
    kubectl("wait", "--for=create", "pod", "-l", "job-name=j", "--timeout=60s")

    kubectl("delete", "job", "j", "--cascade=foreground", "--wait", "--grace-period=0", "--timeout=60s")

    assert kubectl("get", "pods", "-o", "name") == ""


def test_a_cordoned_node_takes_no_pods(kubectl: Kubectl) -> None:
    [node] = kubectl("get", "nodes", "-o", "name").split()
    kubectl("cordon", node)
    kubectl.apply(pod(container("true")))
    kubectl("wait", "--for=jsonpath={.status.conditions[0].reason}=Unschedulable", "pod/p", "--timeout=60s")
    held = kubectl.get("pod", "p")["status"]["conditions"][0]

    kubectl("uncordon", node)
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/p", "--timeout=60s")

    assert "1 node(s) were unschedulable" in held["message"]


def test_get_watch_shows_changes(kubectl: Kubectl) -> None:
    command = [
        KUBECTL,
        "--kubeconfig",
        str(kubectl.kubeconfig),
        "-n",
        kubectl.namespace,
        "get",
        "wd",
        "-w",
        "-o",
        "name",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        kubectl.apply(toy())
        assert watching.stdout is not None
        seen = watching.stdout.readline()
        watching.terminate()

    assert seen == "widget.example.com/toy\n"


def test_who_may_do_what_is_answered(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "delete", "pods") == "yes\n"
    assert "kubernetes-admin" in kubectl("auth", "whoami")


def test_the_server_says_how_it_is(kubectl: Kubectl) -> None:
    assert kubectl("get", "--raw", "/readyz") == "ok"
    assert json.loads(kubectl("get", "--raw", "/version"))["minor"] == "34"
    assert "widgets" in kubectl("api-resources", "--api-group=example.com", "-o", "name")


def test_a_deployment_rolls_out_and_follows_its_template(kubectl: Kubectl) -> None:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [container("sleep", "60")]}}
    body = {"replicas": 2, "selector": {"matchLabels": {"app": "a"}}, "template": template}
    kubectl.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": body})
    kubectl("rollout", "status", "deployment/d", "--timeout=60s")
    before = kubectl("get", "pods", "-o", "name")

    kubectl("set", "env", "deployment/d", "A=b")
    kubectl("rollout", "status", "deployment/d", "--timeout=60s")

    after = kubectl("get", "pods", "--field-selector=status.phase=Running", "-o", "name")
    assert len(before.splitlines()) == 2
    assert not set(before.splitlines()) & set(after.splitlines())
    assert kubectl("get", "deployment", "d").splitlines()[1].split()[1] == "2/2"
