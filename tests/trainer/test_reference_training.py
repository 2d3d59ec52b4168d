"""Fifty steps of the real loop against the training written down once more from the papers, without PEFT."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.func import functional_call

from lora_trainer.conditioning import size_conditions
from lora_trainer.data.loader import TrainingBatch
from lora_trainer.diffusion.noise import make_schedule
from lora_trainer.diffusion.objective import Objective
from lora_trainer.families import catalogue
from lora_trainer.families.base import BaseModel
from lora_trainer.loop import Inputs, Learner, Trainer
from lora_trainer.lora.inject import add_adapters
from lora_trainer.plan import PlannedPicture, derive_plan
from tests.support import reference_loop
from tests.support.reference_loop import AdamW, Recipe
from tests.support.tiny_run import FEW_BLOCKS, make_training

STEPS, WARMUP, RATE = 50, 5, 2e-3
RANK, ALPHA = 4, 2.0
CAPTIONS = ("red", "a blue cat")
SIZES = size_conditions((64, 64), (0, 0), (64, 64)).expand(2, 6)


def latents_of(step: int) -> Tensor:
    return torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(step))


def cosine(step: int) -> float:
    """Linear from 0 over the warm-up, then half a cosine to 0 (https://arxiv.org/abs/1608.03983, equation 5)."""
    if step < WARMUP:
        return RATE * step / WARMUP
    return RATE * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def load(folder: Path) -> BaseModel:
    return catalogue.load(folder, torch.device("cpu"), precision=torch.float32)


def test_every_loss_of_fifty_steps_equals_the_papers_formulas(tiny_pipeline: Path, tmp_path: Path) -> None:
    spec = make_training(
        tiny_pipeline,
        tmp_path / "data",
        tmp_path / "out",
        network={"rank": RANK, "alpha": ALPHA, "blocks": FEW_BLOCKS},
        optimizer={
            "name": "adamw",
            "learningRate": RATE,
            "maxGradNorm": 0.0,
            "schedule": {"name": "cosine", "warmupSteps": WARMUP},
        },
        training={"epochs": 1, "batchSize": 2, "loss": {"minSnrGamma": 5}},
    ).spec
    plan = derive_plan([PlannedPicture(0, (64, 64), repeats=2 * STEPS)], spec)
    model = load(tiny_pipeline)
    adapters = add_adapters(model.parts, spec.network, family="sd15", seed=spec.training.seed)
    objective = Objective(make_schedule(0.00085, 0.012), "epsilon", spec.training.loss)
    factors = {name: parameter.detach().clone() for name, parameter in adapters.named_parameters().items()}
    trainer = Trainer(Learner(model, adapters, objective), plan=plan, spec=spec, accelerator=Accelerator(cpu=True))
    inputs = Inputs(lambda *_: iter(()), lambda captions: model.encode_texts(model.tokenize(captions)))

    losses = [one_loss(trainer, inputs, step) for step in range(STEPS)]

    draws = [objective.draw(latents_of(step), seed=trainer.seed, step=step, micro=0) for step in range(STEPS)]
    steps = [
        [reference_loop.Batch(latents_of(step), drawn.noise, drawn.timesteps, weights=torch.ones(2))]
        for step, drawn in enumerate(draws)
    ]
    for factor in factors.values():
        factor.requires_grad_(True)
    expected = reference_loop.train(
        Merged(load(tiny_pipeline), factors),
        factors.values(),
        steps,
        Recipe(weight=lambda snr: min(snr, 5) / snr),
        update=AdamW(cosine),
    )
    assert losses == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert max(abs(loss - losses[0]) for loss in losses) > 1e-2


def one_loss(trainer: Trainer, inputs: Inputs, step: int) -> float:
    batch = TrainingBatch(
        latents=latents_of(step),
        captions=CAPTIONS,
        weights=torch.ones(2),
        masks=None,
        from_base=torch.zeros(2, dtype=torch.bool),
        sizes=SIZES,
    )
    trainer.train_step((batch,), inputs, should_stop=lambda: False)
    return float(trainer.state().losses[step])


class Merged:
    """The base model with W + alpha / r B A in place of each adapted weight (https://arxiv.org/abs/2106.09685)."""

    def __init__(self, model: BaseModel, factors: dict[str, Tensor]) -> None:
        self._model, self._factors = model, factors

    def __call__(self, noisy: Tensor, timesteps: Tensor, _: Any) -> Tensor:
        unet, encoder = self._model.parts["unet"], self._model.parts["text_encoder"]
        ids = self._model.tokenize(CAPTIONS).ids[:, 0, 0]
        states = functional_call(encoder, dict(self._weights("text_encoder", encoder)), (ids,)).last_hidden_state
        return functional_call(unet, dict(self._weights("unet", unet)), (noisy, timesteps, states)).sample

    def _weights(self, part: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
        for name, down in self._factors.items():
            if name.startswith(f"{part}.") and name.endswith(".lora_down.weight"):
                path = name.removeprefix(f"{part}.").removesuffix(".lora_down.weight")
                up = self._factors[name.replace("lora_down", "lora_up")]
                weight = module.get_parameter(f"{path}.weight").detach()
                yield f"{path}.weight", weight + (ALPHA / RANK * up.flatten(1) @ down.flatten(1)).view_as(weight)
