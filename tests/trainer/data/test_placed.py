"""Examples meet their buckets."""

from pathlib import Path

import pytest

from lora_api.dataset_spec import Augmentation, AugmentationOverrides, Buckets, Dataset, FaceCropRange, Subset
from lora_trainer.data.dataset import DatasetSources, scan
from lora_trainer.data.placed import place_examples
from lora_trainer.errors import InvalidDataset
from lora_trainer.plan import PlannedPicture
from tests.support.pictures import write_picture


def test_the_plan_learns_bucket_repeats_and_kind_of_every_picture(tmp_path: Path) -> None:
    write_picture(tmp_path / "3_hina" / "a.png", (64, 64), caption="hina")
    write_picture(tmp_path / "reg" / "2_woman" / "a.png", (160, 96))
    spec = Dataset(uri="s3://lora/data", resolution=128, buckets=Buckets(step_px=32))

    placed = place_examples(scan(DatasetSources(root=tmp_path), spec).examples, spec)

    assert [one.to_planned() for one in placed] == [
        PlannedPicture(0, (128, 128), 3, name="3_hina/a.png"),
        PlannedPicture(1, (160, 96), 2, is_regularization=True, has_caption_file=False, name="reg/2_woman/a.png"),
    ]


def test_all_pictures_that_are_too_small_are_told_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_picture(tmp_path / "1_x" / f"{name}.png", (200, 40), caption="x")
    spec = Dataset(uri="s3://lora/data", buckets=Buckets(upscale=False))

    with pytest.raises(InvalidDataset) as caught:
        place_examples(scan(DatasetSources(root=tmp_path), spec).examples, spec)

    assert str(caught.value).splitlines() == [
        "the dataset has 2 problems:",
        *(
            f"- 1_x/{name}.png is 200x40 px, but a side would be shorter than 64 px; "
            "use a larger picture or set spec.dataset.buckets.upscale to true"
            for name in ("a", "b")
        ),
    ]


def test_the_plan_learns_how_much_of_a_picture_is_cut_off(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", (200, 100), caption="x")
    spec = Dataset(uri="s3://lora/data", resolution=64, buckets=Buckets(enabled=False))

    (placed,) = place_examples(scan(DatasetSources(root=tmp_path), spec).examples, spec)

    assert placed.to_planned().crop_loss == 0.5


def test_the_plan_learns_of_each_subset_whether_it_is_mirrored(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_picture(tmp_path / name / "a.png", caption="x")
    subsets = (Subset(uri="s3://lora/one"), Subset(uri="s3://lora/two", augmentation=AugmentationOverrides(flip=False)))
    spec = Dataset(subsets=subsets, augmentation=Augmentation(flip=True))
    sources = DatasetSources(subsets=(tmp_path / "one", tmp_path / "two"))

    placed = place_examples(scan(sources, spec).examples, spec)

    assert [one.to_planned().flip for one in placed] == [True, False]


def test_a_face_to_crop_around_must_be_named(tmp_path: Path) -> None:
    for name in ("a", "b_30_30_20_20"):
        write_picture(tmp_path / "1_x" / f"{name}.png", caption="x")
    faces = Augmentation(face_crop_range=FaceCropRange(minimum=1.5, maximum=2))
    spec = Dataset(uri="s3://lora/data", augmentation=faces, latent_cache="None")

    with pytest.raises(InvalidDataset) as caught:
        place_examples(scan(DatasetSources(root=tmp_path), spec).examples, spec)

    assert str(caught.value).splitlines()[0] == "the dataset has 1 problem:"
    assert "1_x/a.png does not name its face" in str(caught.value)
