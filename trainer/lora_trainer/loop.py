"""The training itself: steps, epochs, and the position from which they can be taken up again. Used by `run`.

A step is a function of (seed, step) and of tensors whose shapes are fixed per bucket. Nothing in it waits for
the GPU: the loss stays on the device and is read at the log interval.

Several processes share the batches of each step, and all make the same update. What is random in a batch depends on its
number within the step, so two processes do what one does with twice the accumulation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor

from lora_api.spec import LoraTrainingSpec
from lora_trainer.checkpoint import TrainingState
from lora_trainer.conditioning import TextStates
from lora_trainer.data.loader import TrainingBatch
from lora_trainer.diffusion.objective import Draw, Objective
from lora_trainer.errors import Diverged, InvalidConfiguration
from lora_trainer.families.base import BaseModel
from lora_trainer.gradients import GradientSum
from lora_trainer.lora.dropout import Share
from lora_trainer.lora.inject import Adapters
from lora_trainer.lora.norms import limit_norms
from lora_trainer.memory import StepTooLarge
from lora_trainer.optim import (
    Average,
    TrainedTensor,
    evaluating,
    group_parameters,
    make_optimizer,
    rate_factor,
    set_rates,
)
from lora_trainer.plan import TrainingPlan
from lora_trainer.stopping import StopRequested
from lora_trainer.transfer import to_device
from lora_trainer.world import PeerLost, Word, World


@dataclass(frozen=True)
class Inputs:
    """What the model is trained on."""

    steps: Callable[[int, int], Iterator[tuple[TrainingBatch, ...]]]
    """(epoch from 1, steps made before) -> this process's batches of each step of the epoch that is left."""
    text: Callable[[Sequence[str]], TextStates]
    """Captions -> their states, with gradients where a text encoder is trained."""
    plain: Callable[[int], TrainingBatch] | None = None
    """Index of an example -> a batch of it alone, as it is measured; None where nothing is."""


@dataclass(frozen=True)
class Learner:
    """The model, what is trained in it and towards what."""

    model: BaseModel
    adapters: Adapters
    objective: Objective


