"""`captions.jsonl`: the generated captions of a run, one JSON object a line, for people and for later starts. Pure."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from lora_trainer.captioning.search import Search


@dataclass(frozen=True)
class CaptionRecord:
    """One line."""

    file: str
    """Path of the picture relative to the dataset, with `/`."""
    caption: str
    """Its whole caption."""
    description: str
    """What the model said."""
    key: str
    """Names everything that the description depends on."""


def description_key(picture: str, model_digest: str, search: Search) -> str:
    """SHA-256 over all that decides what is said of a picture: its content, the model, the search."""
    return hashlib.sha256(json.dumps([picture, model_digest, asdict(search)]).encode()).hexdigest()


def to_lines(records: Iterable[CaptionRecord]) -> str:
    """One object a line, in the order given."""
    return "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)


def descriptions_in(text: str) -> dict[str, str]:
    """The descriptions of such a file by key. Raises ValueError that says which line is damaged."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        fields = json.loads(line)
        if not isinstance(fields, dict) or not all(
            isinstance(fields.get(name), str) for name in ("key", "description")
        ):
            raise ValueError(f"line {number} holds no key and description")
        found[fields["key"]] = fields["description"]
    return found
