"""The example dataset in the repository is what its generator draws."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_tinybase import dataset

FOLDER = Path(__file__).parents[2] / "examples" / "demo" / "data" / "train"


@pytest.fixture(scope="module")
def examples() -> list[dataset.Example]:
    return dataset.examples()


def test_folder_holds_exactly_the_examples(examples: list[dataset.Example]) -> None:
    wanted = {example.path.with_suffix(suffix) for example in examples for suffix in (".png", ".txt")}

    assert {path.relative_to(FOLDER) for path in FOLDER.rglob("*.*")} == wanted


def test_pictures_are_what_the_generator_draws(examples: list[dataset.Example]) -> None:
    for example in examples:
        with Image.open(FOLDER / example.path.with_suffix(".png")) as picture:
            stored = np.asarray(picture).astype(int)
        # One level of slack: sine and cosine may round differently on another machine.
        assert np.abs(stored - example.picture).max() <= 1, example.path


def test_captions_are_what_the_generator_says(examples: list[dataset.Example]) -> None:
    for example in examples:
        stored = (FOLDER / example.path.with_suffix(".txt")).read_text(encoding="utf-8")
        assert stored == example.caption + "\n"


def test_concept_and_regularisation_have_twenty_pictures_in_three_sizes(
    examples: list[dataset.Example],
) -> None:
    for folder in (dataset.CONCEPT_FOLDER, dataset.REGULARISATION_FOLDER):
        sizes = [example.picture.shape[:2] for example in examples if example.path.parent == Path(folder)]
        assert len(sizes) == 20
        assert set(sizes) == {(128, 128), (112, 160), (160, 112)}


def test_writing_into_a_fresh_folder_gives_the_same_files(tmp_path: Path) -> None:
    dataset.write(tmp_path)

    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")}
    assert written == {path.relative_to(FOLDER) for path in FOLDER.rglob("*.*")}
