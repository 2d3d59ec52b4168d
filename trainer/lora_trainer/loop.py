"""The training itself: steps, epochs, and the position from which they can be taken up again. Used by `run`.

A step is a function of (seed, step) and of tensors whose shapes are fixed per bucket. Nothing in it waits for
the GPU: the loss stays on the device and is read at the log interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lora_api.spec import LoraTrainingSpec
from lora_trainer.checkpoint import TrainingState
from lora_trainer.data.sampler import Batch, Step, steps_of_epoch
from lora_trainer.diffusion.loss import epsilon_loss
from lora_trainer.diffusion.noise import NoiseSchedule, add_noise, draw
from lora_trainer.errors import Diverged
from lora_trainer.families.base import BaseModel
from lora_trainer.lora.inject import Adapters, Part
from lora_trainer.optim import learning_rates, make_optimizer, rate_factor, set_rates
from lora_trainer.plan import TrainingPlan

PARTS: tuple[Part, ...] = ("unet", "text_encoder")


class StopRequested(Exception):
    """Raised between two batches, or two denoising steps, after the process was told to stop."""


@dataclass(frozen=True)
class Inputs:
    """What the model is trained on, by index of the example."""

    latents: Callable[[int, bool], Tensor]
    """(index, flipped) -> (C, h, w), fp32."""
    states: Callable[[Sequence[int]], Tensor]
    """Indices -> text states (B, L, D)."""
    weights: Tensor
    """(N,) factor on the loss of each example."""


class Trainer:
    """Makes steps on a model with adapters; holds the optimizer and the position."""

    def __init__(
        self,
        model: BaseModel,
        adapters: Adapters,
        *,
        schedule: NoiseSchedule,
        plan: TrainingPlan,
        spec: LoraTrainingSpec,
        accelerator: Accelerator,
    ) -> None:
        """Builds the optimizer. Raises InvalidConfiguration as `optim` does."""
        self.step = 0
        self.epoch = 0
        """Epochs that are wholly done, files included."""
        self._model, self._adapters, self._schedule = model, adapters, schedule
        self.plan, self._accelerator = plan, accelerator
        self.seed = spec.training.seed
        self._max_norm = spec.optimizer.max_grad_norm
        self._factor = rate_factor(spec.optimizer.schedule, plan.total_steps)
        self._peaks = learning_rates(spec.optimizer)
        for part in PARTS:
            for parameter in adapters.named_parameters(part).values():
                parameter.requires_grad_(self._peaks[part] > 0)
        groups: dict[str, list[nn.Parameter]] = {part: list(adapters.named_parameters(part).values()) for part in PARTS}
        self._optimizer = accelerator.prepare_optimizer(make_optimizer(spec.optimizer, groups))
        self._trained = {n: p for n, p in adapters.named_parameters().items() if p.requires_grad}
        self._losses = torch.zeros(plan.steps_per_epoch, device=accelerator.device)
        self._gradients_checked = False

    def train_step(self, batches: Step, inputs: Inputs, *, should_stop: Callable[[], bool]) -> None:
        """One update from `batches`; the gradient is the mean over batches, also of a short last step.

        Raises:
            StopRequested: between two batches; the step is then not made.
            Diverged: the loss is no number; nothing is updated. On a GPU this is found at the log interval.
        """
        set_rates(self._optimizer, self._peaks, self._factor(self.step))
        losses = []
        for micro, batch in enumerate(batches):
            if should_stop():
                self._optimizer.zero_grad(set_to_none=True)
                raise StopRequested
            loss = self._loss(batch, micro, inputs)
            self._accelerator.backward(loss / len(batches))
            losses.append(loss.detach())
        self._losses[self.step % len(self._losses)] = torch.stack(losses).mean()
        self._update()
        self.step += 1

    def mean_loss(self) -> float:
        """Mean loss of the last epoch's worth of steps; waits for the device.

        Raises:
            Diverged: it is no number.
        """
        made = min(self.step, len(self._losses))
        mean = float(self._losses[:made].mean()) if made else 0.0
        self._check_finite(mean)
        return mean

    def epoch_loss(self) -> float:
        """Mean loss of the steps of the epoch that just ended. Raises Diverged."""
        made = (self.step - 1) % len(self._losses) + 1
        mean = float(self._losses[:made].mean())
        self._check_finite(mean)
        return mean

    @property
    def device(self) -> torch.device:
        """Where the steps are made."""
        device: torch.device = self._accelerator.device
        return device

    def learning_rates(self) -> dict[str, float]:
        """The learning rate of each trained part at the last step."""
        return {group["name"]: float(group["lr"]) for group in self._optimizer.param_groups}

    def state(self) -> TrainingState:
        """What `restore` needs; tensors are shared with the training, so write it before the next step."""
        scaler = self._accelerator.scaler
        return TrainingState(
            step=self.step,
            epoch=self.epoch,
            adapters={name: parameter.detach() for name, parameter in self._adapters.named_parameters().items()},
            optimizer=self._optimizer.state_dict(),
            scaler=scaler.state_dict() if scaler else {},
            losses=self._losses,
        )

    def restore(self, state: TrainingState) -> None:
        """Goes on from `state`, which must come from the same spec, pictures and base model."""
        live = self._adapters.named_parameters()
        assert set(live) == set(state.adapters), "the state is of another network although the digests fit"
        with torch.no_grad():
            for name, parameter in live.items():
                parameter.copy_(state.adapters[name])
        self._optimizer.load_state_dict(dict(state.optimizer))
        if self._accelerator.scaler and state.scaler:
            self._accelerator.scaler.load_state_dict(dict(state.scaler))
        self._losses.copy_(state.losses)
        self.step, self.epoch = state.step, state.epoch

    def _loss(self, batch: Batch, micro: int, inputs: Inputs) -> Tensor:
        device = self._accelerator.device
        indices = [one.example_index for one in batch.draws]
        latents = torch.stack([inputs.latents(one.example_index, one.flipped) for one in batch.draws])
        random = draw(latents.shape, self._schedule, seed=self.seed, step=self.step, micro=micro)
        signal = self._schedule.alphas_cumprod[random.timesteps].to(device)
        noise = random.noise.to(device)
        noisy = add_noise(latents.to(device), noise, signal)  # (B, C, h, w)
        with self._accelerator.autocast():
            states = inputs.states(indices)  # (B, L, D)
            prediction = self._model.predict(noisy, random.timesteps.to(device), states)
        return epsilon_loss(prediction, noise, inputs.weights[indices].to(device))

    def _update(self) -> None:
        if not self._gradients_checked:
            self._check_gradients()
        norm = None
        if self._max_norm > 0:
            norm = self._accelerator.clip_grad_norm_(self._trained.values(), self._max_norm)
        if self._accelerator.device.type == "cpu":
            self._check_finite(float(self._losses[self.step % len(self._losses)]))
            self._check_finite(0.0 if norm is None else float(norm))
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _check_finite(self, value: float) -> None:
        if not torch.isfinite(torch.tensor(value)):
            raise Diverged(f"the loss became {value} at step {self.step} of {self.plan.total_steps}")

    def _check_gradients(self) -> None:
        """Fails when a trained tensor gets no gradient: it would stay as it is without a word."""
        unused = tuple(f"text_encoder.{prefix}" for prefix in self._model.unused_text_layers)
        without = [n for n, p in self._trained.items() if p.grad is None and not n.startswith(unused)]
        assert not without, f"{len(without)} trained tensors get no gradient, such as {without[0]}"
        self._gradients_checked = True


def train(
    trainer: Trainer,
    inputs: Inputs,
    *,
    should_stop: Callable[[], bool],
    after_step: Callable[[int], None],
    after_epoch: Callable[[int], None],
) -> None:
    """Trains from the trainer's position to the end of its plan.

    Args:
        trainer: makes the steps; its position says where to begin.
        inputs: what to train on.
        should_stop: asked before every batch.
        after_step: called after each step with the number of the epoch (from 1).
        after_epoch: called when all steps of an epoch are made; the epoch counts as done when it returns.
    """
    plan = trainer.plan
    for epoch in range(trainer.epoch + 1, plan.epochs + 1):
        already_made = trainer.step - (epoch - 1) * plan.steps_per_epoch
        for batches in steps_of_epoch(plan, epoch, trainer.seed)[already_made:]:
            trainer.train_step(batches, inputs, should_stop=should_stop)
            after_step(epoch)
        after_epoch(epoch)
