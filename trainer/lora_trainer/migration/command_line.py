"""An sd-scripts command line, alone or in a shell script, a batch file or PowerShell."""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from lora_trainer.migration.arguments import ARGUMENTS
from lora_trainer.migration.draft import Leftover
from lora_trainer.migration.parallelism import parallelism_fields
from lora_trainer.migration.source import Source
from lora_trainer.migration.unusable import UnusableSettings
from lora_trainer.migration.values import Kind

_SCRIPT = re.compile(r"(?:^|[/\\])(?P<name>(?:\w+_)?train_network)\.py$")
_KNOWN = {"train_network": False, "sdxl_train_network": True}
"""Script -> whether it trains SDXL."""
_CONTINUED = re.compile(r"[ \t]*[\\^`][ \t]*\r?\n")
_ASSIGNED = re.compile(
    r"^\s*(?:export\s+|set\s+(?P<quote>\")?|\$)?(?P<name>[A-Za-z_]\w*)\s*=\s*(?P<value>\S.*?)\s*$", re.MULTILINE
)
_VARIABLE = re.compile(
    r"\$\{(?P<braced>\w+)(?::?-(?P<default>[^}]*))?\}|\$(?P<plain>[A-Za-z_]\w*)|%(?P<percent>\w+)%|!(?P<delayed>\w+)!"
)
_LIST = re.compile(r"(?:^|[;\s])(?P<name>[A-Za-z_]\w*)(?P<more>\+?)=\((?P<words>[^)]*)\)", re.MULTILINE)
_LIST_USED = re.compile(r"\"?\$\{(?P<name>\w+)\[[@*]\]\}\"?")
_NO_TEXT = ("(", "@(", "[")
"""How lists begin, whose words only the running script knows."""
_COMPUTED = re.compile(r"\$\([^)]*\)?|`[^`]*`|\$\{[^}]*\}?")
_WINDOWS = re.compile(r"\b[A-Za-z]:\\")


def read_command(text: str) -> Source:
    """The settings on the first command line of `text` that starts a LoRA training, or of bare `--name value`.

    Raises:
        UnusableSettings: there is none, it trains another model, or a variable in it has no value here.
    """
    words, unknown = _words(_CONTINUED.sub(" ", text))
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
    raw, left = read_options(words[begin:])
    fields = _parallelism(words[: place or 0])
    leftovers = (*unknown, *left)
    return Source("sd-scripts command line", raw, is_sdxl=_KNOWN[script], fields=fields, leftovers=leftovers)


def _words(text: str) -> tuple[list[str], list[Leftover]]:
    """The words of the line that starts a training, or of all lines when none does; and what they do not tell.

    Variables and lists that the text sets are put in.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", "::", "REM ", "rem "))]
    line = next((line for line in lines if "train_network.py" in line), " ".join(lines))
    line, left = _with_lists(line, text)
    line = _with_variables(line, text, left)
    computed = _COMPUTED.search(line)
    if computed:
        raise UnusableSettings(f"the command line holds {computed[0]}, which a shell computes; put its value in")
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split, lexer.commenters = True, ""
    if _WINDOWS.search(text):
        lexer.escape = ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise UnusableSettings(f"the command line cannot be split into words: {error}; mend its quotes") from error
    return words, left


def _with_lists(line: str, text: str) -> tuple[str, list[Leftover]]:
    """`line` with the words of bash's lists; what a script adds to them as it runs is told."""
    lists = {match["name"]: " ".join(match["words"].split()) for match in _LIST.finditer(text) if not match["more"]}
    growing = {match["name"] for match in _LIST.finditer(text) if match["more"]}
    used = dict.fromkeys(match["name"] for match in _LIST_USED.finditer(line))
    left = [_grows(name) for name in used if name in growing or name not in lists]
    return _LIST_USED.sub(lambda match: lists.get(match["name"], ""), line), left


def _grows(name: str) -> Leftover:
    return Leftover(name, "a list", "the script fills it as it runs; write its arguments down and import them as well")


def _with_variables(line: str, text: str, left: list[Leftover]) -> str:
    variables = {match["name"]: _assigned(match) for match in _ASSIGNED.finditer(text)}
    for name in [name for name, value in variables.items() if value.startswith(_NO_TEXT)]:
        variables[name] = ""
        if re.search(rf"\${name}\b", line):
            left.append(_grows(name))
    return _VARIABLE.sub(lambda match: _value_of(match, variables), line)


def _assigned(match: re.Match[str]) -> str:
    """What an assignment gives: the text in quotes, or all up to a remark."""
    value = match["value"].rpartition('"')[0] if match["quote"] else match["value"]
    quoted = re.match(r"""(["'])(.*?)\1""", value)
    return quoted[2] if quoted else re.split(r"\s+#", value)[0]


def _value_of(match: re.Match[str], variables: dict[str, str]) -> str:
    name = match["braced"] or match["plain"] or match["percent"] or match["delayed"]
    value = variables.get(name) or match["default"] or variables.get(name)
    if value is None and match["delayed"]:
        return match[0]
    if value is None:
        raise UnusableSettings(
            f"the command line uses the variable {name}, which gets no value in the text; put its value in"
        )
    return _VARIABLE.sub(lambda inner: _value_of(inner, {k: v for k, v in variables.items() if k != name}), value)


def read_options(words: Sequence[str]) -> tuple[dict[str, Any], list[Leftover]]:
    """The values of `--name value`, by name, and what of them makes no sense."""
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
    counts = [(options.get(name) or ["1"])[0] for name in ("num_processes", "num_machines")]
    return parallelism_fields(*(int(count) if count.isdigit() else 1 for count in counts))
