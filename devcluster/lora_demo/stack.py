"""The demo's installation: cluster, object store, CRD and operator, ready for `kubectl apply`."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml

from lora_demo.processes import Child, DemoError, running, wait_until
from lora_demo.seaweed import ObjectStore, seaweed
from lora_devcluster.helm import helm_binary

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "lora-operator"
BUCKET = "lora"
NAMESPACE = "ml"
SYSTEM_NAMESPACE = "lora-system"
IMAGES = {"lora-operator:*": "python -m lora_operator", "lora-trainer:*": "python -m lora_trainer"}


@dataclass(frozen=True)
class Stack:
    """A running installation and the tools to talk to it."""

    directory: Path
    kubeconfig: Path
    store: ObjectStore
    cluster: Child

    @property
    def environment(self) -> dict[str, str]:
        """The environment of kubectl and helm; Kubernetes' own variables of this shell do not count."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "HELM_"))}
        home = str(self.directory / "helm")
        return {**kept, "KUBECONFIG": str(self.kubeconfig), "HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home}

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """What kubectl prints. Raises DemoError with its message when it fails."""
        return _call([_program("kubectl"), *arguments], self.environment, stdin)

    def get(self, *arguments: str) -> Any:
        """The JSON that `kubectl get … -o json` prints."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def helm(self, *arguments: str | Path) -> str:
        """What helm prints. Raises DemoError with its message when it fails."""
        return _call([helm_binary(), *arguments], self.environment, None)

    def s3(self) -> Any:
        """A client of the object store."""
        return boto3.client(
            "s3",
            endpoint_url=self.store.endpoint,
            aws_access_key_id=self.store.access_key,
            aws_secret_access_key=self.store.secret_key,
            region_name="us-east-1",
        )


def _program(name: str) -> Path:
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise DemoError(f"the program '{name}' is missing beside {sys.executable}; run `make setup`")
    return path


def _call(command: list[str | Path], environment: dict[str, str], stdin: str | None) -> str:
    words = [str(part) for part in command]
    done = subprocess.run(words, env=environment, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join([Path(words[0]).name, *words[1:]])
        raise DemoError(f"`{shown}` failed with exit code {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[tuple[Child, Path]]:
    """A laptop-sized cluster with one GPU that is none, and its kubeconfig."""
    kubeconfig = directory / "kubeconfig"
    command: list[str | Path] = [sys.executable, "-m", "lora_devcluster", "serve", "--dir", directory, "--gpus", "1"]
    for image, program in IMAGES.items():
        command += ["--image", f"{image}={program}"]
    kubeconfig.unlink(missing_ok=True)
    with running("cluster", command, log_dir=directory) as child:
        wait_until(kubeconfig.exists, "the cluster's start", seconds=60, child=child)
        yield child, kubeconfig


@contextlib.contextmanager
def installed_stack(directory: Path) -> Iterator[Stack]:
    """Cluster, store and operator for the time of the `with` block; state and logs lie in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    with seaweed(directory / "objects", directory) as store, cluster(directory) as (child, kubeconfig):
        stack = Stack(directory, kubeconfig, store, child)
        install(stack)
        yield stack


def install(stack: Stack) -> None:
    """Namespace, Secret, CRD and operator, by the same steps as on a real cluster."""
    values = stack.directory / "values.yaml"
    values.write_text(yaml.safe_dump(_values(stack.store)))
    stack.kubectl("create", "namespace", NAMESPACE)
    stack.kubectl(
        "create", "secret", "generic", "s3", f"--namespace={NAMESPACE}",
        f"--from-literal=AWS_ACCESS_KEY_ID={stack.store.access_key}",
        f"--from-literal=AWS_SECRET_ACCESS_KEY={stack.store.secret_key}",
    )  # fmt: skip
    stack.helm(
        "install", "lora-operator", CHART, "--namespace", SYSTEM_NAMESPACE, "--create-namespace", "--values", values
    )
    deployment = ["deployment/lora-operator", f"--namespace={SYSTEM_NAMESPACE}"]
    stack.kubectl("wait", *deployment, "--for=condition=Available", "--timeout=60s")


def _values(store: ObjectStore) -> dict[str, Any]:
    return {
        "operator": {"progressIntervalSeconds": 1, "listenAddress": "$(POD_IP)"},
        "profiles": {
            "default": {
                "storage": {
                    "endpoint": store.endpoint,
                    "region": "us-east-1",
                    "credentialsSecretRef": {"name": "s3"},
                }
            }
        },
    }


def upload(stack: Stack, source: Path, prefix: str) -> int:
    """Copies the files below `source` into the bucket under `prefix`; how many they were."""
    client = stack.s3()
    if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=BUCKET)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    for path in files:
        client.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(source).as_posix()}")
    return len(files)


def operator_metrics_url(stack: Stack) -> str:
    """Where the operator's metrics are served: by the pod that holds the Lease, as the others stand by."""
    lease = stack.get("lease", "lora-operator", f"--namespace={SYSTEM_NAMESPACE}")
    name = lease["spec"].get("holderIdentity", "").partition("_")[0]
    if not name:
        raise DemoError("no operator leads; see `kubectl get pods,leases --all-namespaces`")
    pod = stack.get("pod", name, f"--namespace={SYSTEM_NAMESPACE}")
    return f"http://{pod['status']['podIP']}:8080/metrics"
