"""ValidatingAdmissionPolicies judged as the API server judges them, by a real CEL evaluator.

https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cel_expr_python import cel

Manifest = dict[str, Any]
_LIBRARIES = "extensions: [{name: strings}, {name: lists}, {name: sets}, {name: math}, {name: optional}]"
_INPUTS = ("object", "oldObject", "request", "namespaceObject")


@dataclass(frozen=True)
class Validation:
    """One check of a policy, compiled."""

    program: cel.Expression
    message: str


@dataclass(frozen=True)
class Policy:
    """One ValidatingAdmissionPolicy with its binding."""

    name: str
    documents: tuple[Manifest, Manifest]
    operations: tuple[str, ...]
    validations: tuple[Validation, ...]

    def refusals(
        self, body: Manifest, *, operation: str = "CREATE", namespace: Manifest | None = None
    ) -> tuple[str, ...]:
        """The messages of the checks that the object fails; one that cannot be evaluated fails."""
        if operation not in self.operations:
            return ()
        data = {"object": body, "namespaceObject": namespace or {"metadata": {"name": "ml"}}}
        return tuple(self._failing(data | {"oldObject": None, "request": {"operation": operation}}))

    def _failing(self, data: Manifest) -> Iterator[str]:
        for validation in self.validations:
            outcome = validation.program.eval(data=data)
            if outcome.type() in (cel.Type.ERROR, cel.Type.UNKNOWN):
                yield f"{outcome.value()}"
            elif outcome.value() is not True:
                yield validation.message


def load_policy(path: Path) -> Policy:
    """The policy in a file of a policy and its binding. Raises what the compiler raises."""
    policy, binding = yaml.safe_load_all(path.read_text("utf-8"))
    [rule] = policy["spec"]["matchConstraints"]["resourceRules"]
    assert (rule["apiGroups"], rule["resources"]) == (["lora-operator.io"], ["loratrainings"])
    environment = cel.NewEnv(
        config=cel.NewEnvConfigFromYaml(_LIBRARIES), variables=dict.fromkeys(_INPUTS, cel.Type.DYN)
    )
    variables: dict[str, str] = {}
    for variable in policy["spec"].get("variables", ()):
        variables[variable["name"]] = _inlined(variable["expression"], variables)
    validations = [
        Validation(environment.compile(_inlined(entry["expression"], variables)), entry["message"])
        for entry in policy["spec"]["validations"]
    ]
    return Policy(policy["metadata"]["name"], (policy, binding), tuple(rule["operations"]), tuple(validations))


def _inlined(expression: str, variables: dict[str, str]) -> str:
    """The expression with each variable's own in its place: the server evaluates them when they are first needed."""
    return re.sub(r"\bvariables\.(\w+)", lambda found: f"({variables[found[1]]})", expression)
