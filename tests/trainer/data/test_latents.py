"""Encoded pictures depend on the picture alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lora_api.dataset_spec import Dataset
from lora_trainer.data.dataset import scan
from lora_trainer.data.latents import encode_pictures, to_tensor
from lora_trainer.data.placed import PlacedExample, place_examples
from lora_trainer.errors import InvalidDataset

SPEC = Dataset(uri="s3://lora/data", resolution=64)


def encode(pixels: Tensor) -> Tensor:
    """A stand-in for a VAE: 8 x 8 px means of each channel, and of their sum."""
    means = torch.nn.functional.avg_pool2d(pixels, 8)
    return torch.cat([means, means.sum(1, keepdim=True)], dim=1)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[PlacedExample, ...]:
    rng = np.random.default_rng(0)
    (tmp_path / "1_x").mkdir()
    for number in range(12):
        noise = rng.integers(0, 255, (64, 64 + 16 * (number % 2), 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "1_x" / f"{number:02}.png")
    return place_examples(scan(tmp_path, SPEC).examples, SPEC)


def test_pixels_become_a_tensor_of_minus_one_to_one() -> None:
    tensor = to_tensor(np.array([[[0, 127, 255]]], dtype=np.uint8))

    assert tensor.shape == (1, 3, 1, 1)
    assert tensor.flatten().tolist() == pytest.approx([-1.0, -1 / 255, 1.0])


def test_neither_workers_nor_order_nor_company_change_a_latent(pictures: tuple[PlacedExample, ...]) -> None:
    everything = encode_pictures(pictures, encode, flip=True, workers=3, on_progress=lambda *_: None)
    alone = encode_pictures(pictures[5:2:-1], encode, flip=False, workers=0, on_progress=lambda *_: None)

    assert all(torch.equal(alone.get(i, flipped=False), everything.get(i, flipped=False)) for i in (3, 4, 5))


def test_a_mirrored_latent_is_that_of_the_mirrored_picture(pictures: tuple[PlacedExample, ...]) -> None:
    cache = encode_pictures(pictures, encode, flip=True, workers=0, on_progress=lambda *_: None)

    assert torch.allclose(cache.get(1, flipped=True), cache.get(1, flipped=False).flip(-1), atol=1e-6)
    assert not torch.equal(cache.get(1, flipped=True), cache.get(1, flipped=False))


def test_a_latent_has_the_shape_of_its_bucket(pictures: tuple[PlacedExample, ...]) -> None:
    cache = encode_pictures(pictures, encode, flip=False, workers=2, on_progress=lambda *_: None)

    for one in pictures:
        width, height = one.placement.bucket
        assert cache.get(one.example.index, flipped=False).shape == (4, height // 8, width // 8)
    assert cache.size_bytes == sum(
        4 * 4 * (p.placement.bucket[0] // 8) * (p.placement.bucket[1] // 8) for p in pictures
    )


def test_progress_is_told_after_every_picture_and_may_end_it(pictures: tuple[PlacedExample, ...]) -> None:
    told: list[tuple[int, int]] = []

    class Stop(Exception):
        pass

    def on_progress(done: int, total: int) -> None:
        told.append((done, total))
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        encode_pictures(pictures, encode, flip=False, workers=2, on_progress=on_progress)

    assert told == [(1, 12), (2, 12), (3, 12)]


def test_a_latent_that_is_not_finite_names_its_picture(pictures: tuple[PlacedExample, ...]) -> None:
    with pytest.raises(InvalidDataset, match=r"1_x/00\.png gives latents that are not finite"):
        encode_pictures(pictures, lambda p: encode(p) / 0, flip=False, workers=0, on_progress=lambda *_: None)


def test_a_picture_that_vanished_is_named(pictures: tuple[PlacedExample, ...]) -> None:
    pictures[7].example.path.unlink()

    with pytest.raises(InvalidDataset, match=r"1_x/07\.png can no longer be read"):
        encode_pictures(pictures, encode, flip=False, workers=2, on_progress=lambda *_: None)
