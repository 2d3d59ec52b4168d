"""Which views draws have, and what is read of the files for them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_api.dataset_spec import Dataset
from lora_trainer.data.sampler import Draw
from lora_trainer.data.views import Pictures
from lora_trainer.errors import InvalidDataset
from lora_trainer.plan import PlannedPicture, derive_plan
from tests.support.documents import make_training
from tests.support.placed import make_dataset, make_example, place, write_noise

JITTER = {"color": True, "randomCrop": True}


def make_pictures(dataset: Dataset, **example: Any) -> Pictures:
    """One picture of 160 x 64 px that changes as the dataset says, and one that never does."""
    changing = make_example(Path("a.png"), 0, (160, 64), augmentation=dataset.augmentation, **example)
    still = make_example(Path("b.png"), 1, (160, 64))
    return Pictures(place(dataset, changing, still), dataset, seed=3)


def test_while_nothing_is_cached_every_draw_of_a_changing_picture_has_a_view_of_its_own() -> None:
    pictures = make_pictures(make_dataset(augmentation=JITTER, latentCache="None"))

    views = [pictures.view(Draw(0, occurrence, False, 0), epoch) for epoch in (1, 2, 3) for occurrence in range(3)]
    still = {pictures.view(Draw(1, occurrence, False, 0), epoch) for epoch in (1, 2, 3) for occurrence in range(3)}

    assert len(set(views)) == 9
    assert len(still) == 1


def test_a_cached_view_depends_on_the_variant_alone() -> None:
    pictures = make_pictures(make_dataset(augmentation=JITTER, latentVariants=4))

    views = [pictures.view(Draw(0, epoch, False, variant), epoch) for epoch in (1, 2, 3) for variant in range(4)]

    assert len(set(views)) == 4
    assert views[:4] == views[4:8] == views[8:]


def test_only_pictures_that_change_are_kept_in_several_variants_and_only_mirrored_ones_from_both_sides() -> None:
    dataset = make_dataset(augmentation=JITTER | {"flip": True}, latentVariants=4)
    pictures = make_pictures(dataset)
    spec = make_training(("dataset", dataset.to_document())).spec
    planned = [PlannedPicture(0, (64, 64), 1, flip=True), PlannedPicture(1, (64, 64), 1)]

    views = pictures.kept_views(derive_plan(planned, spec))

    assert [(view.index, view.mirrored) for view in views] == [(0, False), (0, True)] * 4 + [(1, False)]


def test_every_draw_of_the_plan_finds_its_view_among_those_that_are_kept() -> None:
    dataset = make_dataset(augmentation=JITTER | {"flip": True}, latentVariants=3)
    pictures = make_pictures(dataset)
    planned = [PlannedPicture(0, (64, 64), 9, flip=True), PlannedPicture(1, (64, 64), 9)]
    kept = set(pictures.kept_views(derive_plan(planned, make_training(("dataset", dataset.to_document())).spec)))

    drawn = {
        pictures.view(Draw(index, 0, mirrored and index == 0, variant), 1)
        for index in (0, 1)
        for mirrored in (False, True)
        for variant in range(3)
    }

    assert drawn == kept


def test_a_measured_picture_is_shown_plainly_whatever_its_augmentation() -> None:
    dataset = make_dataset(augmentation={"color": True, "flip": True, "randomCrop": True}, latentVariants=4)
    wild = make_example(Path("wild.png"), 0, (128, 64), augmentation=dataset.augmentation)
    plain = make_example(Path("plain.png"), 0, (128, 64))

    shown = Pictures(place(dataset, wild), dataset, seed=3).plain_view(0)

    assert shown == Pictures(place(dataset, plain), dataset, seed=3).plain_view(0)
    assert (shown.tint, shown.mirrored) == (None, False)


def test_views_of_held_out_pictures_are_not_kept_for_draws() -> None:
    dataset = make_dataset()
    examples = [make_example(Path(f"{index}.png"), index, is_held_out=index == 0) for index in range(3)]
    placed = place(dataset, *examples)
    spec = make_training(("dataset", dataset.to_document())).spec
    plan = derive_plan([one.to_planned() for one in placed], spec)

    assert [view.index for view in Pictures(placed, dataset, seed=3).kept_views(plan)] == [1, 2]


def test_other_seeds_give_other_views() -> None:
    dataset = make_dataset(augmentation=JITTER, latentVariants=4)
    example = make_example(Path("a.png"), 0, (160, 64), augmentation=dataset.augmentation)

    first, second = (Pictures(place(dataset, example), dataset, seed=seed) for seed in (1, 2))

    draws = [Draw(0, 0, False, variant) for variant in range(4)]
    assert [first.view(draw, 1) for draw in draws] != [second.view(draw, 1) for draw in draws]


def write_half_transparent(path: Path) -> Path:
    """Red; the left half is transparent."""
    pixels = np.zeros((64, 64, 4), dtype=np.uint8)
    pixels[..., 0] = 255
    pixels[:, 32:, 3] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_transparency_lies_over_white_and_as_a_mask_uncovers_the_colours_below(tmp_path: Path) -> None:
    path = write_half_transparent(tmp_path / "a.png")
    for mask, expected in (("None", [255, 255, 255]), ("Alpha", [255, 0, 0])):
        dataset = make_dataset(mask=mask)
        pictures = Pictures(place(dataset, make_example(path, mask=mask)), dataset, seed=0)

        assert pictures.pixels(pictures.view(Draw(0, 0, False, 0), 1))[5, 5].tolist() == expected


def test_a_mask_is_mirrored_with_its_picture(tmp_path: Path) -> None:
    dataset = make_dataset(mask="Alpha")
    example = make_example(write_half_transparent(tmp_path / "a.png"), mask="Alpha")
    pictures = Pictures(place(dataset, example), dataset, seed=0)

    straight, mirrored = (pictures.mask(pictures.view(Draw(0, 0, flipped, 0), 1)) for flipped in (False, True))

    assert straight is not None and mirrored is not None
    assert straight[0].tolist() == [0] * 32 + [255] * 32
    assert np.array_equal(mirrored, straight[:, ::-1])


def test_a_mask_that_vanished_is_named_by_its_picture(tmp_path: Path) -> None:
    dataset = make_dataset(mask="Files")
    path = write_noise(tmp_path / "a.png")
    pictures = Pictures(
        place(dataset, make_example(path, mask="Files", mask_path=tmp_path / "gone.png")), dataset, seed=0
    )

    with pytest.raises(InvalidDataset, match=r"the mask of 1_x/a\.png can no longer be read"):
        pictures.mask(pictures.view(Draw(0, 0, False, 0), 1))
