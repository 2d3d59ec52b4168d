"""Parameter groups: parts, blocks and LoRA+ each with a rate of their own."""

from typing import Any

import pytest
import torch
from torch import nn

from lora_api.optimizer_spec import LoraPlus, Optimizer
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.optim import TrainedTensor, group_parameters, learning_rates, make_optimizer, set_rates


def tensor(part: Any = "unet", block: str | None = None, factor: float = 1.0, *, up: bool = False) -> TrainedTensor:
    return TrainedTensor(part, block, factor, up, nn.Parameter(torch.ones(2)))


def rates_of(spec: Optimizer, *tensors: TrainedTensor) -> dict[str, float]:
    return {group["name"]: group["lr"] for group in group_parameters(spec, tensors)}


ALL_PARTS = (tensor("unet"), tensor("text_encoder"), tensor("text_encoder_2"))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Optimizer(learning_rate=1e-4), (1e-4, 1e-4, 1e-4)),
        (Optimizer(learning_rate=1e-4, unet_learning_rate=2e-4), (2e-4, 1e-4, 1e-4)),
        (Optimizer(learning_rate=1e-4, text_encoder_learning_rate=5e-5), (1e-4, 5e-5, 5e-5)),
        (Optimizer(text_encoder_learning_rate=5e-5, text_encoder2_learning_rate=1e-5), (1e-4, 5e-5, 1e-5)),
    ],
)
def test_parts_have_rates_of_their_own(spec: Optimizer, expected: tuple[float, ...]) -> None:
    names = ("unet", "text_encoder", "text_encoder_2")

    assert learning_rates(spec) == dict(zip(names, expected, strict=True))
    assert rates_of(spec, *ALL_PARTS) == learning_rates(spec)


def test_a_rate_of_zero_leaves_the_part_out() -> None:
    spec = Optimizer(text_encoder_learning_rate=0.0)

    assert list(rates_of(spec, *ALL_PARTS)) == ["unet"]


def test_training_nothing_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match=r"spec\.optimizer.* is 0, so nothing is trained; raise one"):
        group_parameters(Optimizer(learning_rate=0.0, unet_learning_rate=1e-4), [tensor("text_encoder")])


def test_a_block_with_a_factor_is_a_group_of_its_own() -> None:
    spec = Optimizer(learning_rate=1e-4)

    rates = rates_of(spec, tensor(block="IN01"), tensor(block="IN04", factor=0.5), tensor(block="M00", factor=0.0))

    assert rates == {"unet": 1e-4, "unet IN04": 5e-5}


def test_up_weights_learn_faster_with_lora_plus() -> None:
    spec = Optimizer(learning_rate=1e-4, lora_plus=LoraPlus(ratio=16, text_encoder_ratio=4))
    tensors = [tensor(part, up=up) for part in ("unet", "text_encoder") for up in (False, True)]

    rates = rates_of(spec, *tensors, tensor(block="OUT03", factor=2, up=True))

    assert rates == pytest.approx(
        {"unet": 1e-4, "unet plus": 16e-4, "text_encoder": 1e-4, "text_encoder plus": 4e-4, "unet OUT03 plus": 32e-4}
    )


def test_a_ratio_of_one_makes_no_group() -> None:
    spec = Optimizer(lora_plus=LoraPlus(ratio=16, unet_ratio=1))

    assert list(rates_of(spec, tensor(up=True), tensor())) == ["unet"]


def test_every_tensor_lies_in_one_group_in_its_order() -> None:
    tensors = [tensor(), tensor("text_encoder"), tensor(), tensor(block="IN04", factor=0.5)]

    groups = group_parameters(Optimizer(), tensors)

    found = [(group["name"], parameter) for group in groups for parameter in group["params"]]
    expected = [("unet", 0), ("unet", 2), ("text_encoder", 1), ("unet IN04", 3)]
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert all(p is tensors[i].parameter for (_, p), (_, i) in zip(found, expected, strict=True))


def test_rates_are_peaks_times_the_factor_of_the_schedule() -> None:
    groups = group_parameters(Optimizer(text_encoder_learning_rate=5e-5), ALL_PARTS)
    optimizer = make_optimizer(Optimizer(), groups)

    set_rates(optimizer, {group["name"]: group["lr"] for group in groups}, 0.5)

    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {"unet": 5e-5, "text_encoder": 2.5e-5, "text_encoder_2": 2.5e-5}