class Trainer:
    """Makes steps on a model with adapters; holds the optimizer and the position."""

    def __init__(
        self,
        learner: Learner,
        *,
        plan: TrainingPlan,
        spec: LoraTrainingSpec,
        accelerator: Accelerator,
        examples_at_once: int | None = None,
        world: World | None = None,
    ) -> None:
        """Builds the optimizer. Raises InvalidConfiguration as `optim` does.

        A batch of more than `examples_at_once` goes through the model in pieces; None: always whole. `world`: the
        processes that share each step; None: this one is alone.
        """
        self.world = world or World()
        self._examples_at_once, self._optimizer_name = examples_at_once, spec.optimizer.name
        self.step = 0
        self.epoch = 0
        """Epochs that are wholly done, files included."""
        self._model, self._adapters, self._objective = learner.model, learner.adapters, learner.objective
        self.plan, self._accelerator = plan, accelerator
        self.seed = spec.training.seed
        self._max_norm, self._norm_limit = spec.optimizer.max_grad_norm, spec.network.weight_norm_limit
        groups = group_parameters(spec.optimizer, _trained_tensors(learner.adapters, spec))
        self._peaks = {group["name"]: float(group["lr"]) for group in groups}
        self._factor = rate_factor(
            spec.optimizer.schedule,
            plan.total_steps,
            warmup=plan.warmup_steps,
            decay=plan.decay_steps,
            peak=spec.optimizer.learning_rate,
        )
        in_groups = {id(parameter) for group in groups for parameter in group["params"]}
        for parameter in learner.adapters.named_parameters().values():
            parameter.requires_grad_(id(parameter) in in_groups)
        self._trained = {n: p for n, p in learner.adapters.named_parameters().items() if p.requires_grad}
        trained = set(self._trained.values())
        self._limited = [layer for layer in learner.adapters.layers if trained & set(layer.tensors().values())]
        self._optimizer = accelerator.prepare_optimizer(make_optimizer(spec.optimizer, groups))
        self._average = Average(self._trained, spec.training.ema) if spec.training.ema else None
        self._losses = torch.zeros(plan.steps_per_epoch, device=accelerator.device)
        self._losses_since = 0  # The step that the first of them is of, while they do not fill an epoch.
        # A module that is left out by chance gets no gradient either.
        self._gradients_checked = spec.network.module_dropout > 0
        is_constant = spec.network.module_dropout == 0
        self._sum = GradientSum(self.world, list(self._trained.values()), is_constant=is_constant)

    def train_step(self, batches: Sequence[TrainingBatch], inputs: Inputs, *, should_stop: Callable[[], bool]) -> None:
        """One update from `batches` and those of the other processes; the gradient is the mean over all of them, also
        of a short last step.

        Raises:
            StopRequested: some process was told to stop between two batches; the step is made by none.
            StepTooLarge: the device of some process has too little memory; the trainer cannot be used any more.
            Diverged: the loss, or the length of the gradient, is no number; nothing is updated. On a GPU this is found
                at the log interval.
        """
        set_rates(self._optimizer, self._peaks, self._factor(self.step))
        count = len(batches) if self.world.size == 1 else self.plan.batches_in_step(self.step)
        with self._agreeing():
            losses = []
            for index, batch in enumerate(batches):
                if should_stop():
                    raise StopRequested
                losses.append(self._backward(batch, self._number(index), inputs, batches=count))
            self._sum.gather(self._mean(losses, count))
        with self._agreeing():
            self._losses[self.step % len(self._losses)] = self._sum.spread()
            self._update()
        self.step += 1
        if self._average is not None:
            self._average.update(self.step)

    @contextmanager
    def _agreeing(self) -> Iterator[None]:
        """Part of a step: where one process cannot finish it, all leave the step."""
        word, cause = Word.GO, None
        try:
            yield
        except PeerLost:
            raise
        except StopRequested:
            word = Word.STOP
        except torch.OutOfMemoryError as error:
            word, cause = Word.TOO_LARGE, error
        word = self.world.agree(word)
        if word is Word.STOP:
            self._optimizer.zero_grad(set_to_none=True)
            raise StopRequested
        if word is Word.TOO_LARGE:
            message = str(cause).splitlines()[0] if cause else "of another process"
            raise StepTooLarge(message, step=self.step) from cause

    def _number(self, index: int) -> int:
        """Number within the step of a batch of this process."""
        return self.world.rank + index * self.world.size

    def _mean(self, losses: Sequence[Tensor], count: int) -> Tensor:
        """What this process adds to the mean loss of a step of `count` batches."""
        if len(losses) == count:
            return torch.stack(list(losses)).mean()
        return torch.stack([self._losses.new_zeros(()), *losses]).sum() / count

    def mean_loss(self) -> float:
        """Mean loss of the last epoch's worth of steps; waits for the device.

        Raises:
            Diverged: it is no number.
        """
        losses = self._measured()
        mean = float(losses.mean()) if len(losses) else 0.0
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
        """The learning rate of each group at the last step, as an optimizer that finds it itself multiplies it."""
        return {group["name"]: float(group["lr"] * group.get("d", 1.0)) for group in self._optimizer.param_groups}

    @contextmanager
    def result(self) -> Iterator[None]:
        """The adapters as they are saved and drawn: averaged, if an average is kept."""
        with ExitStack() as stack:
            if self.step > 0:
                stack.enter_context(evaluating(self._optimizer))
                if self._average is not None:
                    stack.enter_context(self._average.swapped())
            yield

    def state(self) -> TrainingState:
        """What `restore` needs; tensors are shared with the training, so write it before the next step."""
        scaler = self._accelerator.scaler
        return TrainingState(
            step=self.step,
            epoch=self.epoch,
            adapters={name: parameter.detach() for name, parameter in self._adapters.named_parameters().items()},
            optimizer={**self._optimizer.state_dict(), "name": self._optimizer_name},
            scaler=scaler.state_dict() if scaler else {},
            average=self._average.state() if self._average else {},
            losses=self._measured().clone(),
        )

    def restore(self, state: TrainingState) -> None:
        """Goes on from `state`, which must come from the same spec, pictures and base model.

        If another optimizer made it, as before a rung of the memory ladder, this one's averages begin anew.
        """
        live = self._adapters.named_parameters()
        assert set(live) == set(state.adapters), "the state is of another network although the digests fit"
        with torch.no_grad():
            for name, parameter in live.items():
                parameter.copy_(state.adapters[name])
        if state.optimizer["name"] == self._optimizer_name:
            self._optimizer.load_state_dict(dict(state.optimizer))
        if self._accelerator.scaler and state.scaler:
            self._accelerator.scaler.load_state_dict(dict(state.scaler))
        if self._average is not None:
            self._average.restore(state.average)
        count = min(len(state.losses), state.step)
        self._losses[:count] = state.losses[:count].to(self._losses.device)
        self.step, self.epoch, self._losses_since = state.step, state.epoch, state.step - count

    def restore_weights(self, state: TrainingState) -> None:
        """Goes on with the weights of `state` on other pictures or another base model.

        Its place within an epoch means nothing on other pictures: the epoch it was in begins anew.

        Raises:
            InvalidConfiguration: the base model has other layers now, which the weights do not fit.
        """
        live = self._adapters.named_parameters()
        kept = {name: tuple(tensor.shape) for name, tensor in state.adapters.items()}
        wanted = {name: tuple(parameter.shape) for name, parameter in live.items()}
        if kept != wanted:
            example = min({name for name in kept.keys() | wanted.keys() if kept.get(name) != wanted.get(name)})
            raise InvalidConfiguration(
                "spec.resume.onChange is Continue, but the state's weights do not fit spec.baseModel.uri any more: "
                f"{example} is {kept.get(example, 'absent')} in the state and {wanted.get(example, 'absent')} here; "
                "choose another spec.output.uri, restore the base model, or remove the folder state/ there"
            )
        self.restore(replace(state, losses=state.losses[:0]))
        self.epoch = min(state.epoch, self.plan.epochs - 1)
        self.step = self._losses_since = self.epoch * self.plan.steps_per_epoch

    def _measured(self) -> Tensor:
        """The losses of the last epoch's worth of steps; fewer where not so many were made on these pictures."""
        return self._losses[: min(self.step - self._losses_since, len(self._losses))]

    def check_equal(self) -> None:
        """Raises WeightsDiffer when the processes do not hold the same weights."""
        self.world.check_equal(self._adapters.named_parameters(), step=self.step)

    def _backward(self, batch: TrainingBatch, micro: int, inputs: Inputs, *, batches: int) -> Tensor:
        """Adds the gradient of a batch, number `micro` of the `batches` of the step; gives its loss.

        Noise, timesteps and dropout are those of the whole batch, however many examples go through the model at once.
        """
        latents = to_device(batch.latents, self._accelerator.device)
        random = self._objective.draw(latents, seed=self.seed, step=self.step, micro=micro)
        batch = replace(batch, latents=latents)
        losses = []
        for share in _shares(len(batch.captions), self._examples_at_once):
            rows = slice(share.first, share.last)
            with self._adapters.training_at(self.step, micro, share):
                loss = self._loss(batch.rows(rows), random.rows(rows), inputs)
                loss = loss * ((share.last - share.first) / share.count)
                self._accelerator.backward(loss / batches)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _loss(self, batch: TrainingBatch, random: Draw, inputs: Inputs) -> Tensor:
        device, objective = self._accelerator.device, self._objective
        latents, sizes = batch.latents, to_device(batch.sizes, device)
        noisy = objective.noisy(latents, random)  # (B, C, h, w)
        target = objective.target(latents, random)
        with self._accelerator.autocast():
            prediction = self._model.predict(noisy, random.timesteps, inputs.text(batch.captions), sizes)
            if bool(batch.from_base.any()):
                taught = to_device(batch.from_base, device).view(-1, 1, 1, 1)
                target = torch.where(taught, self._base_prediction(noisy, random.timesteps, batch, inputs), target)
        masks = None if batch.masks is None else to_device(batch.masks, device)
        return objective.loss(prediction, target, random, weights=to_device(batch.weights, device), masks=masks)

    @torch.no_grad()
    def _base_prediction(self, noisy: Tensor, timesteps: Tensor, batch: TrainingBatch, inputs: Inputs) -> Tensor:
        with self._adapters.disabled():
            text = inputs.text(batch.captions)
            return self._model.predict(noisy, timesteps, text, to_device(batch.sizes, noisy.device))

    def _update(self) -> None:
        if not self._gradients_checked:
            self._check_gradients()
        loss = self._losses[self.step % len(self._losses)]
        if self._max_norm > 0:
            norm = self._accelerator.clip_grad_norm_(self._trained.values(), self._max_norm)
            if self._accelerator.scaler is None:  # A scaler leaves such a step out.
                loss.copy_(torch.where(norm.isfinite(), loss, norm))
        if self._accelerator.device.type == "cpu":
            self._check_finite(float(loss))
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._norm_limit is not None:
            limit_norms(self._limited, self._norm_limit)

    def _check_finite(self, value: float) -> None:
        if not torch.isfinite(torch.tensor(value)):
            raise Diverged(f"the loss became {value} at step {self.step} of {self.plan.total_steps}")

    def _check_gradients(self) -> None:
        """Fails when a trained tensor gets no gradient: it would stay as it is without a word."""
        unused = self._model.unused_text_layers
        without = [n for n, p in self._trained.items() if p.grad is None and not n.startswith(unused)]
        assert not without, f"{len(without)} trained tensors get no gradient, such as {without[0]}"
        self._gradients_checked = True


