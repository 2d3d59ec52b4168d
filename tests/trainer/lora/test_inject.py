"""Which modules get an adapter, of what size, how it starts, and what it computes."""

import logging
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lora_api.model_spec import Family, Network, NetworkBlock, NetworkType
from lora_trainer.conditioning import PARTS, Part
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.lora.inject import AdaptedLayer, Adapters, add_adapters
from tests.trainer.lora.conftest import Adapted, adapt, load, stir

TYPES: dict[NetworkType, Network] = {
    "lora": Network(rank=4, alpha=2.0),
    "locon": Network(type="locon", rank=4, alpha=2.0, conv_rank=3, conv_alpha=1.5),
    "dora": Network(type="dora", rank=4, alpha=2.0, conv_rank=3),
    "loha": Network(type="loha", rank=4, alpha=2.0, conv_rank=3),
    "lokr": Network(type="lokr", rank=1, alpha=0.5, conv_rank=1, lokr_factor=2),
}


@pytest.fixture(scope="module")
def new(tiny_pipeline: Path) -> Callable[[NetworkType], Adapted]:
    """A model with new adapters of a type; tests leave it as it is."""
    return cache(lambda kind: adapt(tiny_pipeline, TYPES[kind]))


@pytest.fixture(scope="module")
def trained(tiny_pipeline: Path) -> Callable[[NetworkType], Adapted]:
    """A model with adapters of a type that do something; tests leave it as it is."""

    def make(kind: NetworkType) -> Adapted:
        adapted = adapt(tiny_pipeline, TYPES[kind])
        stir(adapted.adapters)
        return adapted

    return cache(make)


def real_parts(family: Family) -> dict[Part, nn.Module]:
    """The architectures at their true sizes, without memory."""
    first = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
    second = CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_attention_heads=20, num_hidden_layers=32, projection_dim=1280
    )
    with torch.device("meta"):
        if family == "sd15":
            return {"unet": UNet2DConditionModel(cross_attention_dim=768), "text_encoder": CLIPTextModel(first)}
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
        return {
            "unet": unet,
            "text_encoder": CLIPTextModel(first),
            "text_encoder_2": CLIPTextModelWithProjection(second),
        }


def layer_at(adapters: Adapters, path: str) -> AdaptedLayer:
    return next(layer for layer in adapters.layers if layer.path == path)


@pytest.mark.parametrize(
    ("family", "network", "modules", "parameters"),
    [
        ("sd15", Network(rank=1), [192, 72, 0], 589_824),
        ("sd15", Network(type="locon", rank=32, conv_rank=8), [278, 72, 0], 25_878_528),
        ("sdxl", Network(rank=1), [722, 72, 192], 3_563_008),
        ("sdxl", Network(type="locon", rank=32, conv_rank=8), [788, 72, 192], 118_736_896),
    ],
    ids=["sd15", "sd15 with convolutions", "sdxl", "sdxl with convolutions"],
)
def test_the_real_architectures_get_the_modules_of_sd_scripts(
    family: Family, network: Network, modules: list[int], parameters: int
) -> None:
    parts = real_parts(family)
    with torch.device("meta"):
        adapters = add_adapters(parts, network, family=family, seed=0)

    assert [len(adapters.of(part)) for part in PARTS] == modules
    assert sum(parameter.numel() for parameter in adapters.named_parameters().values()) == parameters


def test_locon_leaves_the_edges_of_the_unet_alone(new: Callable[[NetworkType], Adapted]) -> None:
    paths = {layer.path for layer in new("locon").adapters.of("unet")}

    assert {"down_blocks.0.resnets.0.time_emb_proj", "down_blocks.0.downsamplers.0.conv"} < paths
    assert not paths & {"conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"}


@pytest.mark.parametrize("kind", ["dora", "loha", "lokr"])
def test_other_types_adapt_convolutions_only_when_asked(tiny_pipeline: Path, kind: NetworkType) -> None:
    with_rank, without = (
        adapt(tiny_pipeline, Network(type=kind, rank=2, conv_rank=rank, text_encoder=False)).adapters
        for rank in (2, None)
    )

    assert [len(with_rank.layers), len(without.layers)] == [277, 192]


