"""What a translation has found so far: fields, remarks on them, and what could not be carried over."""

from dataclasses import dataclass, field
from typing import Any

from lora_trainer.migration.arguments import SECRETS

_LONGEST = 100


@dataclass(frozen=True)
class Leftover:
    """A setting that no field took."""

    name: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} = {self.value}: {self.reason}"


@dataclass
class Draft:
    """Fields by their YAML path below `spec`; filled by one section of the translation after the other."""

    fields: dict[str, Any] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    leftovers: list[Leftover] = field(default_factory=list)

    def put(self, path: str, value: Any, remark: str = "") -> None:
        """Sets a field unless `value` is None."""
        if value is None:
            return
        self.fields[path] = value
        if remark:
            self.remarks[path] = remark

    def leave(self, name: str, value: object, reason: str) -> None:
        """Notes a setting that no field takes."""
        self.leftovers.append(Leftover(name, "(secret)" if name in SECRETS else show(value), reason))


def show(value: object) -> str:
    """A value on one line of limited length."""
    if isinstance(value, tuple):
        value = " ".join(show(part) for part in value)
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
