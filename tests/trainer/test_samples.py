"""Sample pictures as files."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image
from sd_parsers import ParserManager
from sd_parsers.data import Generators

from lora_api.evaluation_spec import Sampler
from lora_trainer.samples import (
    WEB_UI_SAMPLERS,
    Moment,
    Picture,
    lora_tag,
    model_name,
    pictures_of,
    write_picture,
    write_sheet,
)
from tests.support.tiny_run import make_training

PICTURE = Picture("a red square", "blurry", width_px=64, height_px=96, steps=20, guidance=7.0, seed=5)


def test_the_parameters_read_as_in_the_web_ui() -> None:
    picture = replace(PICTURE, sampler="dpmpp_2m_karras", clip_skip=2)

    assert picture.parameters(model="anything-v5", lora="<lora:hina-000007:0.8>") == (
        "a red square <lora:hina-000007:0.8>\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 5, Size: 64x96, Model: anything-v5, "
        "Clip skip: 2, RNG: CPU"
    )


def test_what_is_the_default_is_left_out_of_the_parameters() -> None:
    plain = replace(PICTURE, negative_prompt="", guidance=1.5)

    assert plain.parameters(model="m") == (
        "a red square\nSteps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 1.5, Seed: 5, Size: 64x96, "
        "Model: m, RNG: CPU"
    )


def test_a_name_that_would_tear_the_parameters_apart_is_quoted() -> None:
    assert 'Model: "a, b: c", RNG' in PICTURE.parameters(model="a, b: c")


@pytest.mark.parametrize(
    ("base", "name"), [("sd-v1-5.safetensors", "sd-v1-5"), ("owner/model", "model"), ("sd15-0a1b2c3d", "sd15-0a1b2c3d")]
)
def test_the_model_is_called_as_in_the_web_ui(base: str, name: str) -> None:
    assert model_name(base) == name


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_sd_parsers_reads_how_a_picture_was_made(sampler: Sampler, tmp_path: Path) -> None:
    picture = replace(PICTURE, sampler=sampler, weight=0.75)
    parameters = picture.parameters(model="anything-v5", lora=lora_tag("hina-000007", picture.weight))
    write_picture(Image.new("RGB", (64, 96)), tmp_path / "a.png", parameters)

    found = ParserManager().parse(tmp_path / "a.png")

    assert found is not None and found.generator is Generators.AUTOMATIC1111
    (used,) = found.samplers
    name, schedule = WEB_UI_SAMPLERS[sampler]
    assert used.name == name and used.model is not None and used.model.name == "anything-v5"
    assert used.parameters == {"scheduler": schedule, "cfg_scale": "7", "seed": "5", "steps": "20"}
    assert [prompt.value for prompt in used.prompts] == ["a red square <lora:hina-000007:0.75>"]
    assert [prompt.value for prompt in used.negative_prompts] == ["blurry"]
    assert found.metadata["Size"] == "64x96"


def test_the_parameters_travel_in_the_file(tmp_path: Path) -> None:
    write_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", "ä prompt")

    with Image.open(tmp_path / "a.png") as image:
        assert image.info["parameters"] == "ä prompt"


def test_further_texts_travel_beside_the_parameters(tmp_path: Path) -> None:
    write_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", "x", digest="0a1b")

    with Image.open(tmp_path / "a.png") as image:
        assert (image.info["parameters"], image.info["digest"]) == ("x", "0a1b")


def test_sizes_and_seeds_are_filled_in(tmp_path: Path) -> None:
    prompts = [{"prompt": "a"}, {"prompt": "b", "widthPx": 128, "seed": 9}]
    training = make_training(tmp_path / "b", tmp_path / "d", tmp_path / "o", samples={"prompts": prompts})

    first, second = pictures_of(training.spec)

    assert (first.width_px, first.height_px, first.seed) == (64, 64, 3)
    assert (second.width_px, second.height_px, second.seed) == (128, 64, 9)


def test_sampler_clip_skip_and_weight_are_filled_in(tmp_path: Path) -> None:
    prompts = [{"prompt": "a"}, {"prompt": "b", "sampler": "unipc", "clipSkip": 1, "weight": 0.5}]
    training = make_training(
        tmp_path / "b", tmp_path / "d", tmp_path / "o", samples={"prompts": prompts}, baseModel={"clipSkip": 2}
    )

    first, second = pictures_of(training.spec)

    assert (first.sampler, first.clip_skip, first.weight) == ("euler_a", 2, 1.0)
    assert (second.sampler, second.clip_skip, second.weight) == ("unipc", 1, 0.5)


@pytest.mark.parametrize(
    ("moment", "file", "adapter", "label"),
    [
        (Moment(0, 0), "hina-e000000-01.png", "hina-000000", "base model"),
        (Moment(600, 12), "hina-e000012-01.png", "hina-000012", "epoch 12"),
        (Moment(620), "hina-s000620-01.png", "hina-s000620", "step 620"),
    ],
)
def test_names_say_when_a_picture_was_drawn(moment: Moment, file: str, adapter: str, label: str) -> None:
    assert (moment.picture_name("hina", 1), moment.adapter_name("hina"), moment.label) == (file, adapter, label)


def test_a_long_run_shows_evenly_spread_epochs(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    picture = Picture("x", "", width_px=64, height_px=64, steps=1, guidance=1.0, seed=0)

    write_sheet(
        [picture], {Moment(10 * epoch, epoch): [tmp_path / "a.png"] for epoch in range(500)}, tmp_path / "sheet.png"
    )

    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 208 + 16 * 136


def test_where_not_all_columns_fit_those_of_steps_give_way(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    steps = [Moment(step, step // 10 if step % 10 == 0 else None) for step in range(0, 31, 2)]

    def width(moments: list[Moment]) -> int:
        write_sheet([PICTURE], {moment: [tmp_path / "a.png"] for moment in moments}, tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            return sheet.width

    assert (width(steps), width([*steps, Moment(32)])) == (208 + 16 * 136, 208 + 4 * 136)


def test_columns_stand_in_the_order_of_the_steps(tmp_path: Path) -> None:
    colours = {Moment(0, 0): "red", Moment(20, 1): "blue", Moment(15): "lime"}
    files = {moment: [tmp_path / f"{name}.png"] for moment, name in colours.items()}
    for moment, name in colours.items():
        Image.new("RGB", (64, 64), name).save(files[moment][0])

    write_sheet([replace(PICTURE, height_px=64)], files, tmp_path / "sheet.png")

    with Image.open(tmp_path / "sheet.png") as sheet:
        seen = [sheet.getpixel((208 + 64 + 136 * column, 28 + 64)) for column in range(3)]
    assert seen == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_a_long_prompt_beside_a_small_picture_is_shown_whole(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    wordy = replace(PICTURE, prompt="a very long prompt " * 40, height_px=64)

    write_sheet([wordy], {Moment(0, 0): [tmp_path / "a.png"]}, tmp_path / "sheet.png")

    with Image.open(tmp_path / "sheet.png") as sheet:
        below = sheet.crop((0, 28 + 128, 200, sheet.height)).convert("L")
    assert min(below.tobytes()) < 128


def test_a_prompt_without_blanks_stays_beside_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    tags = replace(PICTURE, prompt=",".join(["long_hair"] * 30), height_px=64)

    write_sheet([tags], {Moment(0, 0): [tmp_path / "a.png"]}, tmp_path / "sheet.png")

    with Image.open(tmp_path / "sheet.png") as sheet:
        gap = sheet.crop((200, 28, 208, sheet.height))
    assert gap.getcolors() == [(8 * gap.height, (255, 255, 255))]


def test_the_sheet_has_a_row_a_prompt_and_a_column_an_epoch(tmp_path: Path) -> None:
    colours = {0: ["red", "lime"], 2: ["blue", "white"]}
    columns: dict[Moment, list[Path]] = {}
    for epoch, names in colours.items():
        columns[Moment(epoch, epoch)] = [tmp_path / f"{epoch}-{name}.png" for name in names]
        for path, name in zip(columns[Moment(epoch, epoch)], names, strict=True):
            Image.new("RGB", (256, 256), name).save(path)
    picture = Picture("a very long prompt " * 8, "", width_px=256, height_px=256, steps=1, guidance=1.0, seed=0)

    write_sheet([picture, picture], columns, tmp_path / "sheet.png")

    with Image.open(tmp_path / "sheet.png") as sheet:
        centres = [(208 + 128, 28 + 128), (208 + 128, 292 + 128), (472 + 128, 28 + 128), (472 + 128, 292 + 128)]
        seen = [sheet.getpixel(centre) for centre in centres]
        assert sheet.size == (200 + 8 + 2 * 264, 28 + 2 * 264)
    assert seen == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
