"""Which folders of a dataset are concepts."""

from pathlib import Path

import pytest

from lora_api.dataset_spec import (
    Augmentation,
    AugmentationOverrides,
    CaptionOverrides,
    Captions,
    Dataset,
    Regularization,
    Subset,
)
from lora_trainer.data.folders import find_folders, find_regularization, name_of, subset_folders
from tests.support.pictures import write_picture

SPEC = Dataset(uri="s3://lora/data")


@pytest.mark.parametrize(
    ("name", "repeats", "text"),
    [
        ("3_sks_my man", 3, "sks_my man"),
        ("10_hina", 10, "hina"),
        ("007_agent", 7, "agent"),
        ("5_", 5, ""),
        ("1_ padded ", 1, "padded"),
    ],
)
def test_the_number_is_the_repeats_and_the_rest_the_text(tmp_path: Path, name: str, repeats: int, text: str) -> None:
    (tmp_path / name).mkdir()

    (folder,), problems = find_folders(tmp_path, SPEC)

    assert (folder.repeats, folder.text, folder.name, folder.is_regularization) == (repeats, text, name, False)
    assert problems == []


def test_a_concept_may_be_called_reg(tmp_path: Path) -> None:
    (tmp_path / "3_reg").mkdir()

    (folder,), _ = find_folders(tmp_path, SPEC)

    assert not folder.is_regularization


def test_folders_of_reg_are_regularization_under_their_own_name(tmp_path: Path) -> None:
    (tmp_path / "reg" / "2_woman").mkdir(parents=True)

    (folder,), _ = find_folders(tmp_path, SPEC)

    assert (folder.key, folder.name, folder.is_regularization) == ("reg/2_woman", "2_woman", True)


def test_files_are_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    (tmp_path / "1_a").mkdir()
    for name in ("b.png", "a.txt", ".DS_Store", "B.png"):
        (tmp_path / "1_a" / name).touch()

    (folder,), _ = find_folders(tmp_path, SPEC)

    assert [path.name for path in folder.files] == ["B.png", "a.txt", "b.png"]


def test_the_folder_of_masks_is_no_concept(tmp_path: Path) -> None:
    write_picture(tmp_path / "mask" / "3_hina" / "a.png")

    assert find_folders(tmp_path, SPEC) == ([], [])


def with_regularization() -> Dataset:
    return Dataset(uri="s3://lora/data", regularization=Regularization(uri="s3://lora/ordinary"))


def test_regularization_from_elsewhere_has_the_names_of_reg(tmp_path: Path) -> None:
    (tmp_path / "2_woman").mkdir()

    (folder,), problems = find_regularization(tmp_path, with_regularization())

    assert (folder.key, folder.name, folder.repeats, folder.is_regularization) == ("reg/2_woman", "2_woman", 2, True)
    assert (folder.source, problems) == (tmp_path, [])


def test_metadata_beside_the_folders_of_regularization_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").touch()

    assert find_regularization(tmp_path, with_regularization()) == (
        [],
        ["spec.dataset.regularization.uri holds metadata.jsonl, which is read in its folders only; move it"],
    )


def test_a_folder_of_pictures_is_no_regularization(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "b.png")

    folders, problems = find_regularization(tmp_path, with_regularization())

    assert folders == []
    assert problems == [
        "spec.dataset.regularization.uri holds pictures themselves (such as a.png); give the folder above, "
        "whose folders are named like `1_woman`, where the number is how often each picture is seen"
    ]


def test_regularization_in_two_places_is_a_problem(tmp_path: Path) -> None:
    write_picture(tmp_path / "reg" / "1_woman" / "a.png")

    _, problems = find_folders(tmp_path, with_regularization())

    assert problems == [
        "reg/ holds regularisation pictures, and spec.dataset.regularization.uri names others; remove one of them"
    ]


def subsets(*subsets: Subset, **changes: object) -> Dataset:
    return Dataset(subsets=subsets, **changes)


def test_a_subset_says_what_a_name_says_in_the_convention(tmp_path: Path) -> None:
    spec = subsets(Subset(uri="s3://lora/x/10_hina", repeats=3, class_tokens=" hina woman "))

    (folder,), problems = subset_folders([tmp_path], spec)

    assert (folder.key, folder.name, folder.repeats, folder.text) == ("10_hina", "10_hina", 3, "hina woman")
    assert (folder.path, folder.source, folder.is_regularization) == (tmp_path, tmp_path, False)
    assert problems == ["spec.dataset.subsets[0].uri holds no pictures; correct it or remove the subset"]


def test_subsets_of_one_name_are_numbered(tmp_path: Path) -> None:
    names = ("a/hina", "b/hina", "c/hina (2)", "d/hina")
    spec = subsets(*(Subset(uri=f"s3://lora/{name}") for name in names))

    folders, _ = subset_folders([tmp_path] * 4, spec)

    assert [folder.key for folder in folders] == ["hina", "hina (2)", "hina (2) (2)", "hina (3)"]


def test_a_subset_changes_only_what_it_sets(tmp_path: Path) -> None:
    subset = Subset(
        uri="s3://lora/x",
        captions=CaptionOverrides(shuffle=True),
        augmentation=AugmentationOverrides(flip=False),
    )
    spec = subsets(
        subset,
        Subset(uri="s3://lora/y", is_regularization=True),
        captions=Captions(keep_tokens=2),
        augmentation=Augmentation(flip=True),
    )

    (first, second), _ = subset_folders([tmp_path, tmp_path], spec)

    assert (first.captions, first.augmentation) == (Captions(keep_tokens=2, shuffle=True), Augmentation(flip=False))
    assert (second.captions, second.augmentation) == (Captions(keep_tokens=2), Augmentation(flip=True))
    assert second.is_regularization


def test_a_file_is_no_subset(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")

    _, problems = subset_folders([path], subsets(Subset(uri="s3://lora/a.png")))

    assert problems == ["spec.dataset.subsets[0].uri is a file; give the folder that holds the pictures"]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://lora/train/hina/", "hina"),
        ("s3://lora", "lora"),
        ("hf://owner/repo@v1.0", "repo"),
        ("pvc://claim/a@b", "a@b"),
        ("file:///data/my pictures", "my pictures"),
    ],
)
def test_a_uri_is_called_by_its_last_part(uri: str, name: str) -> None:
    assert name_of(uri) == name
