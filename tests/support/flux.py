"""How Flux judges an object by a Kustomization's `healthCheckExprs`, for tests.

Each top-level field of the object is a variable. After the generation, `inProgress`, `failed` and `current` are asked,
in this order (github.com/fluxcd/flux2/tree/main/rfcs/0009-custom-health-checks). What cannot be evaluated is in
progress.
"""

from pathlib import Path
from typing import Any

import yaml
from cel_expr_python import cel

Manifest = dict[str, Any]
VARIABLES = ("apiVersion", "kind", "metadata", "spec", "status")


class HealthChecks:
    """The expressions of one Kustomization for one kind."""

    def __init__(self, entry: Manifest) -> None:
        environment = cel.NewEnv(variables=dict.fromkeys(VARIABLES, cel.Type.DYN))
        words = ("inProgress", "failed", "current")
        self._programs = {word: environment.compile(entry[word]) for word in words if word in entry}

    @classmethod
    def of_file(cls, path: Path, kind: str) -> "HealthChecks":
        """Those of a Kustomization's file."""
        entries = yaml.safe_load(path.read_text())["spec"]["healthCheckExprs"]
        (entry,) = [found for found in entries if found["kind"] == kind]
        return cls(entry)

    def judge(self, body: Manifest) -> str:
        """InProgress, Failed or Current."""
        meta, status = body["metadata"], body.get("status") or {}
        if status.get("observedGeneration", meta.get("generation")) != meta.get("generation"):
            return "InProgress"
        for word, program in self._programs.items():
            if program.eval(data=body).value() is True:
                return word[0].upper() + word[1:]
        return "InProgress"
