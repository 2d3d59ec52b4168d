"""An sd-scripts command line, alone or in a shell script, a batch file or PowerShell."""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from lora_trainer.migration.arguments import ARGUMENTS
from lora_trainer.migration.draft import Leftover
from lora_trainer.migration.source import Source
from lora_trainer.migration.unusable import UnusableSettings
from lora_trainer.migration.values import Kind

_SCRIPT = re.compile(r"(?:^|[/\\])(?P<name>(?:\w+_)?train_network)\.py$")
_KNOWN = {"train_network": False, "sdxl_train_network": True}
"""Script -> whether it trains SDXL."""
_CONTINUED = re.compile(r"[ \t]*[\\^`][ \t]*\r?\n")
_ASSIGNED = re.compile(r"^\s*(?:export\s+|set\s+|\$)?(?P<name>[A-Za-z_]\w*)\s*=\s*(?P<value>\S.*?)\s*$", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{(?P<braced>\w+)\}|\$(?P<plain>[A-Za-z_]\w*)|%(?P<percent>\w+)%")
_WINDOWS = re.compile(r"\b[A-Za-z]:\\")
_PARALLEL = {"num_processes": "parallelism.gpusPerNode", "num_machines": "parallelism.nodes"}


def read_command(text: str) -> Source:
    """The settings on the first command line of `text` that starts a LoRA training, or of bare `--name value`.

    Raises:
        UnusableSettings: there is none, it trains another model, or a variable in it has no value here.
    """
    words = _words(_CONTINUED.sub(" ", text))
    place = next((index for index, word in enumerate(words) if _SCRIPT.search(word)), None)
    if place is None and not words[:1] == ["-"] and not (words and words[0].startswith("--")):
        raise UnusableSettings(
            "the text starts no train_network.py or sdxl_train_network.py; give its command line or its arguments"
        )
    script = "train_network" if place is None else str(_SCRIPT.search(words[place])["name"])  # type: ignore[index]
    if script not in _KNOWN:
        known = " and ".join(f"{name}.py" for name in _KNOWN)
        raise UnusableSettings(f"{script}.py trains a model that is not known here; known are {known}")
    begin = 0 if place is None else place + 1
    raw, left = _read_options(words[begin:])
    fields = _parallelism(words[: place or 0])
    return Source("sd-scripts command line", raw, is_sdxl=_KNOWN[script], fields=fields, leftovers=tuple(left))


def _words(text: str) -> list[str]:
    """The words of the line that starts a training, variables put in; of all lines when none does."""
    variables = {match["name"]: _unquoted(match["value"]) for match in _ASSIGNED.finditer(text)}
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", "::", "REM ", "rem "))]
    line = next((line for line in lines if "train_network.py" in line), " ".join(lines))
    line = _VARIABLE.sub(lambda match: _value_of(match, variables), line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split, lexer.commenters = True, ""
    if _WINDOWS.search(text):
        lexer.escape = ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise UnusableSettings(f"the command line cannot be split into words: {error}; mend its quotes") from error
    return words


def _unquoted(value: str) -> str:
    """What an assignment gives: the text in quotes, or all up to a remark."""
    quoted = re.match(r"""(["'])(.*?)\1""", value)
    return quoted[2] if quoted else re.split(r"\s+#", value)[0]


def _value_of(match: re.Match[str], variables: dict[str, str]) -> str:
    name = match["braced"] or match["plain"] or match["percent"]
    if name not in variables:
        raise UnusableSettings(
            f"the command line uses the variable {name}, which gets no value in the text; put its value in"
        )
    return _VARIABLE.sub(lambda inner: _value_of(inner, {k: v for k, v in variables.items() if k != name}),
                         variables[name])  # fmt: skip


def _read_options(words: Sequence[str]) -> tuple[dict[str, Any], list[Leftover]]:
    raw: dict[str, Any] = {}
    left = []
    for name, values in _options(words):
        kind = ARGUMENTS[name].kind if name in ARGUMENTS else None
        if kind in (Kind.TEXTS, Kind.NUMBERS):
            raw[name] = values if len(values) != 1 else (values[0] if kind is Kind.NUMBERS else values)
        elif not values:
            raw[name] = True
        else:
            raw[name] = " ".join(values)
        if kind is Kind.FLAG and values:
            raw[name] = True
            left.append(Leftover(name, " ".join(values), "is a switch and takes no value"))
    return raw, left


def _options(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each `--name` with the words up to the next one; `--name=value` too. `;`, `&&`, `|`, `#` end the command."""
    name, values = "", list[str]()
    for word in words:
        if (word and set(word) <= set(";&|")) or (word == "#" and values):
            break
        if re.match(r"--[A-Za-z]", word):
            if name:
                yield name, values
            name, equals, value = word[2:].partition("=")
            values = [value] if equals else []
        elif name:
            values.append(word)
    if name:
        yield name, values


def _parallelism(launcher: Sequence[str]) -> dict[str, int]:
    """What `accelerate launch` says of the number of processes; one GPU is our default."""
    options = dict(_options(launcher))
    counts = {field: (options.get(name) or ["1"])[0] for name, field in _PARALLEL.items()}
    return {field: int(count) for field, count in counts.items() if count.isdigit() and int(count) != 1}
