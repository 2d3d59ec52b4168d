"""What is to be fetched: a URI of the spec, the field it stands in, and who is to blame when it is unusable."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from lora_trainer.errors import TrainingError

OnBytes = Callable[[int], None]
"""Called with every number of bytes moved, never by two threads at once; what it raises ends the transfer."""


@dataclass(frozen=True)
class Source:
    """One URI of the spec."""

    uri: str
    field: str
    """YAML path, such as `spec.dataset.uri`; begins every message."""
    unusable: type[TrainingError]
    """What is raised when nothing usable lies there."""
    patterns: tuple[str, ...] = ()
    """Only files whose relative path matches one of these (`*` matches `/` too); none: all files."""
    repository: Literal["model", "dataset"] = "model"
    """Which of the two a hub is asked for: it keeps them apart, under names that may be the same."""

    def choose(self, names: Iterable[str]) -> frozenset[str]:
        """Which files of the folder are to be fetched, by relative path.

        Weights in half precision (`x.fp16.safetensors`) are left out where the full ones (`x.safetensors`) lie
        beside them: only one of the two is loaded, and they are most of a model's bytes.
        """
        wanted = {name for name in names if not self.patterns or any(fnmatchcase(name, p) for p in self.patterns)}
        return frozenset(name for name in wanted if ".fp16." not in name or name.replace(".fp16.", ".") not in wanted)
