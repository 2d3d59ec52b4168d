"""Examples meet their buckets."""

from pathlib import Path

import pytest

from lora_api.dataset_spec import Buckets, Dataset
from lora_trainer.data.dataset import scan
from lora_trainer.data.placed import place_examples
from lora_trainer.errors import InvalidDataset
from lora_trainer.plan import PlannedPicture
from tests.support.pictures import write_picture


def test_the_plan_learns_bucket_repeats_and_kind_of_every_picture(tmp_path: Path) -> None:
    write_picture(tmp_path / "3_hina" / "a.png", (64, 64), caption="hina")
    write_picture(tmp_path / "reg" / "2_woman" / "a.png", (160, 96))
    spec = Dataset(uri="s3://lora/data", resolution=128, buckets=Buckets(step_px=32))

    placed = place_examples(scan(tmp_path, spec).examples, spec)

    assert [one.to_planned() for one in placed] == [
        PlannedPicture(0, (128, 128), 3, is_regularization=False, has_caption_file=True),
        PlannedPicture(1, (160, 96), 2, is_regularization=True, has_caption_file=False),
    ]


def test_all_pictures_that_are_too_small_are_told_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_picture(tmp_path / "1_x" / f"{name}.png", (200, 40), caption="x")
    spec = Dataset(uri="s3://lora/data", buckets=Buckets(upscale=False))

    with pytest.raises(InvalidDataset) as caught:
        place_examples(scan(tmp_path, spec).examples, spec)

    assert str(caught.value).splitlines() == [
        "the dataset has 2 problems:",
        *(
            f"- 1_x/{name}.png is 200x40 px, but a side would be shorter than 64 px; "
            "use a larger picture or set spec.dataset.buckets.upscale to true"
            for name in ("a", "b")
        ),
    ]
