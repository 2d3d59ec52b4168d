"""A latent depends on its picture, its view and the VAE, and on nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_trainer.data.latent_store import LatentFiles
from lora_trainer.data.latents import (
    Encoded,
    EncodedOnDemand,
    Encoder,
    LatentsInFiles,
    LatentsInMemory,
    encode_to_files,
    encode_to_memory,
    to_tensor,
)
from lora_trainer.data.views import Pictures
from lora_trainer.errors import InvalidDataset, StorageUnavailable
from lora_trainer.plan import TrainingPlan, derive_plan
from tests.support.documents import make_training
from tests.support.placed import make_dataset, make_example, place, write_noise

COUNT = 6


class Vae:
    """A stand-in for a VAE: 8 x 8 px means of each channel, and of their sum. Counts its pictures."""

    def __init__(self) -> None:
        self.pictures = 0

    def __call__(self, pixels: Tensor) -> Tensor:
        assert len(pixels) == 1
        self.pictures += 1
        means = torch.nn.functional.avg_pool2d(pixels, 8)
        return torch.cat([means, means.sum(1, keepdim=True)], dim=1)


def ignore(done: int, total: int) -> None:
    """No progress is shown."""


def make_pictures(folder: Path, **dataset: Any) -> tuple[Pictures, TrainingPlan]:
    """Six pictures of noise, two sizes, in buckets of 64 px and above."""
    spec = make_dataset(buckets={"stepPx": 32}, **dataset)
    examples = [
        make_example(
            write_noise(folder / f"{index}.png", (64, 64 + 32 * (index % 2)), seed=index),
            index,
            (64, 64 + 32 * (index % 2)),
            augmentation=spec.augmentation,
        )
        for index in range(COUNT)
    ]
    placed = place(spec, *examples)
    training = make_training(("dataset", {**spec.to_document()})).spec
    return Pictures(placed, spec, seed=1), derive_plan([one.to_planned() for one in placed], training)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Pictures, TrainingPlan]:
    return make_pictures(tmp_path / "data", augmentation={"flip": True})


def source_of(pictures: Pictures, vae: Any, digest: str = "vae") -> EncodedOnDemand:
    return EncodedOnDemand(pictures, Encoder(vae, digest))


def test_pixels_become_a_tensor_of_minus_one_to_one() -> None:
    tensor = to_tensor(torch.tensor([[[0, 127, 255]]], dtype=torch.uint8).numpy())

    assert tensor.shape == (1, 3, 1, 1)
    assert tensor.flatten().tolist() == pytest.approx([-1.0, -1 / 255, 1.0])


def test_neither_workers_nor_order_nor_company_change_a_latent(pictures: tuple[Pictures, TrainingPlan]) -> None:
    source, views = source_of(pictures[0], Vae()), pictures[0].kept_views(pictures[1])

    everything = encode_to_memory(source, views, workers=3, on_progress=ignore)
    some = encode_to_memory(source, views[5:2:-1], workers=0, on_progress=ignore)

    assert all(torch.equal(some.load(view)(), everything.load(view)()) for view in views[3:6])


def test_shares_that_were_encoded_apart_are_the_whole(pictures: tuple[Pictures, TrainingPlan]) -> None:
    source, views = source_of(pictures[0], Vae()), pictures[0].kept_views(pictures[1])
    shares = [views[part::5] for part in range(5)] + [()]

    encoded = (encode_to_memory(source, share, workers=0, on_progress=ignore).to_bytes(share) for share in shares)
    together = LatentsInMemory.from_bytes(encoded, views)

    whole = encode_to_memory(source, views, workers=0, on_progress=ignore)
    assert all(torch.equal(together.load(view)(), whole.load(view)()) for view in views)


def test_both_sides_of_a_mirrored_picture_are_encoded(pictures: tuple[Pictures, TrainingPlan]) -> None:
    views = pictures[0].kept_views(pictures[1])

    latents = encode_to_memory(source_of(pictures[0], Vae()), views, workers=0, on_progress=ignore)

    assert [(view.index, view.mirrored) for view in views] == [
        (i, side) for i in range(COUNT) for side in (False, True)
    ]
    for straight, mirrored in zip(views[::2], views[1::2], strict=True):
        assert torch.allclose(latents.load(mirrored)(), latents.load(straight)().flip(-1), atol=1e-6)
        assert not torch.equal(latents.load(mirrored)(), latents.load(straight)())


def test_a_latent_has_the_shape_of_its_bucket(pictures: tuple[Pictures, TrainingPlan]) -> None:
    views = pictures[0].kept_views(pictures[1])

    latents = encode_to_memory(source_of(pictures[0], Vae()), views, workers=0, on_progress=ignore)

    shapes = [(4, view.bucket[1] // 8, view.bucket[0] // 8) for view in views]
    assert [latents.load(view)().shape for view in views] == shapes
    assert len(set(shapes)) == 2
    assert latents.size_bytes == sum(4 * 4 * h * w for _, h, w in shapes)


def test_progress_is_told_after_every_view_and_may_end_the_encoding(pictures: tuple[Pictures, TrainingPlan]) -> None:
    told: list[tuple[int, int]] = []

    class Stop(Exception):
        pass

    def on_progress(done: int, total: int) -> None:
        told.append((done, total))
        if done == 3:
            raise Stop

    views = pictures[0].kept_views(pictures[1])
    with pytest.raises(Stop):
        encode_to_memory(source_of(pictures[0], Vae()), views, workers=2, on_progress=on_progress)

    assert told == [(1, 12), (2, 12), (3, 12)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_latent_that_is_not_finite_names_its_picture(pictures: tuple[Pictures, TrainingPlan], bad: float) -> None:
    def vae(pixels: Tensor) -> Tensor:
        return torch.full((1, 4, 8, 8), bad)

    with pytest.raises(InvalidDataset, match=r"1_x/0\.png gives latents that are not finite"):
        encode_to_memory(
            source_of(pictures[0], vae), pictures[0].kept_views(pictures[1]), workers=0, on_progress=ignore
        )


def test_a_picture_that_vanished_is_named(tmp_path: Path, pictures: tuple[Pictures, TrainingPlan]) -> None:
    (tmp_path / "data" / "4.png").unlink()

    with pytest.raises(InvalidDataset, match=r"1_x/4\.png can no longer be read"):
        encode_to_memory(
            source_of(pictures[0], Vae()), pictures[0].kept_views(pictures[1]), workers=2, on_progress=ignore
        )


def in_files(pictures: Pictures, plan: TrainingPlan, folder: Path, vae: Vae, digest: str = "vae") -> Encoded:
    source = source_of(pictures, vae, digest)
    _, encoded = encode_to_files(source, LatentFiles(folder), pictures.kept_views(plan), workers=0, on_progress=ignore)
    return encoded


def test_a_second_run_finds_every_latent(tmp_path: Path, pictures: tuple[Pictures, TrainingPlan]) -> None:
    first = in_files(*pictures, tmp_path / "cache", Vae())
    vae = Vae()

    second = in_files(*pictures, tmp_path / "cache", vae)

    assert (first, second) == (Encoded(encoded=12, found=0), Encoded(encoded=0, found=12))
    assert vae.pictures == 0


def test_latents_from_files_are_those_from_memory(tmp_path: Path, pictures: tuple[Pictures, TrainingPlan]) -> None:
    source, views = source_of(pictures[0], Vae()), pictures[0].kept_views(pictures[1])
    memory = encode_to_memory(source, views, workers=0, on_progress=ignore)

    files, _ = encode_to_files(source, LatentFiles(tmp_path / "cache"), views, workers=2, on_progress=ignore)

    assert all(torch.equal(files.load(view)(), memory.load(view)()) for view in views)
    assert all(torch.equal(source.load(view)(), memory.load(view)()) for view in views)


def test_only_the_picture_that_was_edited_is_encoded_again(tmp_path: Path) -> None:
    in_files(*make_pictures(tmp_path / "data"), tmp_path / "cache", Vae())
    edited, plan = make_pictures(tmp_path / "data")
    edited[2].example.path.unlink()
    write_noise(tmp_path / "data" / "2.png", seed=99)
    spec = make_dataset(buckets={"stepPx": 32})
    changed = make_example(tmp_path / "data" / "2.png", 2)
    placed = place(spec, *(changed if index == 2 else edited[index].example for index in range(COUNT)))

    encoded = in_files(Pictures(placed, spec, seed=1), plan, tmp_path / "cache", Vae())

    assert encoded == Encoded(encoded=1, found=COUNT - 1)


@pytest.mark.parametrize(
    ("change", "digest"),
    [
        ({"resolution": 96}, "vae"),
        ({"buckets": {"stepPx": 32, "resizeFilter": "Bicubic"}}, "vae"),
        ({"buckets": {"enabled": False}, "resolution": "64x96"}, "vae"),
        ({}, "another vae"),
    ],
)
def test_other_sizes_filters_or_vaes_never_meet_a_stale_latent(
    tmp_path: Path, change: dict[str, Any], digest: str
) -> None:
    pictures, plan = make_pictures(tmp_path / "data")
    in_files(pictures, plan, tmp_path / "cache", Vae())
    spec = make_dataset(**{"buckets": {"stepPx": 32}} | change)
    placed = place(spec, *(pictures[index].example for index in range(COUNT)))

    encoded = in_files(Pictures(placed, spec, seed=1), plan, tmp_path / "cache", Vae(), digest)

    assert encoded == Encoded(encoded=COUNT, found=0)


def test_the_key_knows_the_precision_the_crop_the_alpha_and_every_change_of_pixels(tmp_path: Path) -> None:
    example = make_example(write_noise(tmp_path / "a_32_32_16_16.png", (96, 64)), size=(96, 64))
    keys = []
    for dataset in (
        {},
        {"buckets": {"enabled": False, "cropPosition": "Left"}},
        {"augmentation": {"flip": True}},
        {"augmentation": {"color": True}, "latentVariants": 9},
        {"augmentation": {"randomCrop": True}, "latentVariants": 9},
        {"augmentation": {"faceCropRange": {"minimum": 1.0, "maximum": 2.0}}, "latentVariants": 9},
    ):
        spec = make_dataset(**dataset)
        placed = place(spec, make_example(example.path, size=(96, 64), augmentation=spec.augmentation))
        training = make_training(("dataset", spec.to_document())).spec
        plan = derive_plan([one.to_planned() for one in placed], training)
        pictures = Pictures(placed, spec, seed=1)
        keys += [source_of(pictures, Vae()).key(view) for view in pictures.kept_views(plan)]
        if not dataset:
            keys.append(EncodedOnDemand(pictures, Encoder(Vae(), "vae", "bf16")).key(pictures.kept_views(plan)[0]))
    masked = place(make_dataset(), make_example(example.path, size=(96, 64), mask="Alpha"))
    pictures = Pictures(masked, make_dataset(), seed=1)
    keys.append(source_of(pictures, Vae()).key(pictures.kept_views(plan)[0]))

    # Of every augmentation the plain view comes up again, which is the same latent.
    plain = keys[0]
    assert len({key for key in keys if key != plain}) >= 1 + 1 + 1 + 2 + 8 + 9 + 1
    assert all(len(key) == 64 for key in keys)


def test_a_damaged_latent_is_encoded_again_while_the_training_runs(
    tmp_path: Path, pictures: tuple[Pictures, TrainingPlan]
) -> None:
    vae = Vae()
    source, files, views = source_of(pictures[0], vae), LatentFiles(tmp_path / "c"), pictures[0].kept_views(pictures[1])
    latents, _ = encode_to_files(source, files, views, workers=0, on_progress=ignore)
    expected = latents.load(views[0])()
    path = tmp_path / "c" / source.key(views[0])[:2] / f"{source.key(views[0])}.safetensors"
    path.write_bytes(b"\0" * 100)

    again = LatentsInFiles(source, files).load(views[0])()

    assert torch.equal(again, expected)
    assert vae.pictures == 13
    assert torch.equal(latents.load(views[0])(), expected)
    assert vae.pictures == 13


def test_a_store_that_fails_ends_the_encoding(tmp_path: Path, pictures: tuple[Pictures, TrainingPlan]) -> None:
    class Down:
        def get(self, key: str) -> bytes | None:
            return None

        def put(self, key: str, data: bytes) -> None:
            raise StorageUnavailable("the store is down")

    files = LatentFiles(tmp_path / "cache", Down())

    with pytest.raises(StorageUnavailable, match="the store is down"):
        encode_to_files(
            source_of(pictures[0], Vae()), files, pictures[0].kept_views(pictures[1]), workers=2, on_progress=ignore
        )
