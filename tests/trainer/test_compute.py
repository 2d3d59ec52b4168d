"""Device and precision are refused early when they cannot be had."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_api import LoraTrainingSpec
from lora_trainer.compute import HalfGradScaler, make_accelerator, peak_memory_bytes, prefer_determinism
from lora_trainer.errors import InvalidConfiguration
from tests.support.tiny_run import make_training


def spec(**changes: Any) -> LoraTrainingSpec:
    place = Path("/nowhere")
    return make_training(place / "base", place / "data", place / "out", **changes).spec


def test_a_gpu_that_is_not_there_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(InvalidConfiguration, match=r"gpusPerNode is 1, but no GPU .* set it to 0"):
        make_accelerator(spec(parallelism={"gpusPerNode": 1}))


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_matrix_products_run_in_the_precision_of_the_spec(precision: str, dtype: torch.dtype) -> None:
    accelerator = make_accelerator(spec(training={"precision": precision}))

    with accelerator.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)

    assert product.dtype == dtype
    assert accelerator.scaler is None


def test_the_memory_of_a_cpu_run_is_that_of_the_process() -> None:
    assert peak_memory_bytes(torch.device("cpu")) > 50_000_000


def test_the_number_of_threads_does_not_come_from_the_machine() -> None:
    before = torch.get_num_threads()
    try:
        prefer_determinism(cpu_threads=3)

        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_gradients_in_fp16_are_unscaled_where_torch_refuses() -> None:
    weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.float16))
    optimizer = torch.optim.SGD([weight], lr=1.0)

    for scaler in (torch.amp.GradScaler("cpu", init_scale=4.0), HalfGradScaler("cpu", init_scale=4.0)):
        weight.grad = None
        scaler.scale(weight.sum()).backward()
        if isinstance(scaler, HalfGradScaler):
            scaler.unscale_(optimizer)
        else:
            with pytest.raises(ValueError, match="FP16 gradients"):
                scaler.unscale_(optimizer)

    assert weight.grad is not None and weight.grad.tolist() == [1.0, 1.0]
