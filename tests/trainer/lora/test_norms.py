"""Weight changes are kept as short as kohya's scale_weight_norms keeps them."""

from pathlib import Path

import pytest
import torch

from lora_api.model_spec import Network
from lora_trainer.lora.inject import Adapters
from lora_trainer.lora.norms import limit_norms
from tests.trainer.lora.conftest import adapt, stir

LIMIT = 0.1


@pytest.fixture
def adapters(tiny_pipeline: Path) -> Adapters:
    network = Network(type="locon", rank=4, alpha=2.0, conv_rank=3, text_encoder=False)
    made = adapt(tiny_pipeline, network).adapters
    stir(made)
    return made


def change_norms(adapters: Adapters) -> torch.Tensor:
    """||alpha / r B A|| of each module, by the whole matrices."""
    changes = []
    for layer in adapters.layers:
        tensors = layer.tensors()
        up, down = tensors["lora_up.weight"].flatten(1), tensors["lora_down.weight"].flatten(1)
        changes.append((layer.alpha / layer.rank * (up @ down)).pow(2).sum().sqrt().item())
    return torch.tensor(changes)


def test_changes_that_are_too_long_get_the_length_of_the_limit(adapters: Adapters) -> None:
    before = change_norms(adapters)

    limit_norms(adapters.layers, LIMIT)

    assert 0 < int((before > LIMIT).sum()) < len(before)
    torch.testing.assert_close(change_norms(adapters), before.clamp(max=LIMIT))


def test_shorter_changes_stay_bit_for_bit(adapters: Adapters) -> None:
    short = change_norms(adapters) < LIMIT
    before = [[tensor.clone() for tensor in layer.tensors().values()] for layer in adapters.layers]

    limit_norms(adapters.layers, LIMIT)

    for is_short, layer, tensors in zip(short, adapters.layers, before, strict=True):
        after = layer.tensors().values()
        assert all(a.equal(b) for a, b in zip(after, tensors, strict=True)) is bool(is_short)


def test_both_factors_take_the_same_share(adapters: Adapters) -> None:
    index = int(change_norms(adapters).argmax())
    tensors = adapters.layers[index].tensors()
    before = {name: tensor.norm() for name, tensor in tensors.items()}
    share = (LIMIT / change_norms(adapters)[index]).sqrt()

    limit_norms(adapters.layers, LIMIT)

    for name, norm in before.items():
        torch.testing.assert_close(tensors[name].norm(), norm * share)


def test_it_says_how_many_were_too_long_and_how_long_they_are_now(adapters: Adapters) -> None:
    before = change_norms(adapters)

    norms = limit_norms(adapters.layers, LIMIT)

    assert int(norms.scaled) == int((before > LIMIT).sum())
    torch.testing.assert_close(norms.mean, before.clamp(max=LIMIT).mean())
    torch.testing.assert_close(norms.max, torch.tensor(LIMIT))


def test_a_change_of_nothing_stays_nothing(tiny_pipeline: Path) -> None:
    adapters = adapt(tiny_pipeline, Network(rank=4, unet=False)).adapters
    before = {name: tensor.clone() for name, tensor in adapters.named_parameters().items()}

    norms = limit_norms(adapters.layers, LIMIT)

    assert (float(norms.max), int(norms.scaled)) == (0.0, 0)
    assert all(tensor.equal(before[name]) for name, tensor in adapters.named_parameters().items())
