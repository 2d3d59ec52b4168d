"""CEL types of schemas, so that a rule is type-checked as strictly as an API server does it.

Objects become protocol-buffer messages made at run time: only those give CEL the type of each field. Used by `cel`.
"""

import re

from cel_expr_python import cel
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from lora_devcluster.errors import Json

_PACKAGE = "schema"
_SCALARS = {
    "string": (Field.TYPE_STRING, cel.Type.STRING),
    "integer": (Field.TYPE_INT64, cel.Type.INT),
    "number": (Field.TYPE_DOUBLE, cel.Type.DOUBLE),
    "boolean": (Field.TYPE_BOOL, cel.Type.BOOL),
}
_FORMATS = {"date": "Timestamp", "date-time": "Timestamp", "datetime": "Timestamp", "duration": "Duration"}
_ESCAPES = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))
_RESERVED = {
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return", "var", "void", "while",
}  # fmt: skip
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def escaped(name: str) -> str | None:
    """A field's name as CEL spells it, or None when CEL cannot reach it."""
    if name in _RESERVED:
        return f"__{name}__"
    for plain, word in _ESCAPES:
        name = name.replace(plain, word)
    return name if _IDENTIFIER.fullmatch(name) else None


def is_dynamic(schema: Json) -> bool:
    """Whether the schema says too little for a static type."""
    if schema.get("x-kubernetes-int-or-string"):
        return True
    kind = schema.get("type")
    untyped_object = kind == "object" and not schema.get("properties") and not schema.get("additionalProperties")
    return kind is None or (untyped_object and bool(schema.get("x-kubernetes-preserve-unknown-fields")))


class TypeBook:
    """Makes the CEL types of one schema tree; `pool()` holds the messages that they refer to."""

    def __init__(self) -> None:
        self._file = descriptor_pb2.FileDescriptorProto(name="schema.proto", package=_PACKAGE, syntax="proto3")
        self._file.dependency.extend(
            ["google/protobuf/struct.proto", "google/protobuf/timestamp.proto", "google/protobuf/duration.proto"]
        )

    def pool(self) -> descriptor_pool.DescriptorPool:
        pool = descriptor_pool.DescriptorPool()
        for module in (struct_pb2, timestamp_pb2, duration_pb2):
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        pool.AddSerializedFile(self._file.SerializeToString())
        return pool

    def type_of(self, schema: Json) -> cel.Type:
        """The CEL type of values that fit the schema."""
        if is_dynamic(schema):
            return cel.Type.DYN
        kind = schema["type"]
        if kind == "array":
            return cel.Type.List(self.type_of(schema["items"]))
        if kind == "object":
            additional = schema.get("additionalProperties")
            if isinstance(additional, dict):
                return cel.Type.Map(cel.Type.STRING, self.type_of(additional))
            return cel.Type(self._message(schema))
        if kind == "string" and schema.get("format") == "byte":
            return cel.Type.BYTES
        special = _FORMATS.get(schema.get("format", "")) if kind == "string" else None
        if special:
            return cel.Type.TIMESTAMP if special == "Timestamp" else cel.Type.DURATION
        return _SCALARS[kind][1]

    def _message(self, schema: Json) -> str:
        message = self._file.message_type.add(name=f"Object{len(self._file.message_type)}")
        for name, child in (schema.get("properties") or {}).items():
            spelled = escaped(name)
            if spelled is not None:
                number = len(message.field) + 1
                self._add_field(message, Field(name=spelled, number=number, label=Field.LABEL_OPTIONAL), child)
        return f"{_PACKAGE}.{message.name}"

    def _add_field(self, message: descriptor_pb2.DescriptorProto, field: Field, schema: Json) -> None:
        additional = schema.get("additionalProperties")
        if not is_dynamic(schema) and schema["type"] == "array":
            field.label = Field.LABEL_REPEATED
            self._set_type(field, schema["items"])
        elif not is_dynamic(schema) and schema["type"] == "object" and isinstance(additional, dict):
            field.label, field.type = Field.LABEL_REPEATED, Field.TYPE_MESSAGE
            field.type_name = self._map_entry(message, field.name, additional)
        else:
            self._set_type(field, schema)
        message.field.append(field)

    def _map_entry(self, message: descriptor_pb2.DescriptorProto, name: str, values: Json) -> str:
        # protoc derives an entry's name from the field's, and readers of descriptors check it.
        camel = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
        entry = message.nested_type.add(name=f"{camel}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
        value = Field(name="value", number=2, label=Field.LABEL_OPTIONAL)
        self._set_type(value, values)
        entry.field.append(value)
        return f".{_PACKAGE}.{message.name}.{entry.name}"

    def _set_type(self, field: Field, schema: Json) -> None:
        """Lists and maps inside lists or maps have no protocol-buffer type: they stay dynamic."""
        kind = schema.get("type")
        special = _FORMATS.get(schema.get("format", "")) if kind == "string" else None
        nested = kind == "array" or (kind == "object" and isinstance(schema.get("additionalProperties"), dict))
        if is_dynamic(schema) or nested:
            field.type, field.type_name = Field.TYPE_MESSAGE, ".google.protobuf.Value"
        elif special:
            field.type, field.type_name = Field.TYPE_MESSAGE, f".google.protobuf.{special}"
        elif kind == "object":
            field.type, field.type_name = Field.TYPE_MESSAGE, "." + self._message(schema)
        elif kind == "string" and schema.get("format") == "byte":
            field.type = Field.TYPE_BYTES
        else:
            field.type = _SCALARS[str(kind)][0]
