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
    conditions: tuple[cel.Expression, ...]
    """All must hold, or the object is not looked at."""
    validations: tuple[Validation, ...]

    def refusals(
        self, body: Manifest, *, old: Manifest | None = None, namespace: Manifest | None = None
    ) -> tuple[str, ...]:
        """The messages of the checks that the object fails, new or instead of `old`; what has no value fails."""
        operation = "CREATE" if old is None else "UPDATE"
        if operation not in self.operations:
            return ()
        data: Manifest = {"object": body, "namespaceObject": namespace or {"metadata": {"name": "ml"}}}
        data |= {"oldObject": old, "request": {"operation": operation}}
        if any(condition.eval(data=data).value() is False for condition in self.conditions):
            return ()
        return tuple(self._failing(data))

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
    conditions = [environment.compile(entry["expression"]) for entry in policy["spec"].get("matchConditions", ())]
    return Policy(
        policy["metadata"]["name"],
        (policy, binding),
        operations=tuple(rule["operations"]),
        conditions=tuple(conditions),
        validations=tuple(validations),
    )


def _inlined(expression: str, variables: dict[str, str]) -> str:
    """The expression with each variable's own in its place: the server evaluates them when they are first needed."""
    return re.sub(r"\bvariables\.(\w+)", lambda found: f"({variables[found[1]]})", expression)
