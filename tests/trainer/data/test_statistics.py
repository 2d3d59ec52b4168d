"""Tables of the dataset as sd-scripts counts them."""

from dataclasses import replace
from pathlib import Path

from lora_api.spec import LoraTrainingSpec
from lora_trainer.data.dataset import DatasetSources, scan
from lora_trainer.data.placed import place_examples
from lora_trainer.data.statistics import DatasetStatistics, describe_dataset
from lora_trainer.plan import derive_plan
from tests.support.pictures import write_picture
from tests.support.tiny_run import make_training


def describe(folder: Path) -> DatasetStatistics:
    training = make_training(folder, folder, folder.parent / "out")
    return describe_sources(DatasetSources(root=folder), training.spec)


def describe_sources(sources: DatasetSources, spec: LoraTrainingSpec) -> DatasetStatistics:
    pictures = place_examples(scan(sources, spec.dataset).examples, spec.dataset)
    return describe_dataset(pictures, derive_plan([picture.to_planned() for picture in pictures], spec))


def test_folders_are_listed_with_repeats_and_pictures(tiny_pictures: Path) -> None:
    statistics = describe(tiny_pictures)

    assert statistics.training_folders == {"2_zwx shape": {"n_repeats": 2, "img_count": 3}}
    assert statistics.regularization_folders == {"1_shape": {"n_repeats": 1, "img_count": 2}}
    assert (statistics.training_samples, statistics.regularization_samples) == (6, 2)


def test_held_out_pictures_are_no_part_of_the_trainings_data(tiny_pictures: Path) -> None:
    spec = make_training(tiny_pictures, tiny_pictures, tiny_pictures.parent / "out").spec
    examples = scan(DatasetSources(root=tiny_pictures), spec.dataset).examples
    placed = place_examples([replace(e, is_held_out=e.key.endswith("0.png")) for e in examples], spec.dataset)

    statistics = describe_dataset(placed, derive_plan([picture.to_planned() for picture in placed], spec))

    assert statistics.training_folders == {"2_zwx shape": {"n_repeats": 2, "img_count": 2}}
    assert "zwx red shape" not in statistics.tag_frequency["2_zwx shape"]


def test_tags_are_split_at_commas_and_counted_by_folder(tiny_pictures: Path) -> None:
    frequency = describe(tiny_pictures).tag_frequency

    assert frequency["2_zwx shape"] == {"zwx blue shape": 1, "plain": 3, "zwx green shape": 1, "zwx red shape": 1}
    assert frequency["1_shape"] == {"shape": 2}


def test_buckets_count_the_samples_of_an_epoch(tiny_pictures: Path) -> None:
    assert describe(tiny_pictures).bucket_info == {
        "buckets": {"0": {"resolution": [64, 64], "count": 12}},
        "mean_img_ar_error": 0.0,
    }


def test_folders_of_one_name_are_counted_together_in_the_tags_only(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_man" / "a.png", caption="man, Blue ,")
    write_picture(tmp_path / "reg" / "1_man" / "a.png", caption="man, man")

    statistics = describe(tmp_path)

    assert statistics.tag_frequency == {"1_man": {"man": 3, "blue": 1}}
    assert (
        statistics.training_folders == statistics.regularization_folders == {"1_man": {"n_repeats": 1, "img_count": 1}}
    )


def test_the_commonest_repeats_stand_for_a_folder(tmp_path: Path) -> None:
    for name in "abc":
        write_picture(tmp_path / "2_x" / f"{name}.png", caption="x")
    (tmp_path / "2_x" / "metadata.jsonl").write_text('{"file": "a.png", "repeats": 5}')

    statistics = describe(tmp_path)

    assert statistics.training_folders == {"2_x": {"n_repeats": 2, "img_count": 3}}
    assert statistics.training_samples == 9


def test_subsets_tell_their_pictures_and_settings(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_picture(tmp_path / name / "a.png", caption="zwx")
    subsets = [
        {"uri": "s3://lora/zwx", "repeats": 4, "captions": {"shuffle": True, "keepTokens": 1}},
        {"uri": "s3://lora/man", "classTokens": "man", "isRegularization": True, "augmentation": {"flip": True}},
    ]
    dataset = {"uri": None, "subsets": subsets}
    spec = make_training(tmp_path / "base", tmp_path, tmp_path / "out", dataset=dataset).spec

    first, second = describe_sources(DatasetSources(subsets=(tmp_path / "one", tmp_path / "two")), spec).subsets

    assert (first["image_dir"], first["num_repeats"], first["img_count"], first["class_tokens"]) == ("zwx", 4, 1, None)
    assert (first["shuffle_caption"], first["keep_tokens"], first["flip_aug"]) == (True, 1, False)
    assert (second["image_dir"], second["is_reg"], second["class_tokens"]) == ("man", True, "man")
    assert (second["shuffle_caption"], second["flip_aug"]) == (False, True)
