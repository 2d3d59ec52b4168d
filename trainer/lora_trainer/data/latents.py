"""The encoded pictures: where a draw's latent comes from, and the encoding of all views ahead of the training.

Built by `run` with the encoder of the base model, read by the loader. Views are encoded one at a time, so that a
latent depends on its picture alone: not on the batch size, the order, or what else is in the dataset.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor

from lora_trainer.data.augment import Pixels, View
from lora_trainer.data.latent_store import LatentFiles
from lora_trainer.data.prefetch import in_order
from lora_trainer.data.views import Pictures
from lora_trainer.errors import InvalidDataset

Encode = Callable[[Tensor], Tensor]
"""Pixels (B, 3, H, W) in -1..1 to latents (B, C, h, w): a deterministic function, such as the posterior's mean."""
OnProgress = Callable[[int, int], None]
"""Called with (views ready, all) after each view; what it raises ends the encoding."""
Finish = Callable[[], Tensor]
"""Gives a latent (C, h, w), fp32; it may have to go through the VAE, so only the main thread calls it."""

_FORMAT = 1
"""Raised whenever the same picture and settings would give other latents."""
_UPLOADS = 8


class LatentSource(Protocol):
    """Where latents come from while the training runs."""

    def load(self, view: View) -> Finish:
        """Does what can be done ahead, in any thread; the result gives the latent (C, h, w), in the main thread."""
        ...


@dataclass(frozen=True)
class Encoder:
    """The VAE."""

    encode: Encode
    digest: str
    """SHA-256 of its weights and configuration."""
    precision: str = "fp32"
    """Number format in which it computes."""


class EncodedOnDemand:
    """Keeps nothing: every draw goes through the VAE."""

    def __init__(self, pictures: Pictures, encoder: Encoder) -> None:
        self.pictures, self._encoder = pictures, encoder

    def load(self, view: View) -> Finish:
        """Reads the pixels of the view; the result encodes them."""
        pixels = self.pictures.pixels(view)
        return lambda: self.encode(view, pixels)

    def encode(self, view: View, pixels: Pixels) -> Tensor:
        """Their latent (C, h, w), fp32, on the CPU. Raises InvalidDataset that names the picture if not finite."""
        with torch.no_grad():
            latent = self._encoder.encode(to_tensor(pixels))[0].to(device="cpu", dtype=torch.float32).clone()
        if not bool(torch.isfinite(latent).all()):
            raise InvalidDataset(
                f"{self.pictures[view.index].example.key} gives latents that are not finite",
                hint="Replace the picture, or the VAE by spec.baseModel.vaeUri: some overflow on some pictures.",
            )
        return latent

    def key(self, view: View) -> str:
        """SHA-256 over everything that the latent of a view depends on, the VAE included."""
        parts = [_FORMAT, self._encoder.digest, self._encoder.precision, *self.pictures.content_key(view)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class LatentsInMemory:
    """All views, encoded."""

    def __init__(self, latents: Mapping[View, Tensor]) -> None:
        self._latents = dict(latents)

    def load(self, view: View) -> Finish:
        """The latent of a view that was encoded."""
        latent = self._latents[view]
        return lambda: latent

    def to(self, device: torch.device | str) -> "LatentsInMemory":
        """The same on a device."""
        return LatentsInMemory({view: latent.to(device) for view, latent in self._latents.items()})

    def to_bytes(self, views: Sequence[View]) -> bytes:
        """Some of them, for another process."""
        return save({repr(view): self._latents[view] for view in views})

    @staticmethod
    def from_bytes(parts: Iterable[bytes], views: Sequence[View]) -> "LatentsInMemory":
        """What processes have encoded of `views`, together."""
        latents = {name: latent for data in parts for name, latent in load(data).items()}
        return LatentsInMemory({view: latents[repr(view)] for view in views})

    @property
    def size_bytes(self) -> int:
        """Memory that the latents take."""
        return sum(latent.nbytes for latent in self._latents.values())


class LatentsInFiles:
    """Views in files; one that is missing or damaged is encoded again and kept."""

    def __init__(self, source: EncodedOnDemand, files: LatentFiles) -> None:
        self._source, self._files = source, files

    def load(self, view: View) -> Finish:
        """Reads the latent, or the pixels if there is none that can be read; those are encoded and kept."""
        found = self.read(view)
        if isinstance(found, Tensor):
            return lambda: found
        return lambda: self._encoded(view, found)

    def read(self, view: View) -> Tensor | Pixels:
        """The latent, or else the pixels; may be called from any thread."""
        latent = self._files.get(self._source.key(view))
        return self._source.pictures.pixels(view) if latent is None else latent

    def keep(self, view: View, latent: Tensor) -> None:
        """Writes a latent; may be called from any thread."""
        self._files.put(self._source.key(view), latent)

    def _encoded(self, view: View, pixels: Pixels) -> Tensor:
        latent = self._source.encode(view, pixels)
        self.keep(view, latent)
        return latent


@dataclass(frozen=True)
class Encoded:
    """What an encoding did."""

    encoded: int
    """Views that went through the VAE."""
    found: int
    """Views that an earlier run had kept."""


def encode_to_memory(
    source: EncodedOnDemand, views: Sequence[View], *, workers: int, on_progress: OnProgress
) -> LatentsInMemory:
    """All `views`, on the CPU; `workers` threads decode ahead and never change the result.

    Raises:
        InvalidDataset: a picture cannot be read any more, or its latent is not finite; it is named.
    """
    latents: dict[View, Tensor] = {}
    with closing(in_order(source.pictures.pixels, views, workers=workers)) as decoded:
        for view, pixels in zip(views, decoded, strict=True):
            latents[view] = source.encode(view, pixels)
            on_progress(len(latents), len(views))
    return LatentsInMemory(latents)


def encode_to_files(
    source: EncodedOnDemand, files: LatentFiles, views: Sequence[View], *, workers: int, on_progress: OnProgress
) -> tuple[LatentsInFiles, Encoded]:
    """All `views` in `files`; those that lie there already are read and verified instead of encoded.

    Raises:
        InvalidDataset: as `encode_to_memory`.
        TrainingError: as the backend of `files` says.
    """
    latents = LatentsInFiles(source, files)
    encoded = 0
    with _keeping(latents) as keep, closing(in_order(latents.read, views, workers=workers)) as read:
        for done, (view, found) in enumerate(zip(views, read, strict=True), start=1):
            if not isinstance(found, Tensor):
                keep(view, source.encode(view, found))
                encoded += 1
            on_progress(done, len(views))
    return latents, Encoded(encoded, len(views) - encoded)


def to_tensor(pixels: Pixels) -> Tensor:
    """Pixels (H, W, 3) of 0..255 as a tensor (1, 3, H, W) in -1..1."""
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0)
    return tensor.to(torch.float32) / 127.5 - 1.0


@contextmanager
def _keeping(latents: LatentsInFiles) -> Iterator[Callable[[View, Tensor], None]]:
    """A function that writes latents by threads, since a store answers slowly; at the end all are written."""
    waiting: list[Future[None]] = []
    with ThreadPoolExecutor(max_workers=_UPLOADS, thread_name_prefix="keep") as pool:

        def keep(view: View, latent: Tensor) -> None:
            if len(waiting) >= 2 * _UPLOADS:
                waiting.pop(0).result()
            waiting.append(pool.submit(latents.keep, view, latent))

        try:
            yield keep
            for future in waiting:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