def test_convolutions_with_a_kernel_have_a_size_of_their_own(new: Callable[[NetworkType], Adapted]) -> None:
    adapters = new("locon").adapters

    wide, shortcut, linear = (
        layer_at(adapters, f"down_blocks.2.resnets.0.{name}") for name in ("conv1", "conv_shortcut", "time_emb_proj")
    )

    assert (wide.rank, wide.alpha, wide.scale) == (3, 1.5, 0.5)
    assert (shortcut.rank, shortcut.alpha) == (linear.rank, linear.alpha) == (4, 2.0)
    assert wide.tensors()["lora_down.weight"].shape == (3, 8, 3, 3)


@pytest.mark.parametrize(
    ("network", "rank_alpha", "conv_rank_alpha"),
    [
        (Network(type="locon", rank=4), (4, 4.0), (4, 4.0)),
        (Network(type="locon", rank=4, alpha=1.0), (4, 1.0), (4, 1.0)),
        (Network(type="locon", rank=4, conv_rank=2), (4, 4.0), (2, 2.0)),
        (Network(type="locon", rank=4, alpha=3.0, conv_rank=2), (4, 3.0), (2, 3.0)),
    ],
)
def test_sizes_that_are_left_out_follow_the_others(
    tiny_pipeline: Path, network: Network, rank_alpha: tuple[int, float], conv_rank_alpha: tuple[int, float]
) -> None:
    adapters = adapt(tiny_pipeline, network.model_copy(update={"text_encoder": False})).adapters
    linear, wide = (layer_at(adapters, f"mid_block.resnets.0.{name}") for name in ("time_emb_proj", "conv1"))

    assert (linear.rank, linear.alpha) == rank_alpha
    assert (wide.rank, wide.alpha) == conv_rank_alpha


def test_blocks_have_ranks_alphas_and_rates_of_their_own(tiny_pipeline: Path) -> None:
    blocks = (
        NetworkBlock(name="IN04", rank=2, conv_rank=5, learning_rate_factor=0.5),
        NetworkBlock(name="M00", alpha=1.0, conv_alpha=6.0),
    )
    adapters = adapt(tiny_pipeline, Network(type="locon", rank=4, blocks=blocks)).adapters
    sizes = {
        (layer.block, layer.tensors()["lora_down.weight"].dim() == 4 and "conv" in layer.path.rsplit(".", 1)[-1]): (
            layer.rank, layer.alpha, layer.rate_factor
        )
        for layer in adapters.layers
        if layer.block in ("IN04", "M00", "OUT05") and "shortcut" not in layer.path
    }  # fmt: skip

    assert sizes == {
        ("IN04", False): (2, 2.0, 0.5),
        ("IN04", True): (5, 5.0, 0.5),
        ("M00", False): (4, 1.0, 1.0),
        ("M00", True): (4, 6.0, 1.0),
        ("OUT05", False): (4, 4.0, 1.0),
        ("OUT05", True): (4, 4.0, 1.0),
    }


@pytest.mark.parametrize(
    "block", [NetworkBlock(name="OUT05", rank=0, conv_rank=0), NetworkBlock(name="OUT05", learning_rate_factor=0.0)]
)
def test_a_block_without_rank_or_rate_gets_no_adapter(tiny_pipeline: Path, block: NetworkBlock) -> None:
    adapters = adapt(tiny_pipeline, Network(type="locon", rank=2, blocks=(block,))).adapters

    assert {layer.block for layer in adapters.of("unet")} >= {"OUT04", "OUT06"}
    assert "OUT05" not in {layer.block for layer in adapters.of("unet")}


def test_a_block_of_another_family_is_refused(tiny_pipeline: Path) -> None:
    network = Network(blocks=(NetworkBlock(name="IN01", rank=8), NetworkBlock(name="M01", rank=8)))

    with pytest.raises(InvalidConfiguration, match=r"spec\.network\.blocks\[1\]\.name is M01, but sd15 has no such"):
        adapt(tiny_pipeline, network)


