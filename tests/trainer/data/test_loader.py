"""Batches hold what their draws say, whoever reads it ahead."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lora_api.spec import LoraTrainingSpec
from lora_trainer.conditioning import size_conditions
from lora_trainer.data.augment import View
from lora_trainer.data.latents import EncodedOnDemand, Encoder, Finish, LatentSource, encode_to_memory
from lora_trainer.data.loader import Loader, TrainingBatch
from lora_trainer.data.sampler import steps_of_epoch
from lora_trainer.data.views import Pictures
from lora_trainer.errors import InvalidDataset
from lora_trainer.plan import TrainingPlan, derive_plan
from tests.support.documents import make_training
from tests.support.placed import make_example, place, write_noise

TRAINED, REGULARIZATION = 5, 3


def vae(pixels: Tensor) -> Tensor:
    """A stand-in: 8 x 8 px means of each channel, and of their sum."""
    means = torch.nn.functional.avg_pool2d(pixels, 8)
    return torch.cat([means, means.sum(1, keepdim=True)], dim=1)


class Case:
    """Five pictures of two sizes three times each and three for regularisation, on disk."""

    def __init__(self, folder: Path, *changes: tuple[str, Any], masks: bool = False) -> None:
        self.spec: LoraTrainingSpec = make_training(
            ("dataset.resolution", 64),
            ("dataset.buckets", {"stepPx": 32}),
            ("training", {"epochs": 3, "batchSize": 2, "gradientAccumulationSteps": 2, "seed": 5}),
            *changes,
        ).spec
        dataset = self.spec.dataset
        examples = []
        for index in range(TRAINED + REGULARIZATION):
            size = (64, 64) if index % 2 else (112, 40)
            path = write_noise(folder / f"{index}_56_20_20_20.png", size, seed=index)
            mask = self._write_mask(folder / f"mask{index}.png", size) if masks and index == 1 else None
            examples.append(
                make_example(
                    path,
                    index,
                    size,
                    caption_lines=(f"zwx, tag {index}, more, of, them",),
                    captions=dataset.captions,
                    augmentation=dataset.augmentation,
                    repeats=3,
                    is_regularization=index >= TRAINED,
                    mask="Files" if masks else "None",
                    mask_path=mask,
                )
            )
        placed = place(dataset, *examples)
        self.plan: TrainingPlan = derive_plan([one.to_planned() for one in placed], self.spec)
        self.pictures = Pictures(placed, dataset, seed=self.spec.training.seed)
        self.on_demand = EncodedOnDemand(self.pictures, Encoder(vae, "vae"))

    @staticmethod
    def _write_mask(path: Path, size: tuple[int, int]) -> Path:
        grey = np.zeros((size[1], size[0]), dtype=np.uint8)
        grey[:, : size[0] // 4] = 255
        Image.fromarray(grey).save(path)
        return path

    def latents(self) -> LatentSource:
        """As the settings say where they are kept."""
        if self.spec.dataset.latent_cache == "None":
            return self.on_demand
        views = self.pictures.kept_views(self.plan)
        return encode_to_memory(self.on_demand, views, workers=0, on_progress=lambda *_: None)

    def loader(self, workers: int = 0) -> Loader:
        """A loader of it."""
        return Loader(self.pictures, self.plan, self.spec, self.latents(), workers)

    def batches(self, epoch: int = 1, workers: int = 0) -> list[TrainingBatch]:
        """All batches of an epoch."""
        first = (epoch - 1) * self.plan.steps_per_epoch
        with self.loader(workers) as loader:
            return [batch for step in loader.steps(epoch, first_step=first) for batch in step]


def bytes_of(batch: TrainingBatch) -> bytes:
    """Every number and text of a batch."""
    tensors = [batch.latents, batch.weights, batch.from_base, batch.sizes]
    tensors += [] if batch.masks is None else [batch.masks]
    return b"|".join(t.numpy().tobytes() for t in tensors) + "\n".join(batch.captions).encode()


EVERYTHING = (
    ("dataset.augmentation", {"flip": True, "color": True, "randomCrop": True}),
    ("dataset.captions", {"shuffle": True, "keepTokens": 1, "dropoutFraction": 0.2, "tagDropoutFraction": 0.3}),
    ("dataset.mask", "Files"),
)


@pytest.mark.parametrize(
    "where", [("dataset.latentCache", "None"), ("dataset.latentVariants", 3)], ids=["on demand", "variants"]
)
def test_no_and_four_workers_give_the_same_bytes(tmp_path: Path, where: tuple[str, Any]) -> None:
    case = Case(tmp_path, *EVERYTHING, where, masks=True)

    alone, four = ([bytes_of(batch) for e in (1, 2) for batch in case.batches(e, workers)] for workers in (0, 4))

    assert alone == four
    assert len(set(alone)) == len(alone) == 2 * case.plan.batches_per_epoch


def test_every_picture_comes_as_often_as_planned_in_each_epoch(tmp_path: Path) -> None:
    case = Case(tmp_path)

    for epoch in (1, 2, 3):
        counts = Counter(caption for batch in case.batches(epoch) for caption in batch.captions)
        planned = Counter(
            f"zwx, tag {index}, more, of, them" for b in case.plan.buckets for index in b.samples_of_epoch(epoch)
        )
        assert counts == planned
        assert sum(counts.values()) == 2 * 3 * TRAINED


def test_steps_hold_the_batches_of_the_sampler(tmp_path: Path) -> None:
    case = Case(tmp_path)

    with case.loader() as loader:
        steps = list(loader.steps(2, first_step=case.plan.steps_per_epoch))

    sampled = steps_of_epoch(case.plan, 2, seed=5)
    assert [[len(batch.captions) for batch in step] for step in steps] == [
        [len(batch.draws) for batch in step] for step in sampled
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_second_half_of_an_epoch_does_not_depend_on_the_first_nor_reads_it(tmp_path: Path, workers: int) -> None:
    case = Case(tmp_path, ("dataset.captions", {"shuffle": True}), ("dataset.latentCache", "None"))
    whole = [
        [bytes_of(batch) for batch in step] for step in case.loader().steps(2, first_step=case.plan.steps_per_epoch)
    ]
    read: list[View] = []

    class Counting:
        def load(self, view: View) -> Finish:
            read.append(view)
            return case.on_demand.load(view)

    made = case.plan.steps_per_epoch + 3
    with Loader(case.pictures, case.plan, case.spec, Counting(), workers) as loader:
        half = [[bytes_of(batch) for batch in step] for step in loader.steps(2, first_step=made)]

    assert half == whole[3:]
    assert len(read) == sum(len(b.draws) for step in steps_of_epoch(case.plan, 2, 5)[3:] for b in step)


def test_regularization_weighs_and_is_compared_with_the_base_as_said(tmp_path: Path) -> None:
    case = Case(tmp_path, ("dataset.regularization", {"lossWeight": 0.25, "target": "BaseModel"}))

    for batch in case.batches():
        expected = [int(caption.split("tag ")[1][0]) >= TRAINED for caption in batch.captions]
        assert batch.from_base.tolist() == expected
        assert batch.weights.tolist() == [0.25 if is_regularization else 1.0 for is_regularization in expected]


def test_regularization_is_compared_with_the_noise_unless_said(tmp_path: Path) -> None:
    assert not any(batch.from_base.any() for batch in Case(tmp_path).batches())


def test_sizes_are_those_of_the_picture_its_letterbox_and_its_bucket(tmp_path: Path) -> None:
    case = Case(tmp_path)

    sizes = {(tuple(batch.latents.shape[2:]), tuple(row)) for batch in case.batches() for row in batch.sizes.tolist()}

    # 112 x 40 px stand 89.6 px wide in a bucket of 96 x 32.
    square, wide = size_conditions((64, 64), (0, 0), (64, 64)), size_conditions((112, 40), (3, 0), (96, 32))
    assert sizes == {((8, 8), tuple(square.tolist())), ((4, 12), tuple(wide.tolist()))}


def test_a_measured_picture_is_a_batch_of_itself_with_its_whole_caption(tmp_path: Path) -> None:
    case = Case(tmp_path, ("dataset.captions", {"shuffle": True, "dropoutFraction": 0.9}))

    with case.loader() as loader:
        batch = loader.plain(2)

    assert batch.captions == ("caption 2",)
    assert batch.latents.shape == (1, 4, *case.on_demand.load(case.pictures.plain_view(2))().shape[1:])
    assert torch.equal(batch.latents[0], case.on_demand.load(case.pictures.plain_view(2))())


def test_without_masks_there_is_none(tmp_path: Path) -> None:
    assert all(batch.masks is None for batch in Case(tmp_path).batches())


def test_masks_are_means_over_the_pixels_of_a_cell_and_ones_for_pictures_without(tmp_path: Path) -> None:
    case = Case(tmp_path, ("dataset.mask", "Files"), masks=True)

    batches = [batch for batch in case.batches() if batch.masks is not None]

    seen = 0
    for batch in batches:
        assert batch.masks is not None
        assert batch.masks.shape == (len(batch.captions), 1, *batch.latents.shape[2:])
        for caption, mask in zip(batch.captions, batch.masks, strict=True):
            if "tag 1," in caption:
                seen += 1
                quarter = mask.shape[2] // 4
                assert bool((mask[..., :quarter] == 1).all())
                assert bool((mask[..., quarter:] == 0).all())
            else:
                assert bool((mask == 1).all())
    assert seen == 3


def test_masks_are_read_once_while_latents_are_kept(tmp_path: Path) -> None:
    case = Case(tmp_path, ("dataset.mask", "Files"), masks=True)
    with case.loader() as loader:
        first = [bytes_of(b) for step in loader.steps(1, first_step=0) for b in step]
        (tmp_path / "mask1.png").unlink()
        again = [bytes_of(b) for step in loader.steps(1, first_step=0) for b in step]

    assert first == again


@pytest.mark.parametrize("workers", [0, 3])
def test_a_picture_that_vanished_is_named_when_its_turn_comes(tmp_path: Path, workers: int) -> None:
    case = Case(tmp_path, ("dataset.latentCache", "None"))
    (tmp_path / "3_56_20_20_20.png").unlink()
    order = [draw.example_index for step in steps_of_epoch(case.plan, 1, 5) for b in step for draw in b.draws]
    good = 0

    with case.loader(workers) as loader, pytest.raises(InvalidDataset, match=r"1_x/3_56_20_20_20\.png can no longer"):
        for step in loader.steps(1, first_step=0):
            good += sum(len(batch.captions) for batch in step)

    assert good <= order.index(3)
    assert order.index(3) - good < 4


def test_closing_in_the_middle_ends_the_threads(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    case = Case(tmp_path, ("dataset.latentCache", "None"))
    loader = case.loader(workers=3)
    steps: Iterator[tuple[TrainingBatch, ...]] = loader.steps(1, first_step=0)
    next(steps)
    assert set(threading.enumerate()) > before

    loader.close()

    assert set(threading.enumerate()) == before


def test_latents_stay_where_the_cache_has_them_and_are_fp32(tmp_path: Path) -> None:
    batch = Case(tmp_path).batches()[0]

    assert batch.latents.dtype == batch.sizes.dtype == batch.weights.dtype == torch.float32
    assert batch.latents.shape[1] == 4
    assert batch.sizes.shape == (len(batch.captions), 6)


def test_a_face_is_in_the_middle_of_what_is_trained(tmp_path: Path) -> None:
    face = {"faceCropRange": {"minimum": 1.0, "maximum": 1.0}}
    case = Case(tmp_path, ("dataset.augmentation", face), ("dataset.latentCache", "None"))

    draws = [draw for step in steps_of_epoch(case.plan, 1, 5) for batch in step for draw in batch.draws]
    regions = {case.pictures.view(draw, 1).region for draw in draws if draw.example_index in (0, 2, 4)}

    assert all(region is not None and (region[0] + region[2], region[1] + region[3]) == (112, 40) for region in regions)
