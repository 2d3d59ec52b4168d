"""What names, labels and annotations may look like. Used by validation of every kind."""

import re
from collections.abc import Iterator

from lora_devcluster.errors import Cause, Json, forbidden, invalid_value, required

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_PATH_UNSAFE = re.compile(r"[/%]")

LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_ANNOTATIONS_LIMIT = 256 * 1024
_LABEL_NAMED = {"namespaces", "services"}
_PATH_NAMED = {"roles", "rolebindings", "clusterroles", "clusterrolebindings"}


def is_subdomain(text: str) -> bool:
    return len(text) <= 253 and bool(_SUBDOMAIN.fullmatch(text))


def label_faults(path: str, value: str) -> Iterator[Cause]:
    """Faults of a name that must be a DNS label."""
    if len(value) > 63:
        yield invalid_value(path, value, "must be no more than 63 characters")
    if not _LABEL.fullmatch(value):
        yield invalid_value(path, value, LABEL_RULE)


def _name_faults(name: str, plural: str) -> Iterator[Cause]:
    path = "metadata.name"
    if plural in _LABEL_NAMED:
        yield from label_faults(path, name)
    elif plural in _PATH_NAMED:
        if name in (".", "..") or _PATH_UNSAFE.search(name):
            yield invalid_value(path, name, "may not be '.', '..' or contain '/' or '%'")
    else:
        if len(name) > 253:
            yield invalid_value(path, name, "must be no more than 253 characters")
        if not _SUBDOMAIN.fullmatch(name):
            yield invalid_value(path, name, SUBDOMAIN_RULE)


def _key_faults(path: str, key: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if slash and not is_subdomain(prefix):
        yield invalid_value(path, key, f"prefix part {SUBDOMAIN_RULE}" if prefix else "prefix part must be non-empty")
    if len(name) > 63:
        yield invalid_value(path, key, "name part must be no more than 63 characters")
    if not _QUALIFIED.fullmatch(name):
        yield invalid_value(path, key, _KEY_RULE)


def labels_faults(path: str, labels: Json | None) -> Iterator[Cause]:
    """Faults of a map of labels."""
    for key, value in (labels or {}).items():
        yield from _key_faults(path, key)
        if len(value) > 63:
            yield invalid_value(path, value, "must be no more than 63 characters")
        if value and not _QUALIFIED.fullmatch(value):
            yield invalid_value(path, value, _VALUE_RULE)


def annotations_faults(path: str, annotations: Json | None) -> Iterator[Cause]:
    size = 0
    for key, value in (annotations or {}).items():
        yield from _key_faults(path, key.lower())
        size += len(key.encode()) + len(value.encode())
    if size > _ANNOTATIONS_LIMIT:
        words = f"Too long: may not be more than {_ANNOTATIONS_LIMIT} bytes"
        yield Cause(path, "FieldValueTooLong", words)


def metadata_faults(meta: Json, plural: str) -> Iterator[Cause]:
    """Faults of an object's metadata; types have been checked before."""
    if not meta.get("name"):
        yield required("metadata.name", "name or generateName is required")
    else:
        yield from _name_faults(meta["name"], plural)
    yield from labels_faults("metadata.labels", meta.get("labels"))
    yield from annotations_faults("metadata.annotations", meta.get("annotations"))
    for index, finalizer in enumerate(meta.get("finalizers") or ()):
        yield from _key_faults(f"metadata.finalizers[{index}]", finalizer)
    yield from _owner_faults(meta.get("ownerReferences") or [])


def _owner_faults(owners: list[Json]) -> Iterator[Cause]:
    path = "metadata.ownerReferences"
    for index, owner in enumerate(owners):
        yield from (
            required(f"{path}[{index}].{name}", f"{name} must not be empty")
            for name in ("apiVersion", "kind", "name", "uid")
            if not owner.get(name)
        )
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        words = 'Only one reference can have Controller set to true. Found "true" in references for more than one owner'
        yield invalid_value(path, owners, words)


def finalizer_faults(meta: Json, old: Json) -> Iterator[Cause]:
    """No finalizer may be added to an object that is being deleted."""
    added = [name for name in meta.get("finalizers") or () if name not in (old.get("finalizers") or ())]
    if old.get("deletionTimestamp") and added:
        listed = ", ".join(f'"{name}"' for name in added)
        words = (
            f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}"
        )
        yield forbidden("metadata.finalizers", words)
