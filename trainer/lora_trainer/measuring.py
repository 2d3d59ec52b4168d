"""Puts the measuring of a run together: which pictures, encoded as the training sees them, and the model. Used by
`run` and by `assembly`, which encodes the pictures with all others."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from lora_api.evaluation_spec import BestEpoch
from lora_api.spec import LoraTrainingSpec
from lora_trainer.conditioning import TextStates, size_conditions
from lora_trainer.data.example import Example
from lora_trainer.data.holdout import compared, measured
from lora_trainer.data.loader import TrainingBatch
from lora_trainer.diffusion.objective import Draw
from lora_trainer.evaluation.bench import Bench, Model, Subjects
from lora_trainer.evaluation.draws import UNRELATED_CAPTIONS, MeasuredPicture, Passes
from lora_trainer.loop import Inputs, Learner
from lora_trainer.prepare import Prepared

_AT_ONCE = 8
"""Draws that go through the model together: without gradients far less memory than a training step of one or two."""
_MOST_COMPARED = 16


def wanted_measure(spec: LoraTrainingSpec) -> BestEpoch | None:
    """How epochs are measured; None: they are not."""
    if spec.evaluation is None or spec.evaluation.best_epoch.by == "None":
        return None
    return spec.evaluation.best_epoch


def measured_examples(prepared: Prepared) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(held-out pictures, as many trained ones) that are measured; both empty where nothing is."""
    best, examples = wanted_measure(prepared.training.spec), prepared.dataset.scanned.examples
    if best is None:
        return (), ()
    held_out = measured(examples, best.held_out_passes)
    count = min(len(held_out) or _MOST_COMPARED, best.training_passes)
    return held_out, compared(examples, count)


def make_bench(
    prepared: Prepared,
    learner: Learner,
    inputs: Inputs,
    *,
    autocast: Callable[[], AbstractContextManager[object]],
    device: torch.device,
    on_batch: Callable[[], None],
) -> Bench | None:
    """What measures the epochs of a run; None: the spec asks for no measure.

    Raises:
        InvalidDataset: a picture cannot be read any more.
    """
    spec = prepared.training.spec
    best, plain = wanted_measure(spec), inputs.plain
    if best is None or plain is None:
        return None
    held_out, training = (_pictures(examples, plain) for examples in measured_examples(prepared))
    subjects = Subjects(
        held_out=held_out,
        held_out_passes=best.held_out_passes,
        training=training,
        training_passes=best.training_passes,
        unrelated=_empty_pictures(spec, learner, best.drift_passes),
        drift_passes=best.drift_passes,
    )
    predict = prediction(learner, inputs.text, autocast)
    model = Model(predict, learner.adapters.disabled, device, at_once=_AT_ONCE, on_batch=on_batch)
    return Bench(model, subjects, timesteps=learner.objective.timesteps, seed=spec.training.seed)


def _pictures(examples: Sequence[Example], plain: Callable[[int], TrainingBatch]) -> list[MeasuredPicture]:
    found = []
    for example in examples:
        batch = plain(example.index)
        found.append(
            MeasuredPicture(
                name=example.key,
                content=example.sha256,
                caption=batch.captions[0],
                latents=batch.latents[0].cpu(),
                sizes=batch.sizes[0],
                mask=None if batch.masks is None else batch.masks[0].cpu(),
            )
        )
    return found


def _empty_pictures(spec: LoraTrainingSpec, learner: Learner, passes: int) -> list[MeasuredPicture]:
    """Unrelated captions at the training's size; latents of 0 are nothing but grey."""
    cell, (width, height) = learner.model.pixels_per_latent, spec.dataset.size_px
    latents = torch.zeros(learner.model.latent_channels, math.ceil(height / cell), math.ceil(width / cell))
    sizes = size_conditions((width, height), (0, 0), (width, height))
    return [
        MeasuredPicture(caption, caption, caption, latents, sizes)
        for caption in UNRELATED_CAPTIONS[: max(1, min(passes, len(UNRELATED_CAPTIONS)))]
    ]


def prediction(
    learner: Learner,
    text: Callable[[Sequence[str]], TextStates],
    autocast: Callable[[], AbstractContextManager[object]],
) -> Callable[[Passes], tuple[Tensor, Tensor]]:
    """What the learner, as it is when it is asked, makes of draws, and what it should make of them."""
    objective = learner.objective

    def predict(passes: Passes) -> tuple[Tensor, Tensor]:
        draw = Draw(passes.noise, None, passes.timesteps)
        with autocast():
            states = text(passes.captions)
            predicted = learner.model.predict(
                objective.noisy(passes.latents, draw), passes.timesteps, states, passes.sizes
            )
        return predicted, objective.target(passes.latents, draw)

    return predict
