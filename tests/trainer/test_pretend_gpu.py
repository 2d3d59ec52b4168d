"""Steps on a pretend GPU: every tensor is where it is used, and nothing waits for the device."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from torch.nn.attention import SDPBackend, sdpa_kernel

from lora_api.spec import LoraTrainingSpec
from lora_trainer.assembly import make_residence, trains_text
from lora_trainer.conditioning import TextStates, Tokens, size_conditions
from lora_trainer.data.loader import TrainingBatch
from lora_trainer.data.texts import FrozenTexts, TrainedTexts
from lora_trainer.diffusion.noise import make_schedule
from lora_trainer.diffusion.objective import Objective
from lora_trainer.errors import Diverged
from lora_trainer.families import catalogue
from lora_trainer.families.base import BaseModel
from lora_trainer.loop import Inputs, Learner, Trainer
from lora_trainer.lora.inject import Adapters, add_adapters
from lora_trainer.plan import PlannedPicture, derive_plan
from tests.support.pretend_gpu import PRETEND, on_cpu, pretend_gpu
from tests.support.tiny_run import FEW_BLOCKS, make_training

BATCH = TrainingBatch(
    latents=torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1)),
    captions=("red", "a blue cat"),
    weights=torch.tensor([1.0, 0.5]),
    masks=torch.rand((2, 1, 8, 8), generator=torch.Generator().manual_seed(2)),
    from_base=torch.tensor([False, True]),
    sizes=size_conditions((64, 64), (0, 0), (64, 64)).expand(2, 6),
)


@dataclass(frozen=True)
class Loaded:
    """A model with adapters, still on the CPU: diffusers loads by way of the meta device."""

    spec: LoraTrainingSpec
    model: BaseModel
    adapters: Adapters

    def trainer(self, device: torch.device) -> Trainer:
        self.model.place(*self.model.parts, device=device)
        make_residence(self.model, self.spec, device).settle()
        accelerator = Accelerator(cpu=True)
        PartialState._shared_state["device"] = device
        objective = Objective(make_schedule(0.00085, 0.012), "epsilon", self.spec.training.loss)
        plan = derive_plan([PlannedPicture(0, (64, 64), repeats=4)], self.spec)
        learner = Learner(self.model, self.adapters, objective)
        return Trainer(learner, plan=plan, spec=self.spec, accelerator=accelerator)

    def inputs(self, device: torch.device) -> Inputs:
        residence = make_residence(self.model, self.spec, device)

        def encode(tokens: Tokens) -> TextStates:
            with residence.having("text_encoder"):
                return self.model.encode_texts(tokens)

        source = TrainedTexts if trains_text(self.spec) else FrozenTexts
        return Inputs(lambda *_: iter(()), source(self.model.tokenize, encode).states)


def load(base: Path, **changes: Any) -> Loaded:
    changes["network"] = {"blocks": FEW_BLOCKS} | changes.get("network", {})
    spec = make_training(base, Path("/data"), Path("/out"), **changes).spec
    model = catalogue.load(base, torch.device("cpu"), precision=torch.float32)
    return Loaded(spec, model, add_adapters(model.parts, spec.network, family="sd15", seed=spec.training.seed))


def step(trainer: Trainer, inputs: Inputs) -> None:
    trainer.train_step((BATCH,), inputs, should_stop=lambda: False)


def test_a_step_waits_for_nothing(tiny_pipeline: Path) -> None:
    loaded = load(tiny_pipeline, training={"ema": {"decay": 0.9}, "loss": {"type": "huber", "noiseOffset": 0.1}})
    with pretend_gpu() as waits:
        trainer, inputs = loaded.trainer(PRETEND), loaded.inputs(PRETEND)
        waits.clear()

        step(trainer, inputs)

        assert waits == []
        trainer.mean_loss()
        assert waits == ["aten._local_scalar_dense.default"]


def test_a_gradient_that_is_no_number_is_found_where_the_loss_is_read(tiny_pipeline: Path) -> None:
    loaded = load(tiny_pipeline, network={"textEncoder": False})
    with pretend_gpu():
        trainer, inputs = loaded.trainer(PRETEND), loaded.inputs(PRETEND)
        next(iter(loaded.adapters.named_parameters().values())).register_hook(lambda gradient: gradient * torch.nan)

        step(trainer, inputs)

        with pytest.raises(Diverged, match="nan at step 1 "):
            trainer.mean_loss()


def test_a_step_that_goes_on_from_a_state_is_what_it_is_on_the_cpu(tiny_pipeline: Path) -> None:
    changes: dict[str, Any] = {
        "training": {"lowMemory": True},
        "optimizer": {"textEncoderLearningRate": 0},  # its adapters visit with it
        "network": {"type": "locon", "convRank": 2, "weightNormLimit": 0.1},
    }
    cpu, gpu = load(tiny_pipeline, **changes), load(tiny_pipeline, **changes)
    with sdpa_kernel(SDPBackend.MATH):
        trainer, inputs = cpu.trainer(torch.device("cpu")), cpu.inputs(torch.device("cpu"))
        step(trainer, inputs)
        state = copy.deepcopy(trainer.state())
        step(trainer, inputs)
        with pretend_gpu():
            there, inputs = gpu.trainer(PRETEND), gpu.inputs(PRETEND)
            there.restore(state)
            step(there, inputs)
            ours = {name: on_cpu(tensor) for name, tensor in gpu.adapters.named_parameters().items()}

    for name, expected in cpu.adapters.named_parameters().items():
        torch.testing.assert_close(ours[name], expected.detach(), rtol=0, atol=1e-4)
