"""The real helm: its binary, and a small chart through its whole life."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lora_devcluster import helm
from tests.support.devcluster import container
from tests.support.kubectl import Kubectl

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{ .Release.Name }}"}
spec:
  replicas: 1
  selector: {matchLabels: {app: "{{ .Release.Name }}"}}
  template:
    metadata: {labels: {app: "{{ .Release.Name }}"}}
    spec:
      containers:
        - %s
"""
CONFIG = (
    'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "{{ .Release.Name }}"}\ndata: {word: "{{ .Values.word }}"}\n'
)

Helm = Callable[..., str]


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    folder = tmp_path / "chart"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": "tiny", "version": "0.1.0"}))
    (folder / "values.yaml").write_text("word: first\n")
    one = yaml.safe_dump(container("sleep", "60"), default_flow_style=True).strip()
    (folder / "templates" / "deployment.yaml").write_text(DEPLOYMENT % one)
    (folder / "templates" / "config.yaml").write_text(CONFIG)
    return folder


@pytest.fixture
def run_helm(kubectl: Kubectl, tmp_path: Path) -> Helm:
    homes = {f"HELM_{kind}_HOME": str(tmp_path / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    environment = {**os.environ, **homes, "KUBECONFIG": str(kubectl.kubeconfig)}

    def run(*arguments: str) -> str:
        command = [str(helm.helm_binary()), *arguments, "--namespace", kubectl.namespace]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_a_release_is_installed_upgraded_rolled_back_and_removed(kubectl: Kubectl, run_helm: Helm, chart: Path) -> None:
    run_helm("install", "r", str(chart), "--wait", "--timeout", "30s")
    words = [kubectl.get("configmap", "r")["data"]["word"]]
    ready = kubectl.get("deployment", "r")["status"]["readyReplicas"]
    for arguments in (("upgrade", "r", str(chart), "--set", "word=second"), ("rollback", "r", "1")):
        run_helm(*arguments)
        words.append(kubectl.get("configmap", "r")["data"]["word"])
    listed = run_helm("list")
    run_helm("uninstall", "r", "--wait", "--timeout", "30s")

    assert (words, ready, "deployed" in listed) == (["first", "second", "first"], 1, True)
    assert kubectl("get", "deployments,pods", "-o", "name") == ""


def test_the_binary_is_unpacked_once(tmp_path: Path) -> None:
    first = helm.helm_binary(tmp_path)
    stamp = first.stat().st_mtime_ns

    assert helm.helm_binary(tmp_path).stat().st_mtime_ns == stamp
    assert os.access(first, os.X_OK)


def test_a_missing_package_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helm, "PACKAGE", "no-such-package-here")

    with pytest.raises(helm.HelmError, match="pip install --no-deps no-such-package-here"):
        helm.helm_binary()
