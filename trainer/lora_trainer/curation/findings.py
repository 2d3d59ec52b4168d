"""What an audit can find, and how bad each kind of it is. Used by the checks, `audit` and `lora captions audit`."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Severity = Literal["problem", "hint"]
"""problem: costs quality or a failed run, and the cure is clear. hint: worth a look, and may be meant so."""


class Kind(Enum):
    """Kinds of findings: the name in JSON, what people read, and how bad it is; in the order of a report."""

    LAYOUT = ("Layout", "Files that a training refuses or leaves out", "problem")
    UNREADABLE_PICTURE = ("UnreadablePicture", "Pictures that cannot be read", "problem")
    MISSING_CAPTION = ("MissingCaption", "Pictures without caption", "problem")
    UNUSABLE_CAPTION = ("UnusableCaption", "Caption files that are empty or cannot be read", "problem")
    ORPHANED_CAPTION = ("OrphanedCaption", "Caption files without picture", "hint")
    MISSING_TRIGGER = ("MissingTrigger", "Captions without the trigger word", "problem")
    TRIGGER_IN_REGULARIZATION = ("TriggerInRegularization", "Regularisation captions with the trigger word", "problem")
    LONG_CAPTION = ("LongCaption", "Captions whose end is cut off", "problem")
    SIMILAR_TAGS = ("SimilarTags", "Tags that mean the same in several spellings", "problem")
    REPEATED_TAG = ("RepeatedTag", "Tags twice in a caption", "hint")
    RARE_TAG = ("RareTag", "Tags on few pictures", "hint")
    SAME_FILE = ("SameFile", "The same file several times", "problem")
    SAME_PICTURE = ("SamePicture", "The same picture in several files", "problem")
    SMALL_PICTURE = ("SmallPicture", "Pictures that are enlarged", "problem")
    BLURRED_PICTURE = ("BlurredPicture", "Pictures that look blurred", "hint")
    CROPPED_PICTURE = ("CroppedPicture", "Pictures that lose much to their bucket", "hint")

    def __init__(self, label: str, title: str, severity: Severity) -> None:
        self.label = label
        self.title = title
        self.severity: Severity = severity


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be."""

    kind: Kind
    message: str
    """What is the case, with the values seen; no file names but where they are the point."""
    files: tuple[str, ...]
    """Names of the files concerned, ascending; relative to the dataset."""
    cure: str
    """What to do, as a sentence without a full stop."""


def finding_of(kind: Kind, sentence: str, files: tuple[str, ...]) -> Finding:
    """A finding of what the readers of datasets say: what is wrong, `; ` and the cure, or what is wrong alone."""
    message, _, cure = sentence.rpartition("; ")
    return Finding(kind, message or cure, files, cure[:1].upper() + cure[1:] if message else "Look at it")
