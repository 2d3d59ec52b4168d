"""One picture with its caption, as the scan hands it on to buckets, latents and batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_api.dataset_spec import Augmentation, Captions
from lora_trainer.data.captions import CaptionSource

MaskKind = Literal["None", "Alpha", "Files"]


@dataclass(frozen=True)
class Example:
    """One picture with its caption and what its subset says about both."""

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
    """First line of the caption as it was written, without prefix and suffix."""
    caption_lines: tuple[str, ...]
    """What draws choose from: every line with `wildcards`, else the caption alone."""
    caption_source: CaptionSource
    captions: Captions
    """Rules of its captions, those of its subset included."""
    augmentation: Augmentation
    """Random changes to it, those of its subset included."""
    repeats: int
    is_regularization: bool
    folder: str
    """Name of its folder, such as `10_hina woman`, or of its subset."""
    class_tokens: str
    """Text of its folder's name, or `classTokens` of its subset."""
    sha256: str
    """Digest of the picture's file."""
    mask: MaskKind
    """Where its loss mask comes from."""
    mask_path: Path | None
    """Its mask's file; None without one and for the kind `Alpha`."""
    mask_sha256: str | None
    """Digest of the mask's file."""
    is_held_out: bool = False
    """Whether it is never trained on, but measured."""

    @property
    def drops_alpha(self) -> bool:
        """Whether its transparency is the mask, and so is not laid over white: argument of `images.read_rgb`."""
        return self.mask == "Alpha"

    @property
    def content(self) -> str:
        """What its RGB pixels depend on: the file, and what becomes of its transparency. For keys of caches."""
        return f"{self.sha256} without alpha" if self.drops_alpha else self.sha256