def test_a_block_in_which_nothing_is_adapted_is_told(tiny_pipeline: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        adapt(tiny_pipeline, Network(rank=2, blocks=(NetworkBlock(name="IN03", rank=8),)))

    assert "type lora adapts nothing in IN03" in caplog.text


def test_a_network_that_adapts_nothing_is_refused() -> None:
    blocks = tuple(NetworkBlock(name=name, rank=0) for name in ("IN01", "IN02"))
    parts: dict[Part, nn.Module] = {"unet": nn.Sequential(nn.Linear(2, 2))}

    with pytest.raises(InvalidConfiguration, match=r"spec\.network adapts nothing"):
        add_adapters(parts, Network(text_encoder=False, blocks=blocks), family="sd15", seed=0)


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        (Network(rank=2, text_encoder=False), {"unet"}),
        (Network(rank=2, unet=False), {"text_encoder", "text_encoder_2"}),
        (Network(rank=2), {"unet", "text_encoder", "text_encoder_2"}),
    ],
)
def test_parts_can_be_left_out(tiny_sdxl: Path, network: Network, parts: set[str]) -> None:
    adapters = adapt(tiny_sdxl, network, family="sdxl").adapters

    assert {layer.part for layer in adapters.layers} == parts


def test_only_adapters_are_trainable(new: Callable[[NetworkType], Adapted]) -> None:
    adapted = new("dora")

    trainable = {id(p) for part in adapted.model.parts.values() for p in part.parameters() if p.requires_grad}

    assert trainable == {id(parameter) for parameter in adapted.adapters.named_parameters().values()}


def test_parts_without_adapters_are_frozen(tiny_pipeline: Path) -> None:
    adapted = adapt(tiny_pipeline, Network(rank=2, text_encoder=False))

    assert not any(parameter.requires_grad for parameter in adapted.model.parts["text_encoder"].parameters())


@pytest.mark.parametrize("kind", TYPES)
def test_masters_are_fp32_on_a_base_in_half_precision(tiny_pipeline: Path, kind: NetworkType) -> None:
    adapted = adapt(tiny_pipeline, TYPES[kind], precision=torch.bfloat16)

    assert {parameter.dtype for parameter in adapted.adapters.named_parameters().values()} == {torch.float32}
    assert adapted.model.unet.conv_in.weight.dtype == torch.bfloat16


def test_full_precision_keeps_the_tensors_in_the_format_that_was_asked(tiny_pipeline: Path) -> None:
    parts = adapt(tiny_pipeline, Network(rank=2)).model.parts
    fresh: dict[Part, nn.Module] = {"text_encoder": CLIPTextModel(parts["text_encoder"].config)}

    adapters = add_adapters(fresh, Network(rank=2), family="sd15", seed=0, dtype=torch.bfloat16)

    assert {parameter.dtype for parameter in adapters.named_parameters().values()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", TYPES)
def test_a_new_adapter_changes_nothing(new: Callable[[NetworkType], Adapted], kind: NetworkType) -> None:
    adapted = new(kind)
    with adapted.adapters.disabled():
        plain = adapted.probe()

    outputs = adapted.probe()

    assert all((a - b).norm() <= 1e-5 * b.norm() for a, b in zip(outputs, plain, strict=True))


@pytest.mark.parametrize("kind", TYPES)
def test_disabled_adapters_leave_exactly_the_base_model(
    tiny_pipeline: Path, trained: Callable[[NetworkType], Adapted], kind: NetworkType
) -> None:
    adapted = trained(kind)
    base = load(tiny_pipeline, "sd15", torch.float32)
    before = adapted.probe()

    with adapted.adapters.disabled():
        without = adapted.probe()

    assert all(a.equal(b) for a, b in zip(without, Adapted(base, adapted.adapters).probe(), strict=True))
    assert all((a - b).norm() > 1e-3 * b.norm() for a, b in zip(before, without, strict=True))
    assert all(a.equal(b) for a, b in zip(before, adapted.probe(), strict=True))


def test_the_start_is_a_function_of_the_seed(tiny_pipeline: Path) -> None:
    network = Network(rank=2, unet=False)

    first, same, other = (
        adapt(tiny_pipeline, network, seed=seed).adapters.layers[0].tensors()["lora_down.weight"] for seed in (1, 1, 2)
    )

    assert first.equal(same)
    assert not first.equal(other)


def test_the_global_generator_has_no_say_in_the_start(tiny_pipeline: Path) -> None:
    network = Network(type="loha", rank=2, unet=False)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = adapt(tiny_pipeline, network).adapters.named_parameters()
        torch.manual_seed(2)
        second = adapt(tiny_pipeline, network).adapters.named_parameters()

    assert all(first[name].equal(second[name]) for name in first)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_down_starts_as_a_linear_layer_does(tiny_pipeline: Path, kind: NetworkType) -> None:
    adapters = adapt(tiny_pipeline, Network(type=kind, rank=64, unet=False)).adapters
    down = layer_at(adapters, "encoder.layers.0.mlp.fc2").tensors()["lora_down.weight"]
    bound = down.shape[1] ** -0.5

    assert down.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert down.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)


