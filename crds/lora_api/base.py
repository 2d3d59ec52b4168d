"""What every model of the API shares: camelCase, frozen, closed, and rules that hold in Python and in CEL."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema


@dataclass(frozen=True)
class Rule:
    """A rule over several fields of one object, said twice: for the API server (CEL) and for Python.

    `holds` gets the model; `cel` sees the same object as `self`. A test runs both on the same inputs.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]


class ApiModel(BaseModel):
    """Frozen, closed model whose attribute docstrings become the documentation of the fields."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        if not self.rules:
            return self
        # A message is data: braces in it must not be read as a template.
        broken = [
            InitErrorDetails(type=PydanticCustomError("rule", "{message}", {"message": rule.message}), input=None)
            for rule in self.rules
            if not rule.holds(self)
        ]
        if broken:
            raise ValidationError.from_exception_data(type(self).__name__, broken)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        if cls.rules:
            handler.resolve_ref_schema(json_schema)["x-lora-rules"] = [
                {"rule": rule.cel, "message": rule.message} for rule in cls.rules
            ]
        return json_schema

    def to_document(self) -> dict[str, Any]:
        """Plain JSON types under the names that a YAML file uses; unset optional fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True)
class Supported:
    """Marks a field of which only some values have an effect today; the others are refused, never ignored."""

    values: tuple[Any, ...]

    def __call__(self, value: Any) -> Any:
        if value in self.values or value is None:
            return value
        raise PydanticCustomError(
            "not_supported_yet",
            "is {value}, which is not supported yet; {cure}",
            {"value": show(value), "cure": self.cure},
        )

    @property
    def cure(self) -> str:
        """What to write instead, for the end of a message."""
        if not self.values:
            return "remove it"
        shown = " or ".join(show(value) for value in self.values)
        return f"leave it out or use {shown}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "x-lora-supported": list(self.values), "x-lora-cure": self.cure}


def supported(*values: Any) -> Supported:
    """Annotation for a field of which only `values` (none: not even one) work today."""
    return Supported(values)


def show(value: object) -> str:
    """A value as a user would type it in YAML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, BaseModel):
        return "set"
    if isinstance(value, (tuple, list, dict)):
        return "set" if value else "empty"
    return "null" if value is None else str(value)
