"""What dropout leaves out, when, and that the same step always leaves out the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_api.model_spec import Network, NetworkType
from lora_trainer.lora.inject import AdaptedLayer, Adapters
from tests.trainer.lora.conftest import Adapted, adapt, stir


def adapters_of(base: Path, *, unet: bool = False, **settings: Any) -> Adapters:
    network = Network(rank=8, unet=unet, text_encoder=not unet, **settings)
    adapters = adapt(base, network).adapters
    stir(adapters)
    return adapters


def input_of(layer: AdaptedLayer, batch: int = 64) -> Tensor:
    weight = layer.base.get_parameter("weight")
    shape = (batch, 5, weight.shape[1]) if weight.dim() == 2 else (batch, weight.shape[1], 4, 4)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def change_of(layer: AdaptedLayer, x: Tensor) -> Tensor:
    """What the adapter adds to the base module's output now."""
    change: Tensor = layer.layer(x) - layer.base(x)
    return change


@torch.no_grad()
def inner_of(layer: AdaptedLayer, x: Tensor) -> Tensor:
    """The values between A and B: (B, ..., r) or (B, r, h, w)."""
    inner: Tensor = layer.layer.lora_A["default"](x)
    return inner


def find(adapters: Adapters, path: str) -> AdaptedLayer:
    return next(layer for layer in adapters.layers if layer.path == path)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_elements_behind_a_are_zeroed_and_the_others_scaled_up(tiny_pipeline: Path, kind: NetworkType) -> None:
    adapters = adapters_of(tiny_pipeline, type=kind, dropout=0.25)
    layer, x = adapters.layers[0], input_of(adapters.layers[0])
    whole = inner_of(layer, x)

    with adapters.training_at(0, 0):
        factors = inner_of(layer, x) / whole

    zero = factors == 0
    torch.testing.assert_close(factors[~zero], torch.full_like(factors[~zero], 1 / 0.75))
    assert zero.float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_a_rank_is_dropped_for_a_whole_picture_and_the_others_are_scaled_up(tiny_pipeline: Path) -> None:
    adapters = adapters_of(tiny_pipeline, rank_dropout=0.5)
    layer, x = adapters.layers[0], input_of(adapters.layers[0], batch=200)
    whole = inner_of(layer, x)

    with adapters.training_at(0, 0):
        factors = inner_of(layer, x) / whole  # (B, 5, r)

    assert factors.isclose(factors[:, :1]).all()
    assert set(factors[:, 0].round(decimals=4).flatten().tolist()) == {0.0, 2.0}
    assert factors[:, 0].mean().item() == pytest.approx(1.0, abs=0.1)
    assert len({tuple(picture) for picture in factors[:, 0].round(decimals=4).tolist()}) > 50


def test_convolutions_drop_channels_of_a_picture(tiny_pipeline: Path) -> None:
    adapters = adapters_of(tiny_pipeline, unet=True, type="locon", rank_dropout=0.5)
    layer = find(adapters, "mid_block.resnets.0.conv1")
    x = input_of(layer)
    whole = inner_of(layer, x)

    with adapters.training_at(0, 0):
        factors = inner_of(layer, x) / whole  # (B, r, h, w)

    first = factors[:, :, :1, :1]
    torch.testing.assert_close(factors, first.expand_as(factors), atol=1e-4, rtol=1e-4)
    assert {round(value, 3) for value in first.flatten().tolist()} == {0.0, 2.0}


@pytest.mark.parametrize("kind", ["loha", "lokr"])
@pytest.mark.parametrize("path", ["mid_block.resnets.0.conv1", "mid_block.attentions.0.proj_in"])
def test_loha_and_lokr_drop_output_channels_of_a_picture(tiny_pipeline: Path, kind: NetworkType, path: str) -> None:
    adapters = adapters_of(tiny_pipeline, unet=True, type=kind, conv_rank=2, rank_dropout=0.5)
    layer = find(adapters, path)
    x = input_of(layer, batch=8)
    whole = change_of(layer, x)

    with adapters.training_at(0, 0):
        dropped = change_of(layer, x)

    kept = dropped.abs().amax(dim=(2, 3), keepdim=True) > 1e-6  # (B, out, 1, 1)
    torch.testing.assert_close(dropped, whole * kept * 2, atol=1e-5, rtol=1e-4)
    assert 0.3 < kept.float().mean().item() < 0.7


def test_the_row_lengths_of_dora_are_those_of_the_whole_adapter(tiny_pipeline: Path) -> None:
    adapters = adapters_of(tiny_pipeline, type="dora", rank_dropout=0.5)
    layer, x = adapters.layers[0], input_of(adapters.layers[0])
    tensors = layer.tensors()
    up, base = tensors["lora_up.weight"], layer.base.get_parameter("weight")
    rows = base + layer.scale * up @ tensors["lora_down.weight"]
    lengths = tensors["dora_scale"] / rows.norm(dim=1)

    with adapters.training_at(0, 0):
        change, inner = change_of(layer, x), inner_of(layer, x)

    expected = (lengths - 1) * (x @ base.T) + lengths * layer.scale * (inner @ up.T)
    torch.testing.assert_close(change, expected.detach(), atol=1e-5, rtol=1e-4)


