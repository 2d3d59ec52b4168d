"""network_module and network_args: kinds of adapter, blocks, LoRA+."""

import math

import pytest

from lora_trainer.errors import InvalidConfiguration
from tests.support.imports import from_arguments, from_text, leftovers_of, value_at


@pytest.mark.parametrize(
    ("arguments", "kind", "conv_rank", "conv_alpha"),
    [
        ("--network_module networks.lora", "lora", None, None),
        ("--network_args conv_dim=8", "locon", 8, 1.0),
        ("--network_args conv_dim=8 conv_alpha=4", "locon", 8, 4.0),
        ("--network_args conv_dim=8 conv_alpha=0", "locon", 8, 8.0),
        ("--network_module lycoris.kohya --network_dim 6 --network_alpha 3", "locon", 6, 3.0),
        ("--network_module lycoris.kohya --network_args algo=loha conv_dim=2 conv_alpha=1", "loha", 2, 1.0),
        ("--network_module lycoris.kohya --network_args algo=lokr preset=attn-mlp", "lokr", None, None),
        ("--network_module lycoris.kohya --network_args preset=attn-mlp", "lora", None, None),
        ("--network_module lycoris.kohya --network_args algo=locon dora_wd=True conv_dim=2", "dora", 2, 1.0),
    ],
)
def test_the_kind_of_adapter(arguments: str, kind: str, conv_rank: int | None, conv_alpha: float | None) -> None:
    network = from_arguments(arguments).spec.network

    assert (network.type, network.conv_rank, network.conv_alpha) == (kind, conv_rank, conv_alpha)


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        ("--network_dim 8 --network_alpha 0", "network.alpha", 8.0),
        ("--network_args rank_dropout=0.1 module_dropout=0.2", "network.rankDropout", 0.1),
        ("--network_args rank_dropout=0.1 module_dropout=0.2", "network.moduleDropout", 0.2),
        ("--network_dropout 0.3", "network.dropout", 0.3),
        ("--scale_weight_norms 1", "network.weightNormLimit", 1.0),
        ("--network_args loraplus_lr_ratio=16", "optimizer.loraPlus.ratio", 16.0),
        ("--network_args loraplus_unet_lr_ratio=8", "optimizer.loraPlus.unetRatio", 8.0),
        ("--network_train_unet_only", "network.textEncoder", False),
        ("--network_train_text_encoder_only", "network.unet", False),
        ("--unet_lr 0 --text_encoder_lr 1e-4", "network.unet", False),
        ("--unet_lr 1e-4 --text_encoder_lr 0", "network.textEncoder", False),
        ("--network_module lycoris.kohya --network_args preset=unet-transformer-only", "network.textEncoder", False),
    ],
)
def test_options_of_the_network(arguments: str, path: str, value: object) -> None:
    assert value_at(from_arguments(arguments), path) == value


def test_block_ranks_are_counted_from_the_first_input_block() -> None:
    dims = ",".join(["4"] * 11 + ["6", "8", "2"] + ["4"] * 11)

    blocks = from_arguments(f"--network_args block_dims={dims}").spec.network.blocks

    assert [(block.name, block.rank) for block in blocks] == [("IN11", 6), ("M00", 8), ("OUT00", 2)]


def test_an_alpha_of_0_is_the_rank_of_the_block() -> None:
    dims, alphas = ",".join(["4"] * 24 + ["6"]), ",".join(["2"] + ["0"] * 24)

    blocks = from_arguments(
        f"--network_dim 4 --network_alpha 4 --network_args block_dims={dims} block_alphas={alphas}"
    ).spec.network.blocks

    assert [(block.name, block.rank, block.alpha) for block in blocks] == [("IN00", None, 2.0), ("OUT11", 6, 6.0)]


