"""Which pictures a grid has, in which order, and what they are called."""

from dataclasses import replace

import pytest

from lora_api.evaluation_spec import MAX_GRID_PICTURES, Grid
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.grid.axes import GridAdapter, make_axes
from lora_trainer.lora.block_weights import block_vector
from lora_trainer.samples import Picture

CAT = Picture("a red cat", "ugly", width_px=64, height_px=64, steps=2, guidance=7.0, seed=5)
EPOCHS = [GridAdapter(f"tiny-{epoch:06d}", f"digest {epoch}", epoch) for epoch in (1, 2)]


def test_the_default_is_every_epoch_at_seven_weights_and_one_seed() -> None:
    axes = make_axes(EPOCHS, Grid(), [CAT])

    assert [cell.weight for cell in axes.cells()] == [0.2, 0.25, 0.4, 0.5, 0.75, 0.8, 1.0] * 2
    assert {cell.picture.seed for cell in axes.cells()} == {42}
    assert len(axes) == 14


def test_there_is_a_panel_for_every_combination_of_the_other_lists() -> None:
    grid = Grid(seeds=(1, 2), samplers=("euler", "unipc"), guidances=(5.0, 7.5), weights=(1.0,))
    blocks = [block_vector(name, None, "sd15") for name in ("ALL", "MIDD")]

    axes = make_axes(EPOCHS[:1], grid, [CAT, replace(CAT, prompt="a dog")], blocks)

    shown = {
        (picture.prompt, picture.seed, picture.sampler, picture.guidance, cell.strength.blocks)
        for cell in axes.cells()
        for picture in [cell.picture]
    }
    assert len(axes.panels) == len(shown) == len(axes) == 2**5


def test_files_are_called_by_what_differs_and_never_alike() -> None:
    grid = Grid(weights=(0.25, 0.251, -0.5), seeds=(1, 2))

    names = [cell.path for cell in make_axes(EPOCHS, grid, [CAT]).cells()]

    assert names[0] == "e000001-w0.25-s1.png"
    assert "e000002-w0.251-s2.png" in names and "e000002-w-0.50-s2.png" in names
    assert len(set(names)) == len(names) == 12


def test_one_value_of_a_list_is_told_in_the_title_but_not_in_the_files_name() -> None:
    panel = make_axes(EPOCHS, Grid(samplers=("dpmpp_2m_karras",), weights=(1.0,)), [CAT]).panels[0]

    assert panel.labels == ("Prompt: a red cat", "Seed: 42", "Sampler: DPM++ 2M Karras")
    assert panel.marks == ()


def test_values_that_stand_twice_in_a_list_are_drawn_once() -> None:
    assert len(make_axes(EPOCHS, Grid(weights=(0.5, 0.5), seeds=(7, 7)), [CAT])) == 2


def test_adapters_of_other_tools_are_called_by_their_files() -> None:
    rows = [GridAdapter("my lora", "a"), GridAdapter("my_lora", "b")]

    cells = list(make_axes(rows, Grid(weights=(1.0,)), [CAT]).cells())

    assert [cell.path for cell in cells] == ["r00-my_lora-w1.00.png", "r01-my_lora-w1.00.png"]
    assert cells[0].adapter.label == "Adapter: my lora"


def test_the_tag_is_what_the_web_ui_takes() -> None:
    blocks = [block_vector("INALL", None, "sd15")]

    tags = [
        next(iter(make_axes(EPOCHS, Grid(weights=(0.75,)), [CAT], vectors).cells())).tag for vectors in ([], blocks)
    ]

    assert tags == ["<lora:tiny-000001:0.75>", "<lora:tiny-000001:0.75:lbw=INALL>"]


def test_too_many_pictures_are_refused_with_their_product() -> None:
    epochs = [GridAdapter(f"tiny-{epoch:06d}", str(epoch), epoch) for epoch in range(1, 300)]

    with pytest.raises(
        InvalidConfiguration, match=rf"299 adapters × 7 weights .* 2093 pictures, but {MAX_GRID_PICTURES}"
    ):
        make_axes(epochs, Grid(), [CAT])
