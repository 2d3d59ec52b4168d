"""What is no error, but should be known before a training: the warnings of the scan, shown by `lora plan`. Pure."""

from collections.abc import Iterable, Sequence

from lora_trainer.data.captions import missing_tokens
from lora_trainer.data.example import Example, MaskKind
from lora_trainer.data.folders import ConceptFolder
from lora_trainer.data.listing import Listing, PictureFile

_SHOWN_NAMES = 5
_CAPTION_EXTENSIONS = frozenset({".txt", ".caption"})


def notices(listing: Listing, examples: Sequence[Example], mask: MaskKind) -> Iterable[str]:
    """Warnings as whole sentences; `examples` are the pictures of the listing."""
    for name in listing.empty:
        yield f"{name} holds no pictures."
    if listing.unlisted:
        yield f"{_count(listing.unlisted)} not listed in metadata.jsonl and not used: {_some(listing.unlisted)}."
    without = [picture for picture in listing.pictures if _has_only_its_folders_text(picture)]
    yield from _missing_captions(without)
    for folder in listing.folders:
        yield from _missing_trigger(folder, [e for e in examples if e.key == folder.prefix + e.path.name])
    if listing.spare_masks and mask == "Files":
        yield f"{len(listing.spare_masks)} masks belong to no picture: {_some(listing.spare_masks)}."
    elif listing.spare_masks:
        yield (
            f"{len(listing.spare_masks)} masks are not used, because spec.dataset.mask is {mask}: "
            f"{_some(listing.spare_masks)}."
        )


def _has_only_its_folders_text(picture: PictureFile) -> bool:
    return picture.caption_path is None and not (picture.entry and picture.entry.caption)


def _missing_captions(without: Sequence[PictureFile]) -> Iterable[str]:
    rules = [(picture.folder.captions.extension, picture.folder.captions.missing) for picture in without]
    for rule in dict.fromkeys(rules):
        pictures = [picture for picture, own in zip(without, rules, strict=True) if own == rule]
        extension = rule[0]
        names = _some([picture.key for picture in pictures])
        yield f"{len(pictures)} pictures have no {extension} file and get {_instead(pictures[0])}: {names}."
        elsewhere = sum(_has_other_caption(picture) for picture in pictures)
        if elsewhere:
            yield (
                f"{elsewhere} of them have a caption file with another extension than {extension}; "
                "set spec.dataset.captions.extension if those are meant."
            )


def _instead(picture: PictureFile) -> str:
    return "a generated caption" if picture.folder.captions.missing == "Generate" else "their folder's text"


def _has_other_caption(picture: PictureFile) -> bool:
    return any(
        path.stem == picture.path.stem and path.suffix.lower() in _CAPTION_EXTENSIONS for path in picture.folder.files
    )


def _missing_trigger(folder: ConceptFolder, examples: Sequence[Example]) -> Iterable[str]:
    """Class tokens that no caption holds: the adapter would not learn to answer to them."""
    own = ("file", "metadata")
    written = [example for example in examples if example.caption_source in own and not example.is_regularization]
    around = f"{folder.captions.prefix} {folder.captions.suffix}"
    texts = " ".join(line for example in written for line in example.caption_lines)
    missing = missing_tokens(f"{texts} {around}", folder.text)
    if written and missing:
        words = " or ".join(f"'{word}'" for word in missing)
        yield f"No caption of {folder.key} holds {words}; add the words that shall call it up."


def _count(names: Sequence[str]) -> str:
    return "1 picture is" if len(names) == 1 else f"{len(names)} pictures are"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
