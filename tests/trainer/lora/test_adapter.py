"""What an adapter's tensors mean: the changes of the base weights, by the papers' formulas."""

import pytest
import torch
from torch.nn import functional

from lora_trainer.lora.adapter import DORA_SCALE, DOWN, UP, AdapterModule, family_of
from lora_trainer.lora.keys import ModuleName, module_named
from tests.support.adapter_files import (
    CONVOLUTION,
    LINEAR,
    SIZES,
    make_adapter,
    make_dora,
    make_loha,
    make_lokr,
    make_module,
    replaced,
)


def test_a_lora_adds_alpha_over_rank_of_up_times_down() -> None:
    module = make_module(LINEAR, rank=4, alpha=3.0)

    assert torch.allclose(module.delta, 0.75 * module.up @ module.down)


def test_a_convolution_does_what_its_two_convolutions_do() -> None:
    module = make_module(CONVOLUTION, rank=4, alpha=2.0)
    picture = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(1))

    whole = functional.conv2d(picture, module.delta.reshape(8, 4, 3, 3), padding=1)

    twofold = functional.conv2d(functional.conv2d(picture, module.down, padding=1), module.up) * 0.5
    assert torch.allclose(whole, twofold, atol=1e-4)


def test_a_core_between_two_pointwise_convolutions_is_the_kernel() -> None:
    random = torch.Generator().manual_seed(0)
    down, core = torch.randn(3, 4, 1, 1, generator=random), torch.randn(3, 3, 3, 3, generator=random)
    up, picture = torch.randn(8, 3, 1, 1, generator=random), torch.randn(1, 4, 5, 5, generator=random)
    module = AdapterModule(CONVOLUTION, {DOWN: down, UP: up, "lora_mid.weight": core}, alpha=3.0)

    whole = functional.conv2d(picture, module.delta.reshape(8, 4, 3, 3), padding=1)

    threefold = functional.conv2d(functional.conv2d(functional.conv2d(picture, down), core, padding=1), up)
    assert torch.allclose(whole, threefold, atol=1e-4)


def test_a_loha_adds_the_elementwise_product_of_two_products() -> None:
    module = make_loha(LINEAR, rank=3, alpha=1.5)
    w = module.tensors

    expected = 0.5 * (w["hada_w1_a"] @ w["hada_w1_b"]) * (w["hada_w2_a"] @ w["hada_w2_b"])

    assert torch.allclose(module.delta, expected)


def test_a_lokr_adds_the_kronecker_product() -> None:
    module = make_lokr(LINEAR, alpha=1.5)
    first, second = module.tensors["lokr_w1"], module.tensors["lokr_w2_a"] @ module.tensors["lokr_w2_b"]

    blocks = torch.cat([torch.cat([0.5 * first[i, j] * second for j in range(1)], dim=1) for i in range(2)])

    assert torch.allclose(module.delta, blocks)


def test_two_whole_kronecker_factors_have_no_rank_and_the_scale_1() -> None:
    factors = {"lokr_w1": torch.ones(2, 1), "lokr_w2": torch.ones(4, 4, 3, 3)}
    module = AdapterModule(CONVOLUTION, factors, alpha=7.0)

    assert (module.rank, module.scale, module.size) == (0, 1.0, (8, 36))
    assert module.delta.equal(torch.ones(8, 36))


def test_a_dora_gives_every_output_row_its_length() -> None:
    module = make_dora(CONVOLUTION)
    base = torch.randn(SIZES[CONVOLUTION], generator=torch.Generator().manual_seed(9))

    changed = base + module.change(base)

    assert torch.allclose(changed.flatten(1).norm(dim=1), module.tensors[DORA_SCALE].flatten(), rtol=1e-5)


def test_a_dora_of_lycoris_gives_every_input_column_its_length() -> None:
    plain = make_module(LINEAR)
    module = AdapterModule(LINEAR, {**plain.tensors, DORA_SCALE: torch.full((1, 10), 2.0)}, plain.alpha)
    base = torch.randn(SIZES[LINEAR], generator=torch.Generator().manual_seed(9))

    changed = base + module.change(base)

    assert torch.allclose(changed.norm(dim=0), torch.full((10,), 2.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (make_module(LINEAR), "lora"),
        (make_module(CONVOLUTION), "locon"),
        (make_dora(CONVOLUTION), "dora"),
        (make_loha(CONVOLUTION), "loha"),
        (make_lokr(CONVOLUTION), "lokr"),
    ],
)
def test_the_type_of_a_file_is_the_most_special_of_its_modules(module: AdapterModule, kind: str) -> None:
    assert module.type == kind
    assert replaced(make_adapter(LINEAR), module).type == kind


@pytest.mark.parametrize("module", [make_module(CONVOLUTION), make_loha(CONVOLUTION), make_lokr(CONVOLUTION)])
def test_the_size_is_known_without_the_product(module: AdapterModule) -> None:
    assert module.size == tuple(module.delta.shape) == (8, 36)


SD_KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
XL_KEY = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"


@pytest.mark.parametrize(
    ("keys", "width", "metadata", "family"),
    [
        ([SD_KEY], 768, {}, "sd15"),
        ([SD_KEY], 1024, {}, "sd2"),
        ([SD_KEY], 16, {"ss_base_model_version": "sd_v2_v"}, "sd2"),
        ([XL_KEY], 2048, {}, "sdxl"),
        (["lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn2_to_k"], 32, {}, "sdxl"),
        (["lora_te2_text_model_encoder_layers_0_mlp_fc1"], 16, {}, "sdxl"),
        (["lora_te_text_model_encoder_layers_0_mlp_fc1"], 16, {}, "sd15"),
        (["lora_te1_text_model_encoder_layers_0_mlp_fc1"], 16, {"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
    ],
)
def test_the_family_shows_in_the_modules(keys: list[str], width: int, metadata: dict[str, str], family: str) -> None:
    modules = [_module(module_named(key), width) for key in keys]

    assert family_of(modules, metadata, [f"{key}.alpha" for key in keys]) == family


def _module(name: ModuleName, width: int) -> AdapterModule:
    return AdapterModule(name, {DOWN: torch.ones(2, width), UP: torch.ones(4, 2)}, alpha=1.0)
