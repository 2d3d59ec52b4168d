"""The table of values in the chart's README, from the comments in values.yaml. Used by `__main__`.

Comments and columns follow helm-docs (https://github.com/norwoodj/helm-docs): a comment that begins with `# --`
describes the key below it, and a described mapping is one row.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

_MARK = "# -- "
_TYPES: dict[type, str] = {str: "string", int: "int", bool: "bool", list: "list", dict: "object"}
BAR = "\\|"


class UndescribedValue(ValueError):
    """A value without a comment; the message names it."""


@dataclass(frozen=True)
class Value:
    """One row."""

    path: str
    """Keys from the top, joined with dots."""
    default: object
    description: str


def read_values(text: str) -> list[Value]:
    """Every value in the order of values.yaml. Raises UndescribedValue."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return [] if root is None else list(_values(root, "", text.splitlines(), yaml.safe_load(text)))


def _values(node: yaml.Node, above: str, lines: list[str], content: dict[str, object]) -> Iterator[Value]:
    for key, value in node.value:
        path, default = f"{above}{key.value}", content[key.value]
        description = _description(lines, key.start_mark.line)
        if description:
            yield Value(path, default, description)
        elif isinstance(value, yaml.MappingNode) and isinstance(default, dict) and default:
            yield from _values(value, f"{path}.", lines, default)
        else:
            raise UndescribedValue(f"values.yaml: {path} has no comment; write `{_MARK}…` above it")


def _description(lines: list[str], line: int) -> str:
    """The comment right above a line, from the last `# --` on."""
    above: list[str] = []
    for text in reversed(lines[:line]):
        if not text.strip().startswith("#"):
            return ""
        if text.strip().startswith(_MARK):
            return " ".join([text.strip().removeprefix(_MARK), *above])
        above.insert(0, text.strip().removeprefix("#").strip())
    return ""


def render_table(values: list[Value]) -> str:
    """The rows in Markdown."""
    rows = [
        (f"`{value.path}`", _TYPES[type(value.default)], f"`{json.dumps(value.default)}`", value.description)
        for value in values
    ]
    return render_rows(("Key", "Type", "Default", "Description"), rows)


def render_rows(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown; bars in texts are escaped."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', BAR) for cell in line)} |\n" for line in lines)
