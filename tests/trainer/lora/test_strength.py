"""Live adapters at a weight and at block weights: what they add, and that nothing is left of it afterwards."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lora_api.model_spec import Network, NetworkType
from lora_trainer.conditioning import Part
from lora_trainer.lora.block_weights import PLACES, BlockVector
from lora_trainer.lora.merge import merge_into
from lora_trainer.lora.strength import Strength
from tests.support.adapters import Adapted, adapt, distance, file_of, load_parts, outputs_of

TYPES: Mapping[NetworkType, Network] = {
    "lora": Network(rank=4, alpha=2.0),
    "locon": Network(type="locon", rank=4, alpha=2.0, conv_rank=3, conv_alpha=1.5),
    "dora": Network(type="dora", rank=4, alpha=2.0, conv_rank=3),
    "loha": Network(type="loha", rank=4, alpha=2.0, conv_rank=3),
    "lokr": Network(type="lokr", rank=1, alpha=0.5, conv_rank=1, lokr_factor=2),
}
MIXED = BlockVector("mixed", tuple((index % 5) / 2 - 0.5 for index in range(26)))
"""Block weights of both signs, with zeros and ones among them."""


@pytest.fixture(scope="module")
def trained(tiny_pipeline: Path) -> Callable[[NetworkType], Adapted]:
    """Parts with adapters of a type that do something; tests leave them as they are."""
    return cache(lambda kind: adapt(tiny_pipeline, TYPES[kind]))


def at(adapted: Adapted, strength: Strength) -> dict[Part, Tensor]:
    """What the parts give at a strength."""
    with adapted.adapters.at(strength):
        return adapted.outputs()


def changed_base(folder: Path, adapted: Adapted, factor: Callable[[Part, str | None], float]) -> dict[Part, Tensor]:
    """What the base gives when `factor` times each module's change is added to its weight, as AUTOMATIC1111 does."""
    parts, file = load_parts(folder, "sd15"), file_of(adapted.adapters)
    blocks = {layer.module_name: layer.block for layer in adapted.adapters.layers}
    for key, module in file.modules.items():
        one = type(file)({key: module}, {}, file.family)
        merge_into(parts, one, factor(module.name.part, blocks[module.name]))
    return outputs_of(parts)


@pytest.mark.parametrize("kind", TYPES)
def test_a_weight_scales_what_is_added_in_all_parts(
    tiny_pipeline: Path, trained: Callable[[NetworkType], Adapted], kind: NetworkType
) -> None:
    expected = changed_base(tiny_pipeline, trained(kind), lambda part, block: 0.7)

    assert distance(at(trained(kind), Strength(0.7)), expected) <= 1e-5


@pytest.mark.parametrize("kind", ["locon", "dora", "loha", "lokr"])
def test_block_weights_multiply_the_weight(
    tiny_pipeline: Path, trained: Callable[[NetworkType], Adapted], kind: NetworkType
) -> None:
    def factor(part: Part, block: str | None) -> float:
        return 0.8 * MIXED.values[PLACES.index(block or "BASE")]

    expected = changed_base(tiny_pipeline, trained(kind), factor)

    assert distance(at(trained(kind), Strength(0.8, MIXED)), expected) <= 1e-5


@pytest.mark.parametrize("kind", ["locon", "dora"])
def test_the_weight_zero_is_exactly_the_base(
    tiny_pipeline: Path, trained: Callable[[NetworkType], Adapted], kind: NetworkType
) -> None:
    assert distance(at(trained(kind), Strength(0.0)), outputs_of(load_parts(tiny_pipeline, "sd15"))) == 0.0


def test_the_weight_zero_is_the_base_even_where_the_training_diverged(tiny_pipeline: Path) -> None:
    adapters = adapt(tiny_pipeline, TYPES["lora"].model_copy(update={"unet": False})).adapters
    layer = adapters.layers[0]
    layer.tensors()["lora_up.weight"].data.fill_(torch.inf)
    x = torch.ones(1, 16)

    with adapters.at(Strength(0.0)):
        output = layer.layer(x)

    assert output.equal(layer.base(x))


def test_the_text_encoder_goes_by_base_alone(trained: Callable[[NetworkType], Adapted]) -> None:
    only_base = BlockVector("base", (1.0, *[0.0] * 25))
    adapted = trained("lora")
    with adapted.adapters.disabled():
        plain = adapted.outputs()

    outputs = at(adapted, Strength(1.0, only_base))

    assert outputs["text_encoder"].equal(adapted.outputs()["text_encoder"])
    assert outputs["unet"].equal(plain["unet"])


@pytest.mark.parametrize("kind", TYPES)
def test_afterwards_everything_is_as_before(trained: Callable[[NetworkType], Adapted], kind: NetworkType) -> None:
    adapted = trained(kind)
    tensors = {name: one.detach().clone() for name, one in adapted.adapters.named_parameters().items()}
    before = adapted.outputs()

    with pytest.raises(RuntimeError, match="stopped"), adapted.adapters.at(Strength(0.3, MIXED)):
        raise RuntimeError("stopped")

    assert distance(adapted.outputs(), before) == 0.0
    assert all(one.equal(tensors[name]) for name, one in adapted.adapters.named_parameters().items())
    assert not any(layer.layer._forward_hooks for layer in adapted.adapters.layers)


def test_at_full_strength_nothing_is_touched(
    trained: Callable[[NetworkType], Adapted], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted = trained("dora")
    before = adapted.outputs()
    for name in ("set_scale", "enable"):
        monkeypatch.delattr(f"lora_trainer.lora.layer.AdaptedLayer.{name}")

    assert distance(at(adapted, Strength(1.0)), before) == 0.0


def test_a_layer_that_was_off_stays_off(trained: Callable[[NetworkType], Adapted]) -> None:
    adapted = trained("dora")
    with adapted.adapters.disabled():
        plain = adapted.outputs()

        assert distance(at(adapted, Strength(0.5)), plain) == 0.0
        assert not any(layer.enabled for layer in adapted.adapters.layers)


def test_a_strength_within_another_multiplies_it(trained: Callable[[NetworkType], Adapted]) -> None:
    adapted = trained("dora")

    with adapted.adapters.at(Strength(0.5)):
        nested = at(adapted, Strength(0.6))

    assert distance(nested, at(adapted, Strength(0.3))) <= 1e-5


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_base_in_half_precision_stays_in_it(tiny_pipeline: Path, kind: NetworkType) -> None:
    network = TYPES[kind].model_copy(update={"unet": False})
    layer = adapt(tiny_pipeline, network).adapters
    base = layer.layers[0].base.to(torch.bfloat16)

    with layer.at(Strength(0.5)):
        output = layer.layers[0].layer(torch.ones(1, base.get_parameter("weight").shape[1], dtype=torch.bfloat16))

    assert output.dtype == torch.bfloat16
