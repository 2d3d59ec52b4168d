"""Helm and kubectl against a laptop-sized cluster, with the packaged chart."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.chart import CHART, Manifest, Values, helm

RELEASE, NAMESPACE = "lora-operator", "lora-system"
NEW_COLUMN = "New"
_COLUMNS = "    additionalPrinterColumns:\n"
_ONE_MORE = f"    - {{name: {NEW_COLUMN}, type: string, jsonPath: .metadata.name}}\n"
_KUBECTL = str(Path(sys.executable).with_name("kubectl"))


def pack(folder: Path, version: str, chart: Path = CHART) -> Path:
    """The chart in `folder` as a release would be, under this version."""
    command = [helm(), "package", str(chart), "--version", version, "--destination", str(folder)]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    return folder / f"lora-operator-{version}.tgz"


def pack_with_column(folder: Path, version: str) -> Path:
    """The same with a definition that has one more column, NEW_COLUMN."""
    chart = folder / f"chart-{version}"
    shutil.copytree(CHART, chart)
    definition = chart / "files" / "loratrainings.yaml"
    definition.write_text(definition.read_text().replace(_COLUMNS, _COLUMNS + _ONE_MORE, 1))
    return pack(folder, version, chart)


@dataclass(frozen=True)
class Installer:
    """The tools for one cluster; everything that they keep lies in `folder`."""

    folder: Path
    kubeconfig: Path

    @property
    def environment(self) -> dict[str, str]:
        homes = {f"HELM_{kind}_HOME": str(self.folder / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
        return {**os.environ, **homes, "KUBECONFIG": str(self.kubeconfig)}

    def run(self, *command: str, text: str = "") -> str:
        """The output of a command that must succeed."""
        done = subprocess.run(
            command, env=self.environment, input=text, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def kubectl(self, *arguments: str) -> str:
        return self.run(_KUBECTL, *arguments)

    def get(self, *arguments: str) -> Manifest:
        """What kubectl finds, as a document."""
        found: Manifest = json.loads(self.kubectl("get", *arguments, "--output=json"))
        return found

    def apply(self, *manifests: Manifest) -> None:
        self.run(_KUBECTL, "apply", "--filename=-", text=yaml.safe_dump_all(manifests))

    def install(self, package: Path, values: Values) -> str:
        """Waits until the operator is ready."""
        return self._helm("install", RELEASE, str(package), "--wait", values=values)

    def upgrade(self, package: Path, values: Values) -> str:
        return self._helm("upgrade", RELEASE, str(package), "--wait", values=values)

    def test(self) -> str:
        return self._helm("test", RELEASE)

    def hooks(self) -> str:
        """The manifests of the objects that `helm test` makes."""
        return self._helm("get", "hooks", RELEASE)

    def uninstall(self) -> str:
        """Waits until the operators have ended."""
        told = self._helm("uninstall", RELEASE, "--wait")
        selector = f"--selector=app.kubernetes.io/instance={RELEASE}"
        self.kubectl("wait", "pods", "--all-namespaces", selector, "--for=delete", "--timeout=60s")
        return told

    def _helm(self, *arguments: str, values: Values | None = None) -> str:
        given = ["--values", "-"] if values is not None else []
        patience = [] if arguments[0] == "get" else ["--timeout", "300s"]
        options = ["--namespace", NAMESPACE, *patience, *given]
        return self.run(helm(), *arguments, *options, text=yaml.safe_dump(values or {}))
