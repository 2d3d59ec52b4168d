"""Captions for the pictures that have none, by the model that `dataset.captions.generate` names. Used by `run`.

What was said of a picture once is kept: in the output of the run, where a later start finds it whatever its device
is, and on the machine, where other runs do.
"""

import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from lora_api.caption_spec import CaptionGenerator
from lora_trainer.captioning.blip import Captioner, load_captioner
from lora_trainer.captioning.model_files import DIGESTS
from lora_trainer.captioning.records import CaptionRecord, description_key, descriptions_in, to_lines
from lora_trainer.captioning.search import Search
from lora_trainer.captioning.wording import Wording
from lora_trainer.data.example import Example
from lora_trainer.data.images import read_rgb
from lora_trainer.digests import join_digests
from lora_trainer.errors import InvalidDataset
from lora_trainer.output import RunOutput
from lora_trainer.prepare import CAPTIONER, Prepared, Session
from lora_trainer.storage import MissingFile, Store
from lora_trainer.storage.directory_store import DirectoryStore

logger = logging.getLogger(__name__)

CAPTIONS_PATH = "captions.jsonl"
_BATCH = 8
"""Pictures that the model looks at together."""


def with_generated_captions(prepared: Prepared, store: Store, device: torch.device, session: Session) -> Prepared:
    """`prepared` with a caption for every picture that waits for one; `store` is the output of the run.

    Raises:
        InvalidDataset: the model has no words for a picture that gets no others either.
        BaseModelUnavailable: the model cannot be loaded.
        StopRequested: the process was told to stop; what was said until then is kept.
    """
    generator = prepared.training.spec.dataset.captions.generate
    waiting = [example for example in prepared.dataset.scanned.examples if example.caption_source == "generated"]
    if generator is None or not waiting:
        return prepared
    search = Search(generator.beams, generator.min_tokens, generator.max_tokens)
    keys = {example.index: _key(example, prepared, search) for example in waiting}
    kept = _Kept(store, session)
    missing = {keys[example.index]: example for example in waiting if kept.get(keys[example.index]) is None}
    logger.info("%s pictures get captions; %s of their descriptions are new", len(waiting), len(missing))
    if missing:
        _describe(missing, kept, _load(prepared, device, session), search, session)
        # The model's room on the device is the trained model's now.
        gc.collect()
        torch.cuda.empty_cache()
    records = {example.index: _record(example, keys[example.index], kept, generator) for example in waiting}
    return _captioned(prepared, records)


def with_captions(prepared: Prepared, records: Sequence[CaptionRecord]) -> Prepared:
    """`prepared` with captions that another process of the run generated, by the pictures' names."""
    by_file = {record.file: record for record in records}
    examples = prepared.dataset.scanned.examples
    return _captioned(prepared, {one.index: by_file[one.key] for one in examples if one.key in by_file})


def publish_captions(output: RunOutput, records: Sequence[CaptionRecord]) -> None:
    """Hands `captions.jsonl` over, if there are generated captions: for people, and for later starts of the run."""
    if records:
        output.write(CAPTIONS_PATH, lambda path: path.write_text(to_lines(records), encoding="utf-8"))
        output.publish(CAPTIONS_PATH, "captions")


class _Kept:
    """What was said before, by key: in this run, or on this machine."""

    def __init__(self, store: Store, session: Session) -> None:
        folder = (session.settings.cache_dir or session.settings.work_dir) / "captions"
        self._machine = DirectoryStore(folder, folder.as_uri(), on_bytes=lambda count: None)
        self._known = _said_in_this_run(store)

    def get(self, key: str) -> str | None:
        """A description, or None."""
        if key not in self._known:
            try:
                self._known[key] = self._machine.get_bytes(f"{key}.txt").decode()
            except MissingFile:
                return None
        return self._known[key]

    def put(self, key: str, description: str) -> None:
        """Keeps a description on this machine."""
        self._machine.put_bytes(description.encode(), f"{key}.txt")
        self._known[key] = description


def _said_in_this_run(store: Store) -> dict[str, str]:
    try:
        return descriptions_in(store.get_bytes(CAPTIONS_PATH).decode())
    except MissingFile:
        return {}
    except ValueError as error:
        logger.warning("%s is damaged and not used: %s", store.uri_of(CAPTIONS_PATH), error)
        return {}


def _key(example: Example, prepared: Prepared, search: Search) -> str:
    files = {name: sha256 for name, sha256 in prepared.provenance.base.items() if name.startswith(DIGESTS)}
    return description_key(example.content, join_digests(files), search)


def _load(prepared: Prepared, device: torch.device, session: Session) -> Captioner:
    assert prepared.base.captioner is not None
    session.say("LoadingModel", "for captions")
    return load_captioner(prepared.base.captioner, device, field=CAPTIONER)


def _describe(
    missing: Mapping[str, Example], kept: _Kept, captioner: Captioner, search: Search, session: Session
) -> None:
    """Describes the pictures of `missing`, by key; each batch is kept as soon as it is there."""
    keys, tracker = list(missing), session.audience.tracker
    for start in range(0, len(keys), _BATCH):
        session.check_stop()
        tracker.set_reason("Captioning", f"{start} of {len(keys)} pictures")
        batch = keys[start : start + _BATCH]
        images = [read_rgb(missing[key].path, drop_alpha=missing[key].drops_alpha) for key in batch]
        for key, description in zip(batch, captioner.describe(images, search), strict=True):
            kept.put(key, description)


def _record(example: Example, key: str, kept: _Kept, generator: CaptionGenerator) -> CaptionRecord:
    trigger = example.class_tokens if generator.trigger == "FolderName" else ""
    description = kept.get(key) or ""
    caption = Wording(trigger, generator.prefix, generator.suffix).caption(description)
    if not caption:
        raise InvalidDataset(
            f"{example.key} has no caption file, and the model of {CAPTIONER} has no words for it; write a caption"
        )
    return CaptionRecord(example.key, caption, description, key)


def _captioned(prepared: Prepared, records: Mapping[int, CaptionRecord]) -> Prepared:
    """`prepared` with these captions, by the pictures' indices."""

    def filled(example: Example) -> Example:
        if example.index not in records:
            return example
        caption = records[example.index].caption
        return replace(example, caption=caption, caption_lines=(caption,))

    dataset = prepared.dataset
    scanned = replace(dataset.scanned, examples=tuple(filled(example) for example in dataset.scanned.examples))
    pictures = tuple(replace(picture, example=filled(picture.example)) for picture in dataset.pictures)
    captions = tuple(records.values())
    return replace(prepared, dataset=replace(dataset, scanned=scanned, pictures=pictures), captions=captions)
