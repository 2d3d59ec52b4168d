"""Where the parts of a base model are read from: a diffusers folder or a single file, behind one interface.

Used by the families' `load`, and by `run` for the digests.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from lora_api.model_spec import Family, Prediction
from lora_trainer.families.base import BetaSchedule

TextPart = Literal["text_encoder", "text_encoder_2"]
ModelPart = Literal["unet", "vae"] | TextPart


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
    def vae_digest(self) -> str:
        """SHA-256 over the files of the VAE alone: what latents depend on."""
        ...

    def load(self, part: ModelPart, model_class: Any, *, precision: torch.dtype) -> Any:
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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def old_hash_of(path: Path) -> str:
    """First 8 digits of the SHA-256 over 64 KiB of a file, from 1 MiB on: what web UIs first told models by."""
    with path.open("rb") as file:
        file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


def join_digests(parts: dict[str, str]) -> str:
    """SHA-256 over named digests, in hex; the order of `parts` does not matter."""
    lines = [f"{name} {digest}\n" for name, digest in sorted(parts.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def first_line(error: Exception) -> str:
    """What a library's error says, short enough for a message of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