def _shares(count: int, at_once: int | None) -> list[Share]:
    size = at_once or count
    return [Share(first, min(first + size, count), count) for first in range(0, count, size)]


def _trained_tensors(adapters: Adapters, spec: LoraTrainingSpec) -> list[TrainedTensor]:
    factors: Mapping[str, float] = {block.name: block.learning_rate_factor for block in spec.network.blocks}
    return [
        TrainedTensor(
            part=layer.part,
            block=layer.block,
            block_factor=factors.get(layer.block or "", 1.0),
            is_up=suffix in layer.ups(),
            parameter=parameter,
        )
        for layer in adapters.layers
        for suffix, parameter in layer.tensors().items()
    ]


def train(
    trainer: Trainer,
    inputs: Inputs,
    *,
    should_stop: Callable[[], bool],
    after_step: Callable[[int], None],
    after_epoch: Callable[[int], None],
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Trains from the trainer's position to the end of its plan, or until `is_over`.

    Args:
        trainer: makes the steps; its position says where to begin.
        inputs: what to train on.
        should_stop: asked before every batch.
        after_step: called after each step with the number of the epoch (from 1).
        after_epoch: called when all steps of an epoch are made; the epoch counts as done when it returns.
        is_over: asked before each epoch; when it is for one process, it is for all.

    Raises:
        WeightsDiffer: at the end of an epoch the processes do not hold the same weights.
        PeerLost: another process has ended.
    """
    for epoch in range(trainer.epoch + 1, trainer.plan.epochs + 1):
        if trainer.world.agree(Word.OVER if is_over() else Word.GO) is Word.OVER:
            return
        for batches in inputs.steps(epoch, trainer.step):
            trainer.train_step(batches, inputs, should_stop=should_stop)
            after_step(epoch)
        trainer.check_equal()
        after_epoch(epoch)
