"""Sample pictures as files."""

from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.samples import Picture, picture_name, pictures_of, write_picture, write_sheet
from tests.support.tiny_run import make_training

PICTURE = Picture("a red square", "blurry", width_px=64, height_px=96, steps=20, guidance=7.0, seed=5)


def test_the_parameters_read_as_in_the_web_ui() -> None:
    assert PICTURE.parameters(clip_skip=2) == (
        "a red square\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x96, Clip skip: 2"
    )


def test_what_is_the_default_is_left_out_of_the_parameters() -> None:
    plain = Picture("x", "", width_px=64, height_px=64, steps=1, guidance=1.5, seed=0)

    assert plain.parameters(clip_skip=1) == "x\nSteps: 1, Sampler: Euler a, CFG scale: 1.5, Seed: 0, Size: 64x64"


def test_the_parameters_travel_in_the_file(tmp_path: Path) -> None:
    write_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", "ä prompt")

    with Image.open(tmp_path / "a.png") as image:
        assert image.info["parameters"] == "ä prompt"


def test_sizes_and_seeds_are_filled_in(tmp_path: Path) -> None:
    prompts = [{"prompt": "a"}, {"prompt": "b", "widthPx": 128, "seed": 9}]
    training = make_training(tmp_path / "b", tmp_path / "d", tmp_path / "o", samples={"prompts": prompts})

    first, second = pictures_of(training.spec)

    assert (first.width_px, first.height_px, first.seed) == (64, 64, 3)
    assert (second.width_px, second.height_px, second.seed) == (128, 64, 9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (picture_name("hina", 3, 1), "hina-e000003-01.png"),
        (picture_name("hina", 12, 0), "hina-e000012-00.png"),
    ],
)
def test_file_names_sort_by_epoch(name: str, expected: str) -> None:
    assert name == expected


def test_a_long_run_shows_evenly_spread_epochs(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    picture = Picture("x", "", width_px=64, height_px=64, steps=1, guidance=1.0, seed=0)

    write_sheet([picture], {epoch: [tmp_path / "a.png"] for epoch in range(500)}, tmp_path / "sheet.png")

    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 208 + 16 * 136


def test_the_sheet_has_a_row_a_prompt_and_a_column_an_epoch(tmp_path: Path) -> None:
    colours = {0: ["red", "lime"], 2: ["blue", "white"]}
    columns: dict[int, list[Path]] = {}
    for epoch, names in colours.items():
        columns[epoch] = [tmp_path / f"{epoch}-{name}.png" for name in names]
        for path, name in zip(columns[epoch], names, strict=True):
            Image.new("RGB", (256, 256), name).save(path)
    picture = Picture("a very long prompt " * 8, "", width_px=256, height_px=256, steps=1, guidance=1.0, seed=0)

    write_sheet([picture, picture], columns, tmp_path / "sheet.png")

    with Image.open(tmp_path / "sheet.png") as sheet:
        centres = [(208 + 128, 28 + 128), (208 + 128, 292 + 128), (472 + 128, 28 + 128), (472 + 128, 292 + 128)]
        seen = [sheet.getpixel(centre) for centre in centres]
        assert sheet.size == (200 + 8 + 2 * 264, 28 + 2 * 264)
    assert seen == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
