"""What is wrong with single tags of the captions of a dataset. Used by `audit`.

Only what has at most four words counts as a tag: longer ones are sentences, each of which is written once.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from shlex import quote

from lora_trainer.curation.findings import Finding, Kind
from lora_trainer.curation.pictures import Picture
from lora_trainer.curation.tag_spelling import similar_tags
from lora_trainer.data.tags import tags_of

_WORDS = 4
_FEWEST_PICTURES = 20
"""With fewer pictures every share is large, and a tag on one of them says nothing."""

_WAYS = {"spelling": "one tag in several spellings", "plural": "singular and plural", "typo": "probably mistyped"}

TagFiles = Mapping[str, Sequence[str]]
"""Tag -> names of the files that hold it, ascending; most frequent tag first."""


def tag_files(pictures: Sequence[Picture]) -> TagFiles:
    """The tags of all written captions."""
    files: dict[str, list[str]] = {}
    for picture in pictures:
        for tag in dict.fromkeys(_tags(picture)):
            files.setdefault(tag, []).append(picture.caption_name)
    return dict(sorted(files.items(), key=lambda item: (-len(item[1]), item[0])))


def check_tags(pictures: Sequence[Picture], files: TagFiles, *, rare_share: float) -> Iterator[Finding]:
    """Spellings, tags on less than `rare_share` of the captions, and tags that a caption holds twice."""
    counts = {tag: len(names) for tag, names in files.items() if len(tag.split()) <= _WORDS}
    suspected: set[str] = set()
    for similar in similar_tags(counts):
        keep, *others = similar.tags
        suspected.update(others)
        shown = ", ".join(f"{tag!r} ({counts[tag]})" for tag in similar.tags)
        yield Finding(
            Kind.SIMILAR_TAGS,
            f"{_WAYS[similar.way]}: {shown}",
            tuple(sorted({name for tag in others for name in files[tag]})),
            "If they mean the same: "
            + " and ".join(f"`lora captions replace DIR {quote(tag)} {quote(keep)}`" for tag in others),
        )
    others_left = {tag: count for tag, count in counts.items() if tag not in suspected}
    yield from _rare(others_left, files, sum(bool(picture.captions) for picture in pictures), rare_share)
    for picture in pictures:
        yield from _repeated(picture)


def _rare(counts: Mapping[str, int], files: TagFiles, captions: int, share: float) -> Iterator[Finding]:
    if captions < _FEWEST_PICTURES:
        return
    for tag, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        if count < share * captions:
            yield Finding(
                Kind.RARE_TAG,
                f"{tag!r} is on {count} of {captions}",
                tuple(files[tag]),
                f"Look at these; if it is wrong: `lora captions remove DIR {quote(tag)}`",
            )


def _repeated(picture: Picture) -> Iterator[Finding]:
    for text in picture.captions:
        twice = [tag for tag, count in Counter(_tags_in(text, picture)).items() if count > 1]
        if twice:
            yield Finding(
                Kind.REPEATED_TAG,
                f"holds {', '.join(map(repr, twice))} more than once",
                (picture.caption_name,),
                f"Keep one: `lora captions replace DIR {quote(twice[0])} {quote(twice[0])}`",
            )


def _tags(picture: Picture) -> Iterator[str]:
    for text in picture.captions:
        yield from _tags_in(text, picture)


def _tags_in(text: str, picture: Picture) -> tuple[str, ...]:
    tags = tags_of(text, picture.file.folder.captions)
    return (*tags.head, *tags.flexible, *tags.tail)
