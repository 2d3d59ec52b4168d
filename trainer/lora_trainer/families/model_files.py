"""Where the parts of a base model are read from: a diffusers folder or a single file, behind one interface.

Used by the families' `load`, and by `prepare` and `run` for the digests. Knows no torch until a part is loaded.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lora_api.model_spec import Family, Prediction

if TYPE_CHECKING:
    # Torch takes ten seconds to import, and what only looks at a model does without.
    import torch

TextPart = Literal["text_encoder", "text_encoder_2"]
ModelPart = Literal["unet", "vae"] | TextPart


@dataclass(frozen=True)
class BetaSchedule:
    """Variances of the forward process, as the model's scheduler configuration states them."""

    start: float
    end: float
    steps: int
    name: str
    """`scaled_linear` or `linear`."""


class ModelFiles(Protocol):
    """The files of one base model, identified but not yet loaded."""

    @property
    def family(self) -> Family: ...

    @property
    def prediction(self) -> Prediction: ...

    @property
    def digest(self) -> str:
        """SHA-256 over every file that a training reads, the same wherever they lie."""
        ...

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of each of these files, by names that begin with `model` or `vae`."""
        ...

    @property
    def vae_digest(self) -> str:
        """SHA-256 over the files of the VAE alone: what latents depend on."""
        ...

    def load(self, part: ModelPart, model_class: Any, *, precision: "torch.dtype") -> Any:
        """A part, on the CPU.

        Raises:
            BaseModelUnavailable: its files are missing or cannot be read, or weights are missing in them.
        """
        ...

    def load_tokenizer(self, encoder: TextPart, *, vocabulary: int) -> Any:
        """The tokenizer of a text encoder that knows `vocabulary` tokens. Raises BaseModelUnavailable."""
        ...

    def betas(self) -> BetaSchedule:
        """The noise schedule that the model was trained with. Raises BaseModelUnavailable."""
        ...


def old_hash_of(path: Path) -> str:
    """First 8 digits of the SHA-256 over 64 KiB of a file, from 1 MiB on: what web UIs first told models by."""
    with path.open("rb") as file:
        file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


def first_line(error: Exception) -> str:
    """What a library's error says, short enough for a message of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
