"""Tables of the dataset as sd-scripts counts them."""

from pathlib import Path

from lora_api.dataset_spec import Dataset
from lora_trainer.data.dataset import scan
from lora_trainer.data.placed import place_examples
from lora_trainer.data.statistics import DatasetStatistics, describe_dataset
from lora_trainer.plan import derive_plan
from tests.support.tiny_run import make_training


def describe(folder: Path) -> DatasetStatistics:
    training = make_training(folder, folder, folder.parent / "out")
    spec: Dataset = training.spec.dataset
    pictures = place_examples(scan(folder, spec).examples, spec)
    return describe_dataset(pictures, derive_plan([picture.to_planned() for picture in pictures], training.spec))


def test_folders_are_listed_with_repeats_and_pictures(tiny_pictures: Path) -> None:
    statistics = describe(tiny_pictures)

    assert statistics.training_folders == {"2_zwx shape": {"n_repeats": 2, "img_count": 3}}
    assert statistics.regularization_folders == {"1_shape": {"n_repeats": 1, "img_count": 2}}
    assert (statistics.training_samples, statistics.regularization_samples) == (6, 2)


def test_tags_are_split_at_commas_and_counted_by_folder(tiny_pictures: Path) -> None:
    frequency = describe(tiny_pictures).tag_frequency

    assert frequency["2_zwx shape"] == {"zwx blue shape": 1, "plain": 3, "zwx green shape": 1, "zwx red shape": 1}
    assert frequency["1_shape"] == {"shape": 2}


def test_buckets_count_the_samples_of_an_epoch(tiny_pictures: Path) -> None:
    assert describe(tiny_pictures).bucket_info == {
        "buckets": {"0": {"resolution": [64, 64], "count": 12}},
        "mean_img_ar_error": 0.0,
    }
