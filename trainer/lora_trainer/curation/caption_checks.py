"""What is wrong with the captions of a dataset, but for single tags. Used by `audit`."""

from collections.abc import Callable, Iterator, Sequence
from shlex import quote

from lora_api.dataset_spec import Dataset
from lora_trainer.curation.findings import Finding, Kind, finding_of
from lora_trainer.curation.pictures import Picture
from lora_trainer.data.folders import ConceptFolder
from lora_trainer.data.images import is_image

CountTokens = Callable[[Sequence[str]], Sequence[int]]
"""CLIP tokens of each text, without start and end."""

_EXTENSIONS = frozenset({".txt", ".caption", ".tags"})


def check_captions(pictures: Sequence[Picture], folders: Sequence[ConceptFolder]) -> Iterator[Finding]:
    """Captions that are missing, cannot be used, or belong to nothing."""
    captioned = {picture.file.folder.key for picture in pictures if picture.has_caption}
    for picture in pictures:
        folder = picture.file.folder
        if picture.caption_problem:
            yield finding_of(Kind.UNUSABLE_CAPTION, picture.caption_problem, (picture.caption_name,))
        elif not (picture.has_caption or picture.is_regularization) and _needs_one(folder, captioned):
            yield _missing(picture)
    for folder in folders:
        yield from _orphans(folder, [picture for picture in pictures if picture.file.folder is folder])


def check_trigger(pictures: Sequence[Picture], trigger: str) -> Iterator[Finding]:
    """Captions that should hold the words that call the adapter up, and those that must not."""
    for picture in pictures:
        held = [holds_words(text, trigger) for text in picture.texts]
        if held and not picture.is_regularization and not all(held):
            yield Finding(
                Kind.MISSING_TRIGGER,
                f"{trigger!r} is not in: {_short(picture.texts[held.index(False)])}",
                (picture.caption_name,),
                f"Add it: `lora captions add DIR {quote(trigger)} --first`",
            )
        if picture.is_regularization and any(held):
            yield Finding(
                Kind.TRIGGER_IN_REGULARIZATION,
                f"{trigger!r} is in: {_short(picture.texts[held.index(True)])}",
                (picture.caption_name,),
                "Take it out of captions and names of folders in reg/, or the class learns it",
            )


def check_lengths(pictures: Sequence[Picture], spec: Dataset, count_tokens: CountTokens) -> Iterator[Finding]:
    """Captions of more tokens than `captions.maxTokens`; the longest of several lines counts."""
    longest = [(picture, max(picture.texts, key=len)) for picture in pictures if picture.texts]
    limit = spec.captions.max_tokens
    for (picture, text), tokens in zip(longest, count_tokens([text for _, text in longest]), strict=True):
        if tokens > limit:
            yield Finding(
                Kind.LONG_CAPTION,
                f"has {tokens} tokens, {tokens - limit} more than {limit}; it ends: …{text[-40:]}",
                (picture.caption_name,),
                "Shorten it, or train with captions.maxTokens of 150 or 225",
            )


def holds_words(text: str, words: str) -> bool:
    """Whether `words` stand in `text` one after the other as whole words; upper and lower case are alike."""
    return f" {_plain(words)} " in f" {_plain(text)} "


def _plain(text: str) -> str:
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.casefold()).split())


def _needs_one(folder: ConceptFolder, captioned: set[str]) -> bool:
    """Not where captions are generated, and not in folders whose name is the caption of every picture."""
    return folder.captions.missing != "Generate" and (folder.key in captioned or not folder.text)


def _missing(picture: Picture) -> Finding:
    folder, path = picture.file.folder, picture.file.path
    wanted = path.stem + folder.captions.extension
    other = [file.name for file in folder.files if file.stem == path.stem and file.suffix.lower() in _EXTENSIONS]
    instead = f"; its folder's text would be its caption: {folder.text}" if folder.text else ""
    message = f"there is no {wanted}" + (f", but {other[0]}" if other else "") + instead
    cure = "Rename it, or set captions.extension" if other else "Write one, by hand or with `lora caption`"
    return Finding(Kind.MISSING_CAPTION, message, (picture.key,), cure)


def _orphans(folder: ConceptFolder, pictures: Sequence[Picture]) -> Iterator[Finding]:
    used = {picture.file.caption_path for picture in pictures}
    # A file beside a picture of its name may be another tool's; it is named where the picture lacks a caption.
    stems = {file.stem for file in folder.files if is_image(file)}
    for file in folder.files:
        if file.suffix == folder.captions.extension and file not in used and file.stem not in stems:
            yield Finding(
                Kind.ORPHANED_CAPTION,
                "belongs to no picture",
                (folder.prefix + file.name,),
                "Rename it like its picture, or remove it",
            )


def _short(text: str, letters: int = 60) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