def test_dora_starts_with_the_lengths_of_the_rows(new: Callable[[NetworkType], Adapted]) -> None:
    layer = layer_at(new("dora").adapters, "mid_block.resnets.0.conv1")
    weight = layer.base.get_parameter("weight")

    lengths = [math.sqrt(sum(float(x) ** 2 for x in row.flatten())) for row in weight]

    torch.testing.assert_close(layer.tensors()["dora_scale"].flatten(), torch.tensor(lengths))


def _lora(tensors: dict[str, Tensor]) -> Tensor:
    return torch.einsum("or,ri->oi", tensors["lora_up.weight"].flatten(1), tensors["lora_down.weight"].flatten(1))


def _loha(tensors: dict[str, Tensor]) -> Tensor:
    first, second = (
        torch.einsum("or,ri->oi", tensors[f"hada_w{n}_a"], tensors[f"hada_w{n}_b"]) for n in (1, 2)
    )  # fmt: skip
    return first * second


def _lokr(tensors: dict[str, Tensor]) -> Tensor:
    first, second = tensors["lokr_w1"], tensors["lokr_w2_a"] @ tensors["lokr_w2_b"]
    (o1, i1), (o2, i2) = first.shape, second.shape
    return (first[:, None, :, None] * second[None, :, None, :]).reshape(o1 * o2, i1 * i2)


CHANGES: dict[NetworkType, Callable[[dict[str, Tensor]], Tensor]] = {
    "locon": _lora, "loha": _loha, "lokr": _lokr,
}  # fmt: skip


def _output_with(base: Any, weight: Tensor, x: Tensor) -> Tensor:
    """What the base module makes of x with another weight."""
    if isinstance(base, nn.Conv2d):
        return functional.conv2d(x, weight.view_as(base.weight), base.bias, base.stride, base.padding)
    return functional.linear(x, weight, base.bias)


def _input(base: Any) -> Tensor:
    shape = (2, base.weight.shape[1], *[4] * (base.weight.dim() - 2))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


