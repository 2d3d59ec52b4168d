"""What is to be fetched: a URI of the spec, the field it stands in, and who is to blame when it is unusable."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

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

    def wants(self, relative: str) -> bool:
        """Whether a file of the folder is to be fetched."""
        return not self.patterns or any(fnmatchcase(relative, pattern) for pattern in self.patterns)
