"""The real kubectl against a cluster, for tests."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

KUBECTL = str(Path(sys.executable).with_name("kubectl"))


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster and namespace."""

    kubeconfig: Path
    namespace: str = "default"

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """The finished command, whatever its exit code."""
        command = [KUBECTL, "--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """The output of a command that must succeed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def refusal(self, *arguments: str, stdin: str | None = None) -> str:
        """What a command that must fail says."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} succeeded: {done.stdout}"
        return done.stderr

    def apply(self, *manifests: dict[str, Any], options: tuple[str, ...] = ()) -> str:
        return self("apply", "-f", "-", *options, stdin=yaml.safe_dump_all(manifests))

    def get(self, *arguments: str) -> Any:
        return json.loads(self("get", *arguments, "-o", "json"))