@pytest.mark.parametrize(
    ("options", "without"),
    [
        ("block_alphas={}", "block_alphas"),
        ("conv_block_dims={}", "conv_block_dims"),
        ("block_dims={} conv_dim=2 conv_block_alphas={}", "conv_block_alphas"),
    ],
)
def test_lists_that_need_another_one_have_no_effect_without_it(options: str, without: str) -> None:
    arguments = "--network_dim 2 --network_args " + options.replace("{}", ",".join(["2"] * 25))

    assert set(leftovers_of(arguments)) == {f"network_args {without}"}
    assert from_arguments(arguments).spec.network.blocks == ()


def test_block_ranks_of_sdxl_leave_out_the_layers_without_adapters() -> None:
    dims = ",".join(["9"] + ["4"] * 9 + ["7"] * 3 + ["4"] * 9 + ["9"])
    text = f"sdxl_train_network.py --network_args block_dims={dims}"

    blocks = from_text(text)[0].spec.network.blocks

    assert [(block.name, block.rank) for block in blocks] == [("M00", 7), ("M01", 7), ("M02", 7)]


@pytest.mark.parametrize(
    ("preset", "first", "last"),
    [
        ("sine", 0.0, 1.0),
        ("cosine", 1.0, 0.0),
        ("linear+0.5", 0.5, 1.5),
        ("reverse_linear", 1.0, 0.0),
        ("0.25,0.5", 0.25, 1.0),
    ],
)
def test_learning_rate_weights_of_blocks(preset: str, first: float, last: float) -> None:
    blocks = from_arguments(f"--network_args down_lr_weight={preset}").spec.network.blocks
    factors = {block.name: block.learning_rate_factor for block in blocks}

    assert math.isclose(factors.get("IN00", 1.0), first, abs_tol=1e-12)
    assert math.isclose(factors.get("IN11", 1.0), last, abs_tol=1e-12)
    assert not any(name.startswith(("M", "OUT")) for name in factors)


def test_a_weight_that_is_left_empty_is_0() -> None:
    blocks = from_arguments("--network_args down_lr_weight=1,,0.5,").spec.network.blocks

    factors = {block.name: block.learning_rate_factor for block in blocks}
    assert factors == {"IN01": 0.0, "IN02": 0.5, "IN03": 0.0}


def test_a_sine_is_a_quarter_wave() -> None:
    blocks = from_arguments("--network_args up_lr_weight=sine").spec.network.blocks

    factors = {block.name: block.learning_rate_factor for block in blocks}
    assert math.isclose(factors["OUT04"], math.sin(math.radians(90 * 4 / 11)))


def test_weights_up_to_the_threshold_take_the_adapter_away() -> None:
    text = "--network_args down_lr_weight=0.1,0.2,1 block_lr_zero_threshold=0.1"

    blocks = from_arguments(text).spec.network.blocks

    assert [(block.name, block.learning_rate_factor) for block in blocks] == [("IN00", 0.0), ("IN01", 0.2)]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("--network_module networks.lora_fa", "network_module"),
        ("--network_module lycoris.kohya --network_args algo=ia3 preset=attn-mlp", "network_args algo"),
        ("--network_module lycoris.kohya --network_args algo=loha", "network_args preset"),
        ("--network_module lycoris.kohya --network_args preset=full", "network_args preset"),
        ("--network_module lycoris.kohya --network_args preset=full-lin", "network_args preset"),
        (
            "--network_module lycoris.kohya --network_args algo=loha dora_wd=True preset=attn-mlp",
            "network_args dora_wd",
        ),
        ("--network_args use_scalar=True", "network_args use_scalar"),
        ("--network_weights /no/file.safetensors", "network_weights"),
        ("--dim_from_weights", "dim_from_weights"),
    ],
)
def test_what_no_adapter_here_can_do_is_told(arguments: str, name: str) -> None:
    assert set(leftovers_of(arguments)) == {name}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("conv_dim", "network_args holds 'conv_dim', but must hold name=value"),
        ("conv_dim=big", "network_args conv_dim is 'big'"),
        ("block_dims=1,2", "block_dims has 2 numbers, but must have 25"),
        ("block_dims=a,b", "block_dims is 'a,b', but must be numbers"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        from_arguments(f"--network_args {options}")
