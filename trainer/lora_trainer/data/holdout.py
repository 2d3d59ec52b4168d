"""Which pictures are held out to measure over-fitting, and which trained ones they are compared with. Pure.

Used by `sources`, which marks the examples, and by `assembly`, which has them measured. The choice depends on the
pictures alone, not on the seed: runs on one dataset are measured with the same pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lora_trainer.data.example import Example
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.rng import Purpose, derive_seed

_FIELD = "spec.dataset.validationFraction"
_DEFAULT_SHARE = 0.1
_FEWEST, _MOST = 2, 16
_ENOUGH_BY_DEFAULT = 8
"""Of fewer pictures none is held out unless it is asked for."""
_SHOWN_NAMES = 5


@dataclass(frozen=True)
class Holdout:
    """The examples with their marks, and what a person should know of it."""

    examples: tuple[Example, ...]
    notice: str | None


def hold_out(examples: Sequence[Example], fraction: float | None) -> Holdout:
    """`examples` with `fraction` of the different training pictures marked; None: the default, see the contract.

    Equal pictures are one, and so are on one side. Concept folders give in proportion to their pictures, and each
    keeps at least one. What is a regularisation picture as well is never held out.

    Raises:
        InvalidConfiguration: a fraction is asked for, but fewer than two pictures can be held out.
    """
    different = _different(examples)
    wanted = _wanted(len(different), fraction)
    chosen = _stratified(different, wanted, spare=1)
    if len(chosen) < _FEWEST:
        return Holdout(tuple(examples), _none_held_out(len(different), fraction))
    marked = tuple(
        replace(example, is_held_out=True) if example.sha256 in chosen and not example.is_regularization else example
        for example in examples
    )
    return Holdout(marked, _notice(marked))


def compared(examples: Sequence[Example], count: int) -> tuple[Example, ...]:
    """At most `count` different pictures that are trained on, stratified like the held-out ones."""
    trained = [example for example in examples if not example.is_held_out]
    return _first_of_each(trained, _stratified(_different(trained), count, spare=0))


def measured(examples: Sequence[Example], count: int) -> tuple[Example, ...]:
    """At most `count` different held-out pictures, stratified."""
    held_out = [example for example in examples if example.is_held_out]
    return _first_of_each(held_out, _stratified(_different(held_out), count, spare=0))


def _different(examples: Sequence[Example]) -> dict[str, str]:
    """Digest of each different training picture -> the first folder it lies in."""
    shared = {example.sha256 for example in examples if example.is_regularization}
    folders: dict[str, str] = {}
    for example in examples:
        if not example.is_regularization and example.sha256 not in shared:
            folders.setdefault(example.sha256, example.folder)
    return folders


def _wanted(pictures: int, fraction: float | None) -> int:
    if fraction is None:
        return min(max(round(_DEFAULT_SHARE * pictures), _FEWEST), _MOST) if pictures >= _ENOUGH_BY_DEFAULT else 0
    return max(round(fraction * pictures), _FEWEST) if fraction > 0 else 0


def _stratified(folders: Mapping[str, str], count: int, *, spare: int) -> frozenset[str]:
    """`count` digests, from each folder in proportion; `spare` pictures of each folder are left."""
    groups: dict[str, list[str]] = {}
    for digest, folder in folders.items():
        groups.setdefault(folder, []).append(digest)
    room = {folder: max(0, len(group) - spare) for folder, group in groups.items()}
    taken = dict.fromkeys(groups, 0)
    for _ in range(min(count, sum(room.values()))):
        # The folder that is furthest behind its share; Sainte-Laguë's divisors, so that small ones get their turn.
        open_folders = [folder for folder in groups if taken[folder] < room[folder]]
        best = max(open_folders, key=lambda folder: (len(groups[folder]) / (2 * taken[folder] + 1), folder))
        taken[best] += 1
    return frozenset(
        digest for folder, group in groups.items() for digest in sorted(group, key=_place)[: taken[folder]]
    )


def _place(digest: str) -> tuple[int, str]:
    return derive_seed(0, Purpose.HOLD_OUT, digest), digest


def _first_of_each(examples: Sequence[Example], digests: frozenset[str]) -> tuple[Example, ...]:
    found: dict[str, Example] = {}
    for example in examples:
        if example.sha256 in digests and not example.is_regularization:
            found.setdefault(example.sha256, example)
    return tuple(found.values())


def _none_held_out(pictures: int, fraction: float | None) -> str | None:
    if fraction == 0:
        return None
    if fraction is not None:
        raise InvalidConfiguration(
            f"{_FIELD} is {fraction:g}, but of {pictures} different training pictures fewer than {_FEWEST} can be held "
            "out when every concept folder keeps one; add pictures, or set it to 0 to train on all"
        )
    return (
        f"No picture is held out, because there are only {pictures} different ones: the best epoch is then chosen by "
        f"gain against drift, with low confidence; {_FIELD} holds some out all the same."
    )


def _notice(examples: Sequence[Example]) -> str:
    training = [example for example in examples if not example.is_regularization]
    names = [example.key for example in training if example.is_held_out]
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return (
        f"{len(names)} of {len(training)} pictures are held out to measure over-fitting and are not trained on: "
        f"{', '.join(names[:_SHOWN_NAMES])}{more}; {_FIELD}: 0 trains on all."
    )
