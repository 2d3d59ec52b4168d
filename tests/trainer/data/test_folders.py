"""Which folders of a dataset are concepts."""

from pathlib import Path

import pytest

from lora_trainer.data.folders import find_folders


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

    (folder,), problems = find_folders(tmp_path)

    assert (folder.repeats, folder.text, folder.name, folder.is_regularization) == (repeats, text, name, False)
    assert problems == []


def test_a_concept_may_be_called_reg(tmp_path: Path) -> None:
    (tmp_path / "3_reg").mkdir()

    (folder,), _ = find_folders(tmp_path)

    assert not folder.is_regularization


def test_folders_of_reg_are_regularization_under_their_own_name(tmp_path: Path) -> None:
    (tmp_path / "reg" / "2_woman").mkdir(parents=True)

    (folder,), _ = find_folders(tmp_path)

    assert (folder.key, folder.name, folder.is_regularization) == ("reg/2_woman", "2_woman", True)


def test_files_are_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    (tmp_path / "1_a").mkdir()
    for name in ("b.png", "a.txt", ".DS_Store", "B.png"):
        (tmp_path / "1_a" / name).touch()

    (folder,), _ = find_folders(tmp_path)

    assert [path.name for path in folder.files] == ["B.png", "a.txt", "b.png"]