def skipped(adapters: Adapters, step: int, micro: int = 0) -> list[str]:
    with adapters.training_at(step, micro):
        return [layer.name for layer in adapters.layers if not layer.enabled]


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
def test_a_share_of_the_modules_is_skipped(tiny_pipeline: Path, kind: NetworkType) -> None:
    adapters = adapters_of(tiny_pipeline, type=kind, module_dropout=0.3)

    shares = [len(skipped(adapters, step)) / len(adapters.layers) for step in range(50)]

    assert sum(shares) / len(shares) == pytest.approx(0.3, abs=0.06)
    assert len({tuple(skipped(adapters, step)) for step in range(50)}) > 40


def test_a_skipped_module_computes_what_the_base_does(tiny_pipeline: Path) -> None:
    adapters = adapters_of(tiny_pipeline, type="dora", module_dropout=0.5)

    with adapters.training_at(0, 0):
        changes = {layer.enabled: change_of(layer, input_of(layer, 2)) for layer in adapters.layers}

    assert not changes[False].any()
    assert changes[True].any()


def test_at_least_one_module_is_always_trained(tiny_pipeline: Path) -> None:
    adapters = adapters_of(tiny_pipeline, module_dropout=0.999)

    assert {len(skipped(adapters, step)) for step in range(20)} == {len(adapters.layers) - 1}


SETTINGS = [{"dropout": 0.3}, {"rank_dropout": 0.3}, {"module_dropout": 0.3}]


def outputs(adapters: Adapters, steps: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Changes of all layers, joined, at (step, micro)."""
    found = []
    for step, micro in steps:
        with adapters.training_at(step, micro):
            found.append(torch.cat([change_of(one, input_of(one, 2)).flatten() for one in adapters.layers]))
    return found


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: next(iter(settings)))
def test_masks_are_a_function_of_step_and_micro_batch(tiny_pipeline: Path, settings: dict[str, Any]) -> None:
    first, other_step, other_micro = outputs(adapters_of(tiny_pipeline, **settings), [(3, 0), (4, 0), (3, 1)])
    torch.manual_seed(99)

    (again,) = outputs(adapters_of(tiny_pipeline, **settings), [(3, 0)])

    assert again.equal(first)
    assert not any(one.equal(first) for one in (other_step, other_micro))


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: next(iter(settings)))
def test_outside_of_a_training_step_nothing_is_dropped(tiny_pipeline: Path, settings: dict[str, Any]) -> None:
    adapters, whole = adapters_of(tiny_pipeline, **settings), adapters_of(tiny_pipeline)
    outputs(adapters, [(0, 0)])

    for layer, same in zip(adapters.layers, whole.layers, strict=True):
        assert change_of(layer, input_of(layer, 2)).equal(change_of(same, input_of(same, 2)))


def test_modules_differ_in_their_masks(tiny_pipeline: Path) -> None:
    adapters = adapters_of(tiny_pipeline, dropout=0.5)
    key, value = (find(adapters, f"encoder.layers.0.self_attn.{name}_proj") for name in "kv")
    x = input_of(key)

    with adapters.training_at(0, 0):
        masks = [inner_of(layer, x) == 0 for layer in (key, value)]

    assert not masks[0].equal(masks[1])


def test_the_base_model_can_be_asked_within_a_step(tiny_pipeline: Path) -> None:
    adapters = adapters_of(tiny_pipeline, module_dropout=0.5)

    with adapters.training_at(0, 0):
        before = [layer.enabled for layer in adapters.layers]
        with adapters.disabled():
            during = [layer.enabled for layer in adapters.layers]
        after = [layer.enabled for layer in adapters.layers]

    assert not any(during)
    assert before == after
    assert all(layer.enabled for layer in adapters.layers)


def test_gradient_checkpointing_sees_the_same_masks(tiny_pipeline: Path) -> None:
    network = Network(rank=4, dropout=0.2, rank_dropout=0.2, module_dropout=0.2)

    def gradients(*, checkpointed: bool) -> dict[str, Tensor]:
        adapted: Adapted = adapt(tiny_pipeline, network)
        stir(adapted.adapters)
        if checkpointed:
            adapted.model.checkpoint_gradients()
        with adapted.adapters.training_at(5, 1):
            adapted.forward()[1].square().sum().backward()  # type: ignore[no-untyped-call]
        parameters = adapted.adapters.named_parameters()
        return {name: one.grad for name, one in parameters.items() if one.grad is not None}

    plain, recomputed = gradients(checkpointed=False), gradients(checkpointed=True)

    assert plain.keys() == recomputed.keys()
    assert all(gradient.equal(recomputed[name]) for name, gradient in plain.items())


def test_masks_keep_the_format_of_half_precision(tiny_pipeline: Path) -> None:
    adapters = adapters_of(tiny_pipeline, dropout=0.25, rank_dropout=0.25)
    layer = adapters.layers[0]

    with torch.autocast("cpu", dtype=torch.bfloat16), adapters.training_at(0, 0):
        inner = inner_of(layer, input_of(layer))

    assert inner.dtype == torch.bfloat16
    assert 0.4 < (inner == 0).float().mean().item() < 0.5
