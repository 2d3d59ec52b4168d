"""What is wrong with the pictures of a dataset themselves. Used by `audit`."""

from collections.abc import Iterable, Iterator, Sequence
from math import sqrt

from lora_api.dataset_spec import Dataset
from lora_trainer.curation.findings import Finding, Kind, finding_of
from lora_trainer.curation.look import same_looks
from lora_trainer.curation.pictures import Picture, Seen
from lora_trainer.data.buckets import TooSmall, placing

_BLURRED = 25.0
"""Sharpness below which a picture looks blurred. Measured on 23 photos and drawings of 200 to 1400 px at an area of
512x512 px: two plain graphics had 6 and 9, all others 55 and more (median 2260); after a Gaussian blur of 2 px it was
72 at most (median 18), after one of 3 px 24.5 at most (median 5)."""
_ENLARGED = 1.5
_CROPPED = 0.2
_COPIES = "remove all but one, or raise its folder's repeats if it shall count more"


def check_pictures(pictures: Sequence[Picture], spec: Dataset) -> Iterator[Finding]:
    """Everything about files and pixels. Small, blurred and cropped ones matter among those to be learnt only."""
    for picture in pictures:
        if picture.seen is None:
            yield finding_of(Kind.UNREADABLE_PICTURE, picture.problem, (picture.key,))
    seen = [(picture, picture.seen) for picture in pictures if picture.seen is not None]
    yield from _copies(seen)
    ordinary = [(picture, look) for picture, look in seen if not picture.is_regularization]
    for check in (_small, _blurred, _cropped):
        yield from check(ordinary, spec)


_Pairs = Sequence[tuple[Picture, Seen]]


def _copies(pictures: _Pairs) -> Iterator[Finding]:
    """The same files, then the same pictures among what is left."""
    by_digest: dict[str, list[tuple[Picture, Seen]]] = {}
    for picture, seen in pictures:
        by_digest.setdefault(seen.sha256, []).append((picture, seen))
    for same in by_digest.values():
        if len(same) > 1:
            yield _copy(Kind.SAME_FILE, "the same bytes", [picture for picture, _ in same])
    different = [same[0] for same in by_digest.values()]
    for group in _joined(same_looks([seen.look for _, seen in different])):
        sizes = ", ".join(f"{width}x{height}" for width, height in dict.fromkeys(different[i][1].size for i in group))
        yield _copy(Kind.SAME_PICTURE, f"one picture, at {sizes} px", [different[i][0] for i in group])


def _copy(kind: Kind, what: str, pictures: Sequence[Picture]) -> Finding:
    both = len({picture.is_regularization for picture in pictures}) > 1
    where = ", learnt and as regularisation" if both else ""
    cure = "Remove it from reg/: what is learnt must not be there" if both else f"Keep the best one: {_COPIES}"
    return Finding(kind, f"{len(pictures)} files hold {what}{where}", _names(pictures), cure)


def _joined(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Groups of all that pairs connect, ascending."""
    group_of: dict[int, list[int]] = {}
    for one, other in pairs:
        group = group_of.get(one, [one])
        joining = group_of.get(other, [other])
        merged = group if group is joining else sorted({*group, *joining})
        group_of.update(dict.fromkeys(merged, merged))
    return [list(group) for group in dict.fromkeys(map(tuple, group_of.values()))]


def _small(pictures: _Pairs, spec: Dataset) -> Iterator[Finding]:
    width, height = spec.size_px
    for picture, seen in pictures:
        factor = sqrt(width * height / (seen.size[0] * seen.size[1]))
        if factor > _ENLARGED:
            yield Finding(
                Kind.SMALL_PICTURE,
                f"is {_px(seen)}; training at {width}x{height} px enlarges it {factor:.1f} times",
                (picture.key,),
                "Use a larger original, or remove it: enlarged pictures teach softness",
            )


def _blurred(pictures: _Pairs, spec: Dataset) -> Iterator[Finding]:
    for picture, seen in pictures:
        if seen.sharpness < _BLURRED:
            yield Finding(
                Kind.BLURRED_PICTURE,
                f"its sharpest part has a variance of the Laplacian of {seen.sharpness:.1f}, less than {_BLURRED:g}",
                (picture.key,),
                "Look at it; remove it if it is out of focus, shaken or enlarged",
            )


def _cropped(pictures: _Pairs, spec: Dataset) -> Iterator[Finding]:
    place = placing(spec.size_px, spec.buckets)
    for picture, seen in pictures:
        try:
            placement = place(*seen.size)
        except TooSmall as error:
            yield finding_of(Kind.CROPPED_PICTURE, str(error), (picture.key,))
            continue
        if placement.crop_loss > _CROPPED:
            bucket = f"{placement.bucket[0]}x{placement.bucket[1]}"
            yield Finding(
                Kind.CROPPED_PICTURE,
                f"is {_px(seen)}; its bucket of {bucket} px keeps {1 - placement.crop_loss:.0%} of it",
                (picture.key,),
                "Cut out what matters yourself, such as with `lora dataset crop`",
            )


def _px(seen: Seen) -> str:
    return f"{seen.size[0]}x{seen.size[1]} px"


def _names(pictures: Iterable[Picture]) -> tuple[str, ...]:
    return tuple(sorted(picture.key for picture in pictures))
