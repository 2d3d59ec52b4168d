"""How an adapter is used: which file, which words call it up, what to write where. Pure; used by `writing`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lora_trainer.report.record import RunRecord
from lora_trainer.results import adapter_path

WEIGHT = 0.75
_SHARE = 0.8
"""Tags of so many of the captions call a concept up."""
_MOST_WORDS = 5
_REPEATS = re.compile(r"^[0-9]+_")


@dataclass(frozen=True)
class Usage:
    """What to tell a person who has the file."""

    file: str
    trigger_words: tuple[str, ...]
    webui: str
    """What goes into the prompt."""
    diffusers: str | None
    """Python; None: diffusers does not read this type of adapter."""


def usage_of(run: RunRecord) -> Usage | None:
    """For the best epoch's file, or the last one's; None while there is no adapter."""
    path = best_path(run)
    if path is None:
        return None
    file = path.rpartition("/")[2]
    stem = file.removesuffix(".safetensors")
    words = trigger_words(run)
    network = run.settings.get("network", {}).get("type")
    prompt = ", ".join((f"<lora:{stem}:{WEIGHT:g}>", *words))
    return Usage(file, words, prompt, None if network in ("loha", "lokr") else _diffusers(file))


def best_path(run: RunRecord) -> str | None:
    """The adapter to use: the copy of the best epoch, that epoch's own, else the last one."""
    name, best = run.name, run.best_epoch
    wanted = [f"adapters/{name}-best.safetensors", adapter_path(name, best)] if best is not None else []
    wanted += [adapter_path(name, None), *(adapter_path(name, epoch) for epoch in reversed(run.epochs))]
    return next((path for path in wanted if path in run.files), None)


def trigger_words(run: RunRecord) -> tuple[str, ...]:
    """What the model card says, else the tags of most captions, the most frequent first, else names of folders."""
    phrase = (run.settings.get("output", {}).get("card") or {}).get("triggerPhrase")
    if phrase:
        return (str(phrase),)
    pictures = sum(folder.get("img_count", 0) for folder in run.folders.values())
    return frequent_tags(run.tags, pictures=pictures) or named_by_folders(run.tags, run.folders)


def frequent_tags(tags: Mapping[str, int], *, pictures: int) -> tuple[str, ...]:
    """At most five tags that stand in at least 80 % of the captions."""
    return tuple(tag for tag, count in tags.items() if pictures and count >= _SHARE * pictures)[:_MOST_WORDS]


def named_by_folders(tags: Mapping[str, int], folders: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """The names of folders (`5_zwx emblem`) that stand in most captions: captions that are sentences share no tag."""
    found = []
    for folder, numbers in folders.items():
        phrase = _REPEATS.sub("", folder).strip().lower()
        captions = sum(count for tag, count in tags.items() if phrase in tag)
        if phrase and captions >= _SHARE * numbers.get("img_count", 0):
            found.append(phrase)
    return tuple(found[:_MOST_WORDS])


def _diffusers(file: str) -> str:
    return f'pipe.load_lora_weights(".", weight_name="{file}", adapter_name="a")\npipe.set_adapters("a", {WEIGHT:g})'
