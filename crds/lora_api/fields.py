"""Field types used all over the spec: URIs, names, references to Secrets and ConfigMaps, quantities."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from lora_api.base import ApiModel, show
from lora_api.quantity import PATTERN as QUANTITY_PATTERN

MUTABLE: dict[str, Any] = {"x-lora-mutable": True}
"""Marks a field that may change after creation; everything else is immutable."""
FOR_GOOD: dict[str, Any] = {
    **MUTABLE,
    "x-lora-rules": [{"rule": "self || !oldSelf", "message": "cannot be taken back; create a new LoraTraining"}],
}
"""Marks a boolean that may become true after creation, and stays so."""

_SHAPES = {
    "s3": (r"s3://[a-z0-9][a-z0-9.-]+[a-z0-9](/[^?#]*)?", "s3://bucket/prefix"),
    "hf": (r"hf://[A-Za-z0-9._-]+/[A-Za-z0-9._-]+(@[A-Za-z0-9._/-]+)?", "hf://owner/repo or hf://owner/repo@revision"),
    "pvc": (r"pvc://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[^?#]*)?", "pvc://claim/path"),
}
MAX_KEY_LENGTH = 253
"""Of the keys of labels, annotations and resources."""
_LOCAL = (r"file:///[^?#]*", "file:///absolute/path")


@dataclass(frozen=True)
class UriOf:
    """Accepts URIs of some schemes; `file://` only outside a cluster, so only in Python."""

    schemes: tuple[str, ...]

    @property
    def pattern(self) -> str:
        """Regular expression (RE2 and Python) of what a cluster accepts."""
        return "^(" + "|".join(_SHAPES[scheme][0] for scheme in self.schemes) + ")$"

    @property
    def cure(self) -> str:
        """The accepted forms, for the end of a message."""
        return "use " + ", ".join(_SHAPES[scheme][1] for scheme in self.schemes)

    def __call__(self, value: str) -> str:
        if ".." in value.split("/"):
            raise PydanticCustomError("uri", "is {value}, but must not contain '..'", {"value": value})
        if re.match(self.pattern, value) or re.match(f"^{_LOCAL[0]}$", value):
            return value
        cure = f"{self.cure} (or {_LOCAL[1]} with `lora run`)"
        raise PydanticCustomError(
            "uri", "is {value}, which is no URI that works here; {cure}", {"value": show(value), "cure": cure}
        )

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        rules = [
            {"rule": f"self.matches('{self.pattern}')", "message": f"no URI that works here; {self.cure}"},
            {"rule": "!self.matches('(^|/)[.][.](/|$)')", "message": "must not contain '..'; write the whole path"},
        ]
        return {**handler(schema), "x-lora-rules": rules}


@dataclass(frozen=True)
class KeysLike:
    """Accepts maps whose keys have a form; a schema of Kubernetes can say this only by a rule."""

    pattern: str
    """Regular expression (RE2 and Python) of a key."""
    cure: str
    """What a key must be and what to do, for the end of a message."""

    def __call__(self, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if len(key) > MAX_KEY_LENGTH or not re.fullmatch(self.pattern, key):
                told = {"key": key if len(key) <= 80 else key[:77] + "…", "cure": self.cure}
                raise PydanticCustomError("key", "has the key '{key}', but {cure}", told)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        rule = f"self.all(k, size(k) <= {MAX_KEY_LENGTH} && k.matches('{self.pattern}'))"
        return {**handler(schema), "x-lora-rules": [{"rule": rule, "message": self.cure}]}


def _uri(*schemes: str) -> Any:
    return Annotated[str, Field(min_length=6, max_length=1024), UriOf(schemes)]


ReadUri = _uri("s3", "hf", "pvc")
WriteUri = _uri("s3", "pvc")

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
Text = Annotated[str, Field(max_length=1024)]
ShortText = Annotated[str, Field(max_length=253)]
LabelName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""An object's name that a label carries."""
LabelText = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
"""A label's value."""
Quantity = Annotated[str, Field(min_length=1, max_length=32, pattern=QUANTITY_PATTERN)]
LearningRate = Annotated[float, Field(ge=0.0, le=10.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Pixels = Annotated[int, Field(ge=64, le=4096, multiple_of=8)]


class SecretRef(ApiModel):
    """A Secret of the same namespace, mounted into the pod as files; the operator never reads it."""

    name: ObjectName
    """Name of the Secret in the namespace of the LoraTraining."""


class SecretKeyRef(ApiModel):
    """One key of a Secret of the same namespace."""

    name: ObjectName
    """Name of the Secret in the namespace of the LoraTraining."""
    key: ShortText
    """Key inside the Secret."""


class ConfigMapKeyRef(ApiModel):
    """One key of a ConfigMap of the same namespace."""

    name: ObjectName
    """Name of the ConfigMap in the namespace of the LoraTraining."""
    key: ShortText
    """Key inside the ConfigMap."""
