"""Vectors, presets and the weight of every module, against the extension's own tables."""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from lora_api.evaluation_spec import PRESETS, VECTOR_LENGTHS
from lora_api.model_spec import Family
from lora_trainer.conditioning import Part
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.families.architectures import random_model
from lora_trainer.lora.block_weights import (
    PLACES,
    BlockVector,
    block_vector,
    parse_block_weights,
    parse_presets,
    preset_values,
)
from lora_trainer.lora.blocks import block_of
from tests.support.ldm_checkpoint import unet_modules

TABLES: Mapping[int, str] = {
    12: "BASE IN04 IN05 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05",
    17: "BASE IN01 IN02 IN04 IN05 IN07 IN08 M00 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11",
    20: "BASE IN00 IN01 IN02 IN03 IN04 IN05 IN06 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08",
    26: "BASE IN00 IN01 IN02 IN03 IN04 IN05 IN06 IN07 IN08 IN09 IN10 IN11 M00 "
    "OUT00 OUT01 OUT02 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11",
}
"""What the extension's README says the numbers of a vector are."""

PRESET_TABLE = """
NONE:0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0
ALL:1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1
INS:1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0
IND:1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0
INALL:1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0
MIDD:1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0
OUTD:1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0
OUTS:1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1
OUTALL:1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1
ALL0.5:0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5
"""


@cache
def modules_of(family: Family) -> dict[tuple[Part, str], str]:
    """Every linear layer and convolution of the real model -> the name that the WebUI gives it.

    The UNet's names come from walking the constructors of the original model, not from the code under test.
    """
    model = random_model(family, torch.device("meta"), precision=torch.float32)
    names: dict[tuple[Part, str], str] = {}
    for part, module in model.parts.items():
        paths = [path for path, child in module.named_modules() if isinstance(child, nn.Linear | nn.Conv2d)]
        if part == "unet":
            names |= {("unet", path): webui for path, webui in _webui_names(module, paths).items()}
        else:
            # OpenCLIP has its projection as a bare tensor, which nothing adapts.
            layers = [path for path in paths if "encoder.layers" in path]
            is_clip = part == "text_encoder" and family != "sd2"
            encoder = "transformer_text_model_encoder_layers" if is_clip else "model_transformer_resblocks"
            names |= {(part, path): f"{encoder}_{path.split('layers.')[1]}" for path in layers}
    return names


def _webui_names(unet: Any, paths: Sequence[str]) -> dict[str, str]:
    pairs = dict(unet_modules(unet.config, dict.fromkeys(unet.state_dict(), torch.empty(0))))
    named = {
        path: f"{ldm}{path.removeprefix(ours)}" for ldm, ours in pairs.items() for path in paths
        if path == ours or path.startswith(f"{ours}.")
    }  # fmt: skip
    assert set(named) == set(paths)
    return {path: f"diffusion_model_{name}".replace(".", "_") for path, name in named.items()}


def extension_scale(webui: str, weights: Mapping[str, float]) -> float:
    """What the extension multiplies a module with: it looks for the name of a block in the module's name."""
    if "encoder" in webui or "transformer_resblocks" in webui:
        return weights["BASE"]
    for side, blocks in (("input_blocks", "IN"), ("output_blocks", "OUT")):
        for number in range(12):
            if f"diffusion_model_{side}_{number}_" in webui:
                return weights[f"{blocks}{number:02d}"]
    return weights["M00"] if "diffusion_model_middle_block_" in webui else 1.0


def scales(vector: BlockVector, family: Family) -> dict[tuple[Part, str], float]:
    """What our code gives every module."""
    return {
        (part, path): vector.of(part, block_of(path, family) if part == "unet" else None)
        for part, path in modules_of(family)
    }


def expected(numbers: Sequence[float], family: Family) -> dict[tuple[Part, str], float]:
    """What the extension gives every module: a short vector is filled up with zeros first."""
    weights = dict.fromkeys(TABLES[26].split(), 0.0) | dict(zip(TABLES[len(numbers)].split(), numbers, strict=True))
    return {module: extension_scale(webui, weights) for module, webui in modules_of(family).items()}


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
@pytest.mark.parametrize("line", PRESET_TABLE.split())
def test_a_preset_gives_every_module_the_weight_that_the_extension_gives_it(line: str, family: Family) -> None:
    name, numbers = line.split(":")

    vector = block_vector(name, None, family)

    assert scales(vector, family) == expected([float(number) for number in numbers.split(",")], family)


@pytest.mark.parametrize(("length", "family"), [(17, "sd15"), (26, "sd15"), (17, "sd2"), (12, "sdxl"), (20, "sdxl")])
def test_each_number_reaches_the_modules_that_the_extension_lets_it_reach(length: int, family: Family) -> None:
    numbers = [0.01 * index - 0.05 for index in range(length)]

    assert scales(block_vector("mine", numbers, family), family) == expected(numbers, family)