PATHS = ["mid_block.resnets.0.conv1", "down_blocks.0.downsamplers.0.conv", "mid_block.resnets.0.time_emb_proj"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", CHANGES)
@torch.no_grad()
def test_the_forward_pass_adds_the_change_of_the_paper(
    trained: Callable[[NetworkType], Adapted], kind: NetworkType, path: str
) -> None:
    layer = layer_at(trained(kind).adapters, path)
    base: Any = layer.base
    change = CHANGES[kind](dict(layer.tensors())) * (layer.alpha / layer.rank)

    output = layer.layer(_input(base))

    torch.testing.assert_close(output, _output_with(base, base.weight.flatten(1) + change, _input(base)))


@pytest.mark.parametrize("path", PATHS)
@torch.no_grad()
def test_dora_gives_each_row_of_the_sum_its_length(trained: Callable[[NetworkType], Adapted], path: str) -> None:
    layer = layer_at(trained("dora").adapters, path)
    base: Any = layer.base
    rows = base.weight.flatten(1) + _lora(dict(layer.tensors())) * (layer.alpha / layer.rank)
    rows = rows / (rows**2).sum(1, keepdim=True).sqrt() * layer.tensors()["dora_scale"].view(-1, 1)

    output = layer.layer(_input(base))

    torch.testing.assert_close(output, _output_with(base, rows, _input(base)))


def test_a_lokr_of_two_whole_matrices_has_the_scale_1(tiny_pipeline: Path) -> None:
    adapters = adapt(tiny_pipeline, Network(type="lokr", rank=64, alpha=1.0, unet=False)).adapters
    layer = adapters.layers[0]

    assert layer.tensors().keys() == {"lokr_w1", "lokr_w2"}
    assert (layer.scale, layer.alpha) == (1.0, 64.0)


def test_the_lokr_factor_sizes_the_smaller_matrix(tiny_pipeline: Path) -> None:
    adapters = adapt(tiny_pipeline, Network(type="lokr", rank=1, lokr_factor=4, unet=False)).adapters

    assert layer_at(adapters, "encoder.layers.0.mlp.fc1").tensors()["lokr_w1"].shape == (4, 4)


@pytest.mark.parametrize("rank", [1, 4])
def test_the_first_kronecker_matrix_is_the_smaller_one_as_in_lycoris(tiny_pipeline: Path, rank: int) -> None:
    network = Network(type="lokr", rank=rank, conv_rank=rank, lokr_factor=8)
    adapters = adapt(tiny_pipeline, network).adapters

    for layer in adapters.layers:
        weight, tensors = layer.base.get_parameter("weight"), layer.tensors()
        first, second = tensors["lokr_w1"].shape, tensors.get("lokr_w2", tensors.get("lokr_w2_a")).shape
        assert first[0] ** 2 <= weight.shape[0] and first[1] ** 2 <= weight.shape[1], layer.path
        assert first[0] * second[0] == weight.shape[0]
        assert ("lokr_w2" in tensors) == (rank >= max(weight.shape[0] / first[0], weight.shape[1] / first[1]) / 2)


@pytest.mark.parametrize(
    ("kind", "ups"),
    [("locon", {"lora_up.weight"}), ("dora", {"lora_up.weight"}), ("loha", {"hada_w2_a"}), ("lokr", {"lokr_w2_b"})],
)
def test_the_tensors_that_start_at_zero_count_as_up(
    new: Callable[[NetworkType], Adapted], kind: NetworkType, ups: set[str]
) -> None:
    layers = new(kind).adapters.layers
    zero = {name for layer in layers for name, tensor in layer.tensors().items() if not tensor.any()}

    assert zero == ups
    assert all(layer.ups() == ups for layer in layers)


def _gradients(adapted: Adapted) -> dict[str, Tensor]:
    parameters = adapted.adapters.named_parameters()
    gradients = torch.autograd.grad(adapted.forward()[1].square().sum(), list(parameters.values()), allow_unused=True)
    return {name: one for name, one in zip(parameters, gradients, strict=True) if one is not None}


@pytest.mark.parametrize("kind", TYPES)
def test_every_tensor_gets_a_gradient(trained: Callable[[NetworkType], Adapted], kind: NetworkType) -> None:
    adapted = trained(kind)

    gradients = _gradients(adapted)

    assert {name for name, one in gradients.items() if one.any()} == adapted.adapters.named_parameters().keys()


@pytest.mark.parametrize("kind", ["dora", "loha"])
def test_gradient_checkpointing_changes_no_gradient(
    tiny_pipeline: Path, trained: Callable[[NetworkType], Adapted], kind: NetworkType
) -> None:
    recomputing = adapt(tiny_pipeline, TYPES[kind])
    stir(recomputing.adapters)
    recomputing.model.checkpoint_gradients()
    plain = _gradients(trained(kind))

    recomputed = _gradients(recomputing)

    assert all(plain[name].equal(recomputed[name]) for name in plain)


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_in_training_mode_no_global_coin_skips_an_adapter(
    tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch, kind: NetworkType
) -> None:
    adapters = adapt(tiny_pipeline, TYPES[kind].model_copy(update={"unet": False})).adapters
    stir(adapters)
    layer = adapters.layers[0].layer
    x = torch.ones(1, 16)
    expected = layer.eval()(x)
    monkeypatch.setattr(torch, "rand", lambda *_: torch.zeros(1))

    assert layer.train()(x).equal(expected)


@pytest.mark.parametrize("kind", TYPES)
def test_the_loss_falls_on_a_toy_regression(tiny_pipeline: Path, kind: NetworkType) -> None:
    layer = adapt(tiny_pipeline, TYPES[kind].model_copy(update={"unet": False})).adapters.layers[0]
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    target = layer.layer(x).detach() @ torch.diag(torch.linspace(0.5, 1.5, x.shape[1]))
    optimizer = torch.optim.AdamW(layer.tensors().values(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = (layer.layer(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    assert losses[-1] < 0.9 * losses[0]
