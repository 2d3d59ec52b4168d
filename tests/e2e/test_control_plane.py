"""The control plane through kubectl: on the laptop-sized cluster always, and on the one that
LORA_E2E_KUBECONFIG names as well. Installs the CRD, works in a namespace of its own, and removes both."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_demo.processes import wait_until
from lora_devcluster import ThreadedCluster
from tests.support.documents import make_document

ROOT = Path(__file__).resolve().parents[2]
REAL_CLUSTER = os.environ.get("LORA_E2E_KUBECONFIG")
PROFILES = {"default": {"image": "lora-trainer:e2e", "command": ["sleep"]}}


@dataclass(frozen=True)
class Session:
    """kubectl in a namespace of its own."""

    kubeconfig: str
    namespace: str

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        kubectl = str(Path(sys.executable).parent / "kubectl")
        command = [kubectl, "--kubeconfig", self.kubeconfig, "--namespace", self.namespace, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)

    def must(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self.must("get", *arguments, "-o", "json"))

    def apply(self, name: str, *changes: tuple[str, Any]) -> subprocess.CompletedProcess[str]:
        document = make_document(*changes, name=name)
        document["metadata"]["namespace"] = self.namespace
        return self.run("apply", "-f", "-", stdin=json.dumps(document))

    def condition(self, name: str, kind: str, *, reason: str, seconds: float = 30) -> dict[str, Any]:
        """The condition once it has this reason."""

        def current() -> dict[str, Any]:
            conditions = self.get("lt", name).get("status", {}).get("conditions", ())
            return next((c for c in conditions if c["type"] == kind), {})

        wait_until(lambda: current().get("reason") == reason, f"{kind} with reason {reason}", seconds=seconds)
        return current()


@pytest.fixture(
    scope="module",
    params=["laptop", pytest.param("real", marks=pytest.mark.cluster)] if REAL_CLUSTER else ["laptop"],
)
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    if request.param == "real":
        yield from namespace_of_our_own(str(REAL_CLUSTER))
        return
    with ThreadedCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield from namespace_of_our_own(str(cluster.kubeconfig))


def namespace_of_our_own(kubeconfig: str) -> Iterator[Session]:
    session = Session(kubeconfig, f"lora-e2e-{uuid.uuid4().hex[:8]}")
    session.must("apply", "--server-side", "-f", str(ROOT / "crds" / "loratrainings.yaml"))
    session.must("wait", "--for=condition=Established", "crd/loratrainings.lora-operator.io", "--timeout=60s")
    session.must("create", "namespace", session.namespace)
    try:
        yield session
    finally:
        session.run("delete", "namespace", session.namespace, "--wait=false")


@pytest.fixture(scope="module")
def operator(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    profiles = tmp_path_factory.mktemp("operator") / "profiles.yaml"
    profiles.write_text(yaml.safe_dump(PROFILES))
    environment = {
        **os.environ,
        "KUBECONFIG": session.kubeconfig,
        "LORA_NAMESPACES": session.namespace,
        "LORA_PROFILES_FILE": str(profiles),
        "LORA_HTTP_ADDRESS": "127.0.0.1",
        "LORA_HTTP_PORT": "0",
    }
    process = subprocess.Popen([sys.executable, "-m", "lora_operator"], env=environment)
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_the_definition_explains_every_level(session: Session) -> None:
    said = session.must("explain", "loratrainings.spec.network.rank", "--api-version=lora-operator.io/v1alpha1")

    assert "Size of the adapter (kohya's network_dim)" in said


def test_defaults_are_written_into_the_stored_object(session: Session) -> None:
    assert session.apply("defaults").returncode == 0

    spec = session.get("lt", "defaults")["spec"]
    assert spec["network"] == {
        "type": "lora",
        "rank": 16,
        "dropout": 0,
        "rankDropout": 0,
        "moduleDropout": 0,
        "unet": True,
        "textEncoder": True,
        "blocks": [],
    }
    assert spec["dataset"]["captions"]["maxTokens"] == 75
    assert spec["optimizer"]["schedule"] == {"name": "constant", "warmupSteps": 0, "pieces": []}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("network.rnak", 4), 'unknown field "spec.network.rnak"'),
        (("network.rank", 5000), "should be less than or equal to 1024"),
        (("training.epochs", "10"), "must be of type integer"),
        (("dataset.subsets", [{"uri": "s3://b/x"}]), "exactly one of uri and subsets must be set"),
        (("dataset.uri", "ftp://a/b"), "use s3://bucket/prefix"),
        (("training.compile", True), "not supported yet; leave it out or use false"),
        (("evaluation", {"grid": {"seed": 1, "seeds": [2]}}), "seed and seeds exclude each other; keep one"),
        (("network.convRank", 4), "use type locon"),
        (("optimizer.name", "prodigy"), "set it to about 1"),
        (("storage", {"anonymous": True, "credentialsSecretRef": {"name": "s"}}), "exclude each other"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_bad_input_is_refused_by_the_server_with_the_cure(session: Session, change: tuple[str, Any], said: str) -> None:
    done = session.apply("refused", change)

    assert done.returncode == 1
    assert said in done.stderr


def test_what_changes_the_result_is_immutable(session: Session) -> None:
    session.apply("immutable")

    assert (
        "spec.network is immutable; create a new LoraTraining" in session.apply("immutable", ("network.rank", 4)).stderr
    )
    assert session.apply("immutable", ("retry", {"maxFailures": 0})).returncode == 0


def test_an_accepted_training_gets_one_job_of_its_own(session: Session, operator: subprocess.Popen[bytes]) -> None:
    session.apply("accepted")
    session.condition("accepted", "Accepted", reason="Valid")

    jobs = session.get("jobs", "--selector=lora-operator.io/training=accepted")["items"]
    owner = session.get("lt", "accepted")["metadata"]["uid"]
    # It asks for a GPU, so its data are checked first.
    assert [job["metadata"]["name"] for job in jobs] == ["accepted-data"]
    assert [reference["uid"] for reference in jobs[0]["metadata"]["ownerReferences"]] == [owner]
    assert jobs[0]["spec"]["completionMode"] == "Indexed"


def test_an_unknown_profile_is_told_and_starts_nothing(session: Session, operator: subprocess.Popen[bytes]) -> None:
    session.apply("no-profile", ("profile", "a100"))

    condition = session.condition("no-profile", "Accepted", reason="ProfileNotFound")
    assert condition["status"] == "False"
    assert "a100" in condition["message"]
    assert session.get("jobs", "--selector=lora-operator.io/training=no-profile")["items"] == []


def test_suspending_reaches_the_job(session: Session, operator: subprocess.Popen[bytes]) -> None:
    session.apply("paused", ("suspend", True))

    session.condition("paused", "Suspended", reason="UserRequested")
    jobs = session.get("jobs", "--selector=lora-operator.io/training=paused")["items"]
    assert all(job["spec"]["suspend"] for job in jobs)


def test_deleting_takes_the_children_along(session: Session, operator: subprocess.Popen[bytes]) -> None:
    session.apply("gone")
    session.condition("gone", "Accepted", reason="Valid")

    session.must("delete", "lt", "gone")
    session.must("wait", "--for=delete", "job/gone-a1", "--timeout=60s")
    assert session.run("get", "configmap", "gone-spec").returncode == 1
