"""The pictures of a dataset folder with their captions, all problems found at once.

kohya's folder convention: `<repeats>_<concept>/` folders hold pictures with a caption file beside each, and
`reg/` beside them holds folders of the same shape for regularisation. Used before the plan, and by `lora plan`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Example:
    """One picture with its caption."""

    index: int
    """Place in the scanned dataset."""
    path: Path
    key: str
    """Path relative to the dataset with `/`: its name in messages, the same wherever the dataset lies."""
    width_px: int
    """Width after the EXIF rotation."""
    height_px: int
    """Height after the EXIF rotation."""
    caption: str
    caption_source: Literal["file", "folder"]
    repeats: int
    is_regularization: bool
    folder: str
    """Name of its folder, such as `10_hina woman`."""
    sha256: str
    """Digest of the picture's file."""


@dataclass(frozen=True)
class ScannedDataset:
    """All pictures: concept folders by name, then those of `reg/` by name, files by name inside."""

    examples: tuple[Example, ...]
    digest: str
    """SHA-256 over keys, picture digests and captions: the same content gives the same digest anywhere."""
    warnings: tuple[str, ...]
