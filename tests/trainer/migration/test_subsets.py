"""Dataset definitions of sd-scripts become subsets."""

from pathlib import Path

import pytest

from lora_api.dataset_spec import Dataset
from lora_trainer.errors import InvalidConfiguration
from tests.support.imports import from_text

DEFINITION = """
[general]
caption_extension = ".txt"
shuffle_caption = true

[[datasets]]
resolution = [768, 512]
batch_size = 4
enable_bucket = true
keep_tokens = 2

  [[datasets.subsets]]
  image_dir = 'C:\\pics\\hina'
  num_repeats = 10
  class_tokens = "hina wife"
  flip_aug = true
  caption_prefix = "photo of"

  [[datasets.subsets]]
  image_dir = "/pics/women"
  is_reg = true
  keep_tokens = 0
"""


def dataset(text: str) -> Dataset:
    return from_text(text)[0].spec.dataset


def test_each_subset_says_what_it_says() -> None:
    first, second = dataset(DEFINITION).subsets

    assert (first.uri, first.repeats, first.class_tokens) == ("s3://lora/data/hina", 10, "hina wife")
    assert (second.uri, second.repeats, second.is_regularization) == ("s3://lora/data/women", 1, True)


def test_what_all_share_stands_above() -> None:
    shared = dataset(DEFINITION)

    assert (shared.captions.extension, shared.captions.shuffle, shared.resolution) == (".txt", True, "768x512")


@pytest.mark.parametrize(("index", "keep", "flip", "prefix"), [(0, 2, True, "photo of"), (1, 0, False, "")])
def test_the_nearest_table_wins(index: int, keep: int, flip: bool, prefix: str) -> None:
    found = dataset(DEFINITION)
    subset = found.subsets[index]
    captions = subset.captions.applied_to(found.captions) if subset.captions else found.captions
    augmentation = subset.augmentation.applied_to(found.augmentation) if subset.augmentation else found.augmentation

    assert (captions.keep_tokens, augmentation.flip, captions.prefix) == (keep, flip, prefix)


def test_the_batch_size_is_that_of_the_dataset() -> None:
    assert from_text(DEFINITION)[0].spec.training.batch_size == 4


def test_alone_it_changes_nothing_that_it_could_not_say() -> None:
    spec = from_text(DEFINITION)[0].spec

    assert (spec.training.epochs, spec.network.rank, spec.dataset.latent_cache) == (10, 16, "Memory")


def test_alone_it_has_the_defaults_of_sd_scripts_for_what_it_could_have_said() -> None:
    bare = "[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'a'\n"

    found = dataset(bare)

    assert (found.captions.extension, found.buckets.enabled) == (".caption", False)


def test_beside_a_command_its_arguments_are_the_fallback(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text("[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'a'\n")
    command = "train_network.py --dataset_config data.toml --color_aug --train_batch_size 3 --resolution 768"

    spec = from_text(command, tmp_path)[0].spec

    assert (spec.dataset.augmentation.color, spec.training.batch_size, spec.dataset.resolution) == (True, 3, 512)


@pytest.mark.parametrize(("setting", "cache"), [("random_crop = true", "None"), ("flip_aug = true", "Memory")])
def test_draws_that_differ_in_one_subset_take_the_cache_away(setting: str, cache: str) -> None:
    first = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = '/a'\n"

    assert dataset(f"{first}[[datasets.subsets]]\nimage_dir = '/b'\n{setting}\n").latent_cache == cache


def test_a_definition_that_mentions_the_script_is_no_command() -> None:
    assert len(dataset("# for train_network.py\n" + DEFINITION).subsets) == 2


def test_a_marker_that_only_one_has_stays_with_that_one() -> None:
    text = DEFINITION.replace("flip_aug = true", 'keep_tokens_separator = "|||"')

    found = dataset(text)

    assert found.captions.keep_tokens_separator is None
    assert found.subsets[0].captions is not None
    assert found.subsets[0].captions.keep_tokens_separator == "|||"


def test_preservation_of_the_class_is_the_base_models_own_answer() -> None:
    text = DEFINITION + "  custom_attributes = {diff_output_preservation = true}\n"

    assert dataset(text).regularization.target == "BaseModel"


def test_a_second_size_is_told() -> None:
    second = "[[datasets]]\nresolution = 512\nbatch_size = 4\n[[datasets.subsets]]\nimage_dir = 'b'\n"

    _, draft = from_text(DEFINITION + second)

    assert "datasets[1] resolution" in {leftover.name for leftover in draft.leftovers}


def test_a_table_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="general of the dataset definition is 5, but must be a table"):
        from_text("general = 5\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'\n")


def test_an_unknown_setting_is_told() -> None:
    _, draft = from_text(DEFINITION + "  face_swap = 1\n")

    assert [leftover.name for leftover in draft.leftovers] == ["face_swap"]


@pytest.mark.parametrize("text", ["datasets = []", "datasets = [5]", "[[datasets]]\nresolution = 512\n"])
def test_a_definition_without_subsets_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfiguration, match="has no"):
        from_text(text)
