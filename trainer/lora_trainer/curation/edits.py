"""Edits of one caption: replace, remove and add tags, or replace plain text. Pure. Used by `caption_edit`.

A tag is what stands between two separators, without the blanks around it; only whole tags are found, upper and lower
case differ. Everything that an edit does not mean stays as it was, blanks included.
"""

from collections.abc import Callable, Sequence

Edit = Callable[[str], str]
"""A caption without blanks around it -> the caption that takes its place; the same one where nothing is to do."""


def replace_tag(old: str, new: str, *, separator: str) -> Edit:
    """`new` in the place of every tag `old`; a caption holds `new` once then, where it comes first."""

    def edit(caption: str) -> str:
        pieces = caption.split(separator)
        if old not in map(str.strip, pieces):
            return caption
        renamed = [_renamed(piece, old, new) for piece in pieces]
        places = [place for place, piece in enumerate(renamed) if piece.strip() == new]
        return _without(renamed, set(places[1:]), separator)

    return edit


def remove_tags(tags: Sequence[str], *, separator: str) -> Edit:
    """Captions without any of `tags`."""
    unwanted = set(tags)

    def edit(caption: str) -> str:
        pieces = caption.split(separator)
        return _without(pieces, {place for place, piece in enumerate(pieces) if piece.strip() in unwanted}, separator)

    return edit


def add_tag(tag: str, *, separator: str, first: bool = False, where: str | None = None) -> Edit:
    """`tag` as the last or the first one of captions that do not hold it; with `where` only of those with that tag."""

    def edit(caption: str) -> str:
        tags = [piece.strip() for piece in caption.split(separator)]
        if tag in tags or (where is not None and where not in tags):
            return caption
        if not any(tags):
            return tag
        between = separator if separator[-1:].isspace() else f"{separator} "
        ends = caption.removesuffix(separator)
        return f"{tag}{between}{caption}" if first else f"{ends}{between}{tag}"

    return edit


def replace_text(old: str, new: str) -> Edit:
    """`new` in the place of every `old`, wherever it stands."""
    return lambda caption: caption.replace(old, new)


def edit_lines(text: str, edit: Edit) -> str:
    """The text of a caption file after `edit` of each line that is not blank; the ends of lines stay."""
    return "\n".join(_edit_line(line, edit) for line in text.split("\n"))


def _edit_line(line: str, edit: Edit) -> str:
    core = line.strip()
    if not core:
        return line
    start = line.index(core)
    return line[:start] + edit(core) + line[start + len(core) :]


def _renamed(piece: str, old: str, new: str) -> str:
    return piece.replace(old, new, 1) if piece.strip() == old else piece


def _without(pieces: list[str], places: set[int], separator: str) -> str:
    """The caption without the pieces at `places`; the first that stays begins like the first one did."""
    kept = [piece for place, piece in enumerate(pieces) if place not in places]
    if 0 in places and kept:
        kept[0] = kept[0].lstrip()
    if len(pieces) - 1 in places and kept:
        kept[-1] = kept[-1].rstrip()
    return separator.join(kept)
