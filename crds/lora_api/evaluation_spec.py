"""What is saved, drawn and measured while training and after it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lora_api.base import ApiModel, Rule, supported
from lora_api.fields import Pixels, Text

Sampler = Literal["euler_a", "euler", "ddim", "dpmpp_2m", "dpmpp_2m_karras", "unipc"]


class Checkpoints(ApiModel):
    """What is saved, and when. Saving states does not hold the training up, and does not change its result."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.saveState) || self.saveState || !has(self.everySteps)",
            message="everySteps has no effect while saveState is false; remove it",
            holds=lambda m: m.save_state or m.every_steps is None,
        ),
    )

    every_epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """An adapter is written after every n-th epoch, and always after the last one."""
    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """State is saved every n steps, beside that of every epoch."""
    every_seconds: Annotated[int, Field(ge=30, le=86400)] = 900
    """State is saved after the first step that ends n seconds after the last save: what a lost node can cost."""
    keep_last: Annotated[int, Field(ge=1, le=100)] = 2
    """Number of states that are kept. With 1 the state before goes as soon as the new one was read back."""
    save_state: bool = True
    """Save what a restarted pod needs to go on: after every epoch, in between as said above, and when it is told to
    stop. False: an interrupted training begins again at step 0."""


class SamplePrompt(ApiModel):
    """A picture drawn after each epoch."""

    prompt: Annotated[str, Field(min_length=1, max_length=1024)]
    """What to draw."""
    negative_prompt: Text = ""
    """What not to draw."""
    width_px: Pixels | None = None
    """Width in px. Default: that of the dataset's resolution."""
    height_px: Pixels | None = None
    """Height in px. Default: that of the dataset's resolution."""
    steps: Annotated[int, Field(ge=1, le=150)] = 28
    """Denoising steps."""
    guidance: Annotated[float, Field(ge=1.0, le=30.0)] = 7.0
    """Classifier-free guidance (CFG) scale."""
    seed: Annotated[int, Field(ge=0, le=4294967295)] | None = None
    """Seed of the picture's noise. Default: the training's seed plus the prompt's place in the list."""
    sampler: Annotated[Sampler, supported("euler_a")] = "euler_a"
    """Sampler by its WebUI name."""


class Samples(ApiModel):
    """Pictures drawn while training."""

    every_epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Draw after every n-th epoch, after the last one, and before the first step."""
    prompts: Annotated[tuple[SamplePrompt, ...], Field(max_length=32)] = ()
    """What to draw. None: no pictures."""


class BlockWeights(ApiModel):
    """A named vector of block weights."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name shown in the grid."""
    values: Annotated[tuple[float, ...], Field(min_length=12, max_length=26)]
    """12, 17, 20 or 26 weights, as LoRA Block Weight takes them."""


class Grid(ApiModel):
    """A picture for every epoch and weight."""

    weights: Annotated[tuple[float, ...], Field(max_length=32)] = (0.2, 0.25, 0.4, 0.5, 0.75, 0.8, 1.0)
    """Strengths at which each epoch's adapter is drawn."""
    block_weights: Annotated[tuple[BlockWeights, ...], Field(max_length=16)] = ()
    """Block-weight presets to compare."""
    seed: Annotated[int, Field(ge=0, le=4294967295)] = 42
    """Seed of all pictures."""


class BestEpoch(ApiModel):
    """How the best epoch is chosen."""

    by: Literal["None", "ValidationLoss"] = "ValidationLoss"
    """The measure."""


class Evaluation(ApiModel):
    """What is measured and drawn after training."""

    grid: Grid | None = None
    """Epoch × weight grid."""
    best_epoch: BestEpoch | None = None
    """How the best epoch is chosen."""
