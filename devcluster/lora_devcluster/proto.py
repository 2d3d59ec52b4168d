"""Protocol-buffer bodies that kubectl and helm send for a few simple kinds, decoded without generated code.

https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
"""

import base64
from collections.abc import Callable, Iterator
from typing import Any

from lora_devcluster.errors import Json, bad_request, unsupported_media_type

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
Fields = dict[int, list[Any]]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _records(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            size, at = _varint(data, at)
            yield number, data[at : at + size]
            at += size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield number, data[at : at + size]
            at += size
        else:
            raise bad_request(f"protobuf: wire type {wire} is not known")


def message(data: bytes) -> Fields:
    """The fields of a message by number, each with every value it holds."""
    found: Fields = {}
    for number, value in _records(data):
        found.setdefault(number, []).append(value)
    return found


def _text(fields: Fields, number: int) -> str:
    return fields[number][0].decode() if number in fields else ""


def _mapping(fields: Fields, number: int, convert: Callable[[bytes], str] = bytes.decode) -> dict[str, str]:
    entries = [message(entry) for entry in fields.get(number, ())]
    return {_text(entry, 1): convert(entry.get(2, [b""])[0]) for entry in entries}


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _owner(data: bytes) -> Json:
    fields = message(data)
    names = {"kind": 1, "name": 3, "uid": 4, "apiVersion": 5}
    owner: Json = {name: _text(fields, number) for name, number in names.items()}
    owner |= {
        name: bool(fields[number][0])
        for name, number in (("controller", 6), ("blockOwnerDeletion", 7))
        if number in fields
    }
    return owner


def _metadata(data: bytes) -> Json:
    fields = message(data)
    texts = {"name": 1, "generateName": 2, "namespace": 3, "uid": 5, "resourceVersion": 6}
    meta: Json = {name: _text(fields, number) for name, number in texts.items()}
    meta["labels"], meta["annotations"] = _mapping(fields, 11), _mapping(fields, 12)
    meta["ownerReferences"] = [_owner(owner) for owner in fields.get(13, ())]
    meta["finalizers"] = [name.decode() for name in fields.get(14, ())]
    return {name: value for name, value in meta.items() if value}


def _secret(fields: Fields) -> Json:
    body: Json = {"data": _mapping(fields, 2, _encoded), "type": _text(fields, 3), "stringData": _mapping(fields, 4)}
    return body | ({"immutable": bool(fields[5][0])} if 5 in fields else {})


def _config_map(fields: Fields) -> Json:
    body: Json = {"data": _mapping(fields, 2), "binaryData": _mapping(fields, 3, _encoded)}
    return body | ({"immutable": bool(fields[4][0])} if 4 in fields else {})


def _service_account(fields: Fields) -> Json:
    return {"automountServiceAccountToken": bool(fields[4][0])} if 4 in fields else {}


def _delete_options(fields: Fields) -> Json:
    body: Json = {"propagationPolicy": _text(fields, 4), "dryRun": [text.decode() for text in fields.get(5, ())]}
    if 1 in fields:
        body["gracePeriodSeconds"] = fields[1][0]
    if 2 in fields:
        conditions = message(fields[2][0])
        body["preconditions"] = {"uid": _text(conditions, 1), "resourceVersion": _text(conditions, 2)}
    return body


_KINDS: dict[str, Callable[[Fields], Json]] = {
    "Secret": _secret,
    "ConfigMap": _config_map,
    "ServiceAccount": _service_account,
    "Namespace": lambda _fields: {},
}


def decode(body: bytes) -> Json:
    """The object in a protocol-buffer body.

    Raises:
        ApiError: 400 for a body that is none, 415 for a kind that is not decoded.
    """
    if not body.startswith(_MAGIC):
        raise bad_request("the body does not start with the prefix of Kubernetes' protocol buffers")
    envelope = message(body[len(_MAGIC) :])
    kind_fields = message(envelope[1][0])
    api_version, kind = _text(kind_fields, 1), _text(kind_fields, 2)
    if kind == "DeleteOptions":
        return _delete_options(message(envelope.get(2, [b""])[0]))
    if kind not in _KINDS or api_version != "v1":
        words = f"{api_version} {kind} is not read from protocol buffers here; send JSON or YAML (kubectl apply -f)"
        raise unsupported_media_type(MEDIA_TYPE, words)
    fields = message(envelope.get(2, [b""])[0])
    content = {name: value for name, value in _KINDS[kind](fields).items() if value not in ({}, "")}
    meta = _metadata(fields[1][0]) if 1 in fields else {}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **content}
