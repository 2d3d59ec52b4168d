"""API errors in the shape that Kubernetes clients understand: an HTTP code and a `Status` object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Cause:
    """One reason for a refusal: the field's path, the kind of fault and the words for people."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def invalid_value(path: str, value: object, detail: str) -> Cause:
    return Cause(path, "FieldValueInvalid", f"Invalid value: {quoted(value)}: {detail}")


def required(path: str, detail: str = "") -> Cause:
    return Cause(path, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def forbidden(path: str, detail: str) -> Cause:
    return Cause(path, "FieldValueForbidden", f"Forbidden: {detail}")


def unsupported(path: str, value: object, choices: Sequence[object]) -> Cause:
    listed = ", ".join(quoted(choice) for choice in choices)
    return Cause(path, "FieldValueNotSupported", f"Unsupported value: {quoted(value)}: supported values: {listed}")


def quoted(value: object) -> str:
    """The value as Kubernetes prints it: strings in quotes, containers by their type's name."""
    match value:
        case str():
            return '"' + value.replace('"', '\\"') + '"'
        case bool():
            return str(value).lower()
        case dict():
            return '"object"'
        case list():
            return '"array"'
        case None:
            return "null"
        case _:
            return str(value)


@dataclass(eq=False)
class ApiError(Exception):
    """An answer other than success; `status()` is the body that is sent."""

    code: int
    reason: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    def status(self) -> Json:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": dict(self.details),
            "code": self.code,
        }


def _resource_name(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> ApiError:
    details = {"name": name, "group": group, "kind": plural}
    return ApiError(404, "NotFound", f'{_resource_name(group, plural)} "{name}" not found', details)


def already_exists(group: str, plural: str, name: str) -> ApiError:
    details = {"name": name, "group": group, "kind": plural}
    return ApiError(409, "AlreadyExists", f'{_resource_name(group, plural)} "{name}" already exists', details)


def conflict(group: str, plural: str, name: str, detail: str = "") -> ApiError:
    words = detail or ("the object has been modified; please apply your changes to the latest version and try again")
    message = f'Operation cannot be fulfilled on {_resource_name(group, plural)} "{name}": {words}'
    return ApiError(409, "Conflict", message, {"name": name, "group": group, "kind": plural})


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    words = str(causes[0]) if len(causes) == 1 else "[" + ", ".join(str(cause) for cause in causes) + "]"
    subject = f"{kind}.{group}" if group else kind
    details = {
        "name": name,
        "group": group,
        "kind": kind,
        "causes": [{"reason": c.reason, "message": c.message, "field": c.field or "<nil>"} for c in causes],
    }
    return ApiError(422, "Invalid", f'{subject} "{name}" is invalid: {words}', details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def forbidden_request(group: str, plural: str, name: str, detail: str) -> ApiError:
    message = f'{_resource_name(group, plural)} "{name}" is forbidden: {detail}'
    return ApiError(403, "Forbidden", message, {"name": name, "group": group, "kind": plural})


def expired(oldest: int, asked: int) -> ApiError:
    return ApiError(410, "Expired", f"too old resource version: {asked} ({oldest})")


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def unsupported_media_type(seen: str, cure: str) -> ApiError:
    message = f"the body of the request was in an unknown format - {seen}: {cure}"
    return ApiError(415, "UnsupportedMediaType", message)
