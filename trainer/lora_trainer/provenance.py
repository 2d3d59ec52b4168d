"""What a run was made of, in enough detail to say in words what changed since. Pure.

Lies beside states and results as `provenance.json`; used by `prepare`, `states`, `results` and `preflight`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from lora_trainer.digests import join_digests
from lora_trainer.errors import InvalidConfiguration

_SHOWN = 10
_LONGEST_VALUE = 80
_ABSENT = object()


@dataclass(frozen=True)
class Provenance:
    """Everything that a result depends on."""

    spec: Mapping[str, Any]
    """The settings that count, as `run_manifest.result_settings` gives them."""
    dataset: Mapping[str, str]
    """Path of each picture -> digest of picture, caption, mask and of how often it is seen."""
    base: Mapping[str, str]
    """Name of each file of base model, VAE and adapters -> digest."""

    @property
    def dataset_digest(self) -> str:
        """One digest for all pictures."""
        return join_digests(self.dataset)

    @property
    def base_digest(self) -> str:
        """One digest for all files of the base."""
        return join_digests(self.base)

    def apart_from_evaluation(self) -> "Provenance":
        """The same without the settings that belong to the evaluation: what is held out, and when it ends early."""
        spec = {name: value for name, value in self.spec.items() if name != "evaluation"}
        dataset = {name: value for name, value in spec.get("dataset", {}).items() if name != "validationFraction"}
        return replace(self, spec={**spec, "dataset": dataset})

    def to_json(self) -> str:
        """Canonical: equal provenances give equal texts."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, indent=0) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Provenance":
        """What `to_json` wrote. Raises ValueError."""
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        spec, dataset, base = (content.get(name) for name in ("spec", "dataset", "base"))
        if not (isinstance(spec, dict) and isinstance(dataset, dict) and isinstance(base, dict)):
            raise ValueError("it holds no spec, dataset and base")
        if not all(isinstance(value, str) for value in (*dataset.values(), *base.values())):
            raise ValueError("a digest in it is no text")
        return cls(spec, dataset, base)


@dataclass(frozen=True)
class Differences:
    """Sentences for people, at most 11 of each kind; none where nothing differs."""

    spec: tuple[str, ...]
    dataset: tuple[str, ...]
    base: tuple[str, ...]

    @property
    def in_data(self) -> tuple[str, ...]:
        """Those in pictures, captions and base model."""
        return (*self.dataset, *self.base)

    @property
    def all(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.spec, *self.in_data)


def differences(before: Provenance, now: Provenance) -> Differences:
    """What changed from `before` to `now`; nothing exactly if the digests of both are equal."""
    return Differences(
        spec=_bounded(list(_setting_changes("spec", before.spec, now.spec))),
        dataset=_picture_changes(before.dataset, now.dataset),
        base=_bounded(list(_file_changes(before.base, now.base))),
    )


def check_resumable(
    before: Provenance, now: Provenance, *, on_change: Literal["Refuse", "Continue"], place: str
) -> bool:
    """Whether pictures or base model changed since the state at `place`, where going on is allowed all the same.

    Raises:
        InvalidConfiguration: the state is of other settings; or of other data, and `on_change` is Refuse.
    """
    found = differences(before, now)
    if found.spec:
        raise InvalidConfiguration(
            f"spec.output.uri holds a state of a run with other settings ({place}): {'; '.join(found.spec)}; choose "
            "another folder, undo the change, or remove the folder state/ there"
        )
    if found.in_data and on_change == "Refuse":
        raise InvalidConfiguration(
            f"spec.output.uri holds a state of a run on other data ({place}): {'; '.join(found.in_data)}; restore the "
            "files, choose another folder, or set spec.resume.onChange to Continue"
        )
    return bool(found.in_data)


_MEANT = {"spec.training.gradientAccumulationSteps": " x processes of spec.parallelism"}
"""What a setting stands for in `result_settings` that is not the field alone."""


def _setting_changes(path: str, before: Any, now: Any) -> Iterator[str]:
    if _canonical(before) == _canonical(now):
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted({*before, *now}):
            yield from _setting_changes(f"{path}.{name}", before.get(name, _ABSENT), now.get(name, _ABSENT))
    elif _are_lists(before, now) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from _setting_changes(f"{path}[{index}]", *pair)
    else:
        yield f"{path}{_MEANT.get(path, '')} was {_shown(before)} and is {_shown(now)}"


def _are_lists(*values: Any) -> bool:
    return all(isinstance(value, Sequence) and not isinstance(value, str) for value in values)


def _canonical(value: Any) -> str:
    """Told apart as JSON does: 1 is not 1.0, and not true."""
    return "" if value is _ABSENT else json.dumps(value, sort_keys=True)


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    if value is None:
        return "not set"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _picture_changes(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    new, gone = sorted(now.keys() - before.keys()), sorted(before.keys() - now.keys())
    changed = sorted(path for path in before.keys() & now.keys() if before[path] != now[path])
    groups = (
        (new, "1 picture is new", "pictures are new"),
        (changed, "1 picture or its caption changed", "pictures or captions changed"),
        (gone, "1 picture is gone", "pictures are gone"),
    )
    return tuple(
        f"{one if len(paths) == 1 else f'{len(paths)} {many}'}: {', '.join(_bounded(paths))}"
        for paths, one, many in groups
        if paths
    )


def _file_changes(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*before, *now}):
        if name not in before:
            yield f"{name} is new"
        elif name not in now:
            yield f"{name} is gone"
        elif before[name] != now[name]:
            yield f"{name} changed"


def _bounded(sentences: Sequence[str]) -> tuple[str, ...]:
    more = len(sentences) - _SHOWN
    return tuple(sentences) if more <= 0 else (*sentences[:_SHOWN], f"and {more} more")
