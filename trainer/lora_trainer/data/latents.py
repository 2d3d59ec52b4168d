"""The encoded pictures, kept in memory: every picture goes through the VAE once, not once an epoch.

Built by `run` with the encoder of the base model, read by the loop. Pictures are encoded one at a time, so that
a latent depends on its picture alone: not on the batch size, the order, or what else is in the dataset.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lora_trainer.data.images import UnusableImage, load_pixels
from lora_trainer.data.placed import PlacedExample
from lora_trainer.errors import InvalidDataset

Encode = Callable[[Tensor], Tensor]
"""Pixels (B, 3, H, W) in -1..1 to latents (B, C, h, w): a deterministic function, such as the posterior's mean."""
OnProgress = Callable[[int, int], None]
"""Called with (encoded, all) after each picture; what it raises ends the encoding."""

_AHEAD = 8


class LatentCache:
    """Latents by (example index, mirrored)."""

    def __init__(self, latents: Mapping[tuple[int, bool], Tensor]) -> None:
        self._latents = dict(latents)

    def get(self, index: int, *, flipped: bool) -> Tensor:
        """The latent (C, h, w), fp32, of an example; `flipped` only if the cache was built with mirrored ones."""
        return self._latents[index, flipped]

    def to(self, device: torch.device | str) -> "LatentCache":
        """The same cache on a device."""
        return LatentCache({key: latent.to(device) for key, latent in self._latents.items()})

    @property
    def size_bytes(self) -> int:
        """Memory that the latents take."""
        return sum(latent.nbytes for latent in self._latents.values())


def encode_pictures(
    pictures: Sequence[PlacedExample], encode: Encode, *, flip: bool, workers: int, on_progress: OnProgress
) -> LatentCache:
    """The cache of all `pictures`, with mirrored ones beside them if `flip`; on the CPU.

    `workers` threads decode ahead; they never change the result.

    Raises:
        InvalidDataset: a picture cannot be read any more, or its latent is not finite; it is named.
    """
    latents: dict[tuple[int, bool], Tensor] = {}
    for done, (picture, pixels) in enumerate(_decoded(pictures, workers), start=1):
        for flipped in (False, True) if flip else (False,):
            seen = pixels[:, ::-1] if flipped else pixels
            latents[picture.example.index, flipped] = _encode_one(picture, seen, encode)
        on_progress(done, len(pictures))
    return LatentCache(latents)


def to_tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Pixels (H, W, 3) of 0..255 as a tensor (1, 3, H, W) in -1..1."""
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0)
    return tensor.to(torch.float32) / 127.5 - 1.0


def _encode_one(picture: PlacedExample, pixels: npt.NDArray[np.uint8], encode: Encode) -> Tensor:
    with torch.no_grad():
        latent = encode(to_tensor(pixels))[0].to(device="cpu", dtype=torch.float32).clone()
    if not bool(torch.isfinite(latent).all()):
        raise InvalidDataset(
            f"{picture.example.key} gives latents that are not finite",
            hint="Replace the picture, or use spec.training.precision bf16 or fp32.",
        )
    return latent


def _decoded(pictures: Sequence[PlacedExample], workers: int) -> Iterator[tuple[PlacedExample, npt.NDArray[np.uint8]]]:
    """Every picture with its pixels, in order; a few are decoded ahead."""
    if workers == 0:
        for picture in pictures:
            yield picture, _pixels(picture)
        return
    waiting: deque[tuple[PlacedExample, Future[npt.NDArray[np.uint8]]]] = deque()
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode") as pool:
        try:
            for picture in pictures:
                waiting.append((picture, pool.submit(_pixels, picture)))
                if len(waiting) > max(_AHEAD, workers):
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _pixels(picture: PlacedExample) -> npt.NDArray[np.uint8]:
    try:
        return load_pixels(picture.example.path, picture.placement)
    except (UnusableImage, OSError) as error:
        raise InvalidDataset(f"{picture.example.key} can no longer be read: {error}") from error