def test_the_presets_are_those_of_the_api() -> None:
    names = [line.split(":")[0] for line in PRESET_TABLE.split()]

    assert list(PRESETS) == names
    assert all(preset_values(name) is not None for name in PRESETS)
    assert set(TABLES) == set(VECTOR_LENGTHS)
    assert TABLES[26].split() == list(PLACES)


@pytest.mark.parametrize(("family", "length"), [("sd15", 26), ("sd2", 26), ("sdxl", 20)])
def test_weights_are_named_by_the_blocks_that_the_family_has(family: Family, length: int) -> None:
    numbers = [0.01 * index for index in range(length)]

    named = block_vector("mine", numbers, family).by_place(family)

    assert list(named.items()) == list(zip(TABLES[length].split(), numbers, strict=True))


@pytest.mark.parametrize(
    ("path", "weight"),
    [("conv_in", 0.0), ("conv_out", 1.0), ("time_embedding.linear_1", 1.0), ("down_blocks.0.downsamplers.0.conv", 0.0)],
)
def test_what_lies_in_no_block_of_a_vector_is_off_and_what_lies_in_no_block_at_all_is_on(
    path: str, weight: float
) -> None:
    assert block_vector("OUTALL", None, "sd15").of("unet", block_of(path, "sd15")) == weight


@pytest.mark.parametrize(
    ("family", "length", "right"),
    [("sd15", 12, "17 .* or 26"), ("sd2", 20, "17 .* or 26"), ("sdxl", 17, "12 .* or 20"), ("sd15", 16, "17")],
)
def test_a_wrong_length_names_the_right_ones(family: Family, length: int, right: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"grid: mine has {length} numbers, but {family} takes {right}"):
        block_vector("mine", [1.0] * length, family, field="grid")


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(InvalidConfiguration, match=r"HINA4 is no preset; known are NONE, ALL, .*, ALL0\.5, or write"):
        block_vector("HINA4", None, "sd15")


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_endless_numbers_are_refused(number: float) -> None:
    with pytest.raises(InvalidConfiguration, match="mine has a number that is not finite"):
        block_vector("mine", [number] * 17, "sd15")


@pytest.mark.parametrize(("family", "told"), [("sdxl", True), ("sd15", False)])
def test_it_is_told_that_presets_leave_blocks_of_sdxl_out(
    caplog: pytest.LogCaptureFixture, family: Family, told: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        block_vector("ALL", None, family)

    assert ("OUT00 to OUT02 of SDXL get 0" in caplog.text) == told


NUMBERS = "0.25,0,0,0,0,0,0,0,1,1,1,1,0.5,0,0,0,-1"


@pytest.mark.parametrize(("text", "name"), [(NUMBERS, "own"), (f"HINA4:{NUMBERS}", "HINA4"), ("HINA4", "HINA4")])
def test_a_vector_is_written_as_numbers_with_or_without_a_name_or_as_a_preset_of_a_file(text: str, name: str) -> None:
    vector = parse_block_weights(text, "sd15", presets={"HINA4": NUMBERS})

    assert (vector.name, vector.values[0], vector.values[-1]) == (name, 0.25, -1.0)


def test_a_preset_of_the_file_goes_before_the_extensions_own() -> None:
    assert parse_block_weights("INS", "sd15", presets={"INS": NUMBERS}).values[0] == 0.25


def test_the_extensions_own_presets_in_the_file_work_for_sdxl_as_without_it() -> None:
    presets = parse_presets(PRESET_TABLE)

    assert parse_block_weights("INALL", "sdxl", presets=presets) == block_vector("INALL", None, "sdxl")


def test_presets_are_read_from_the_extensions_file() -> None:
    text = f"NONE:0,0\n\n# HINA3:1,1\n HINA4 : {NUMBERS}\r\njust a line\nHINA4:1,2\nFLUXALL:1,1\n"

    assert parse_presets(text) == {"NONE": "0,0", "HINA4": "1,2", "FLUXALL": "1,1"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("R", r"option: mine: OUT11 is R, for which the extension draws a number; write the number"),
        ("U", r"option: mine: OUT11 is U, for which the extension draws"),
        ("X+0.2", r"option: mine: OUT11 is X\+0\.2, which the extension takes from the prompt; write the number"),
        ("one", r"option: mine: OUT11 is 'one'; write a number such as 0\.5"),
    ],
)
def test_what_is_no_number_is_refused_where_it_stands(word: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        parse_block_weights(f"mine:{'1,' * 16}{word}", "sd15", field="option")
