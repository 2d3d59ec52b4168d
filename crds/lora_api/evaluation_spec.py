"""What is saved, drawn and measured while training and after it."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lora_api.base import ApiModel, Rule
from lora_api.fields import Pixels, ReadUri, Text

Sampler = Literal["euler_a", "euler", "ddim", "dpmpp_2m", "dpmpp_2m_karras", "unipc"]
Seed = Annotated[int, Field(ge=0, le=4294967295)]
Guidance = Annotated[float, Field(ge=1.0, le=30.0)]
Weight = Annotated[float, Field(ge=-2.0, le=2.0)]
Count = Annotated[int, Field(ge=0, le=1024)]
PresetName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")]

PRESETS = ("NONE", "ALL", "INS", "IND", "INALL", "MIDD", "OUTD", "OUTS", "OUTALL", "ALL0.5")
"""Block-weight presets that LoRA Block Weight knows by name."""
VECTOR_LENGTHS = (12, 17, 20, 26)
"""Lengths of a vector of block weights: SDXL, SD 1.5 and 2.x, SDXL with convolutions, SD 1.5 and 2.x with them."""
MAX_GRID_PICTURES = 2048
"""What a grid may hold: an hour on a fast GPU."""
_GRID_LISTS = ("epochs", "weights", "prompts", "seeds", "blockWeights", "samplers", "guidances")


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
    guidance: Guidance = 7.0
    """Classifier-free guidance (CFG) scale."""
    seed: Seed | None = None
    """Seed of the picture's noise. Default: the training's seed plus the prompt's place in the list."""
    sampler: Sampler = "euler_a"
    """Sampler by its WebUI name."""
    clip_skip: Annotated[int, Field(ge=1, le=12)] | None = None
    """Which hidden state of the text encoder is used, counted from the end. Default: that of the training."""
    weight: Weight = 1.0
    """Strength of the adapter, as in `<lora:name:0.8>`."""


class Samples(ApiModel):
    """Pictures drawn while training. They never change what is trained."""

    every_epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Draw after every n-th epoch, after the last one, and before the first step."""
    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Draw after every n-th step as well."""
    prompts: Annotated[tuple[SamplePrompt, ...], Field(max_length=32)] = ()
    """What to draw. None: no pictures."""


class BlockWeights(ApiModel):
    """A named vector of block weights."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.values) || self.values.size() in [12, 17, 20, 26]",
            message="values must be 12, 17, 20 or 26 numbers, as LoRA Block Weight counts blocks; correct the list",
            holds=lambda m: m.values is None or len(m.values) in VECTOR_LENGTHS,
        ),
        Rule(
            cel=f"has(self.values) || self.name in [{', '.join(repr(name) for name in PRESETS)}]",
            message=f"values are missing, and name is no known preset ({', '.join(PRESETS)}); add values",
            holds=lambda m: m.values is not None or m.name in PRESETS,
        ),
    )

    name: PresetName
    """Name shown in the grid: a preset that LoRA Block Weight knows, or one of your own with `values`."""
    values: Annotated[tuple[Weight, ...], Field(min_length=12, max_length=26)] | None = None
    """12, 17, 20 or 26 weights, as LoRA Block Weight takes them. Default: those of the preset `name`."""


def _cel_size(name: str) -> str:
    """Length of a list, of which an empty one counts as one."""
    return f"(has(self.{name}) && self.{name}.size() > 0 ? self.{name}.size() : 1)"


class Grid(ApiModel):
    """Pictures of every epoch at every weight, for every combination of the other lists, with the seed fixed."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.seed) || !has(self.seeds) || self.seeds.size() == 0",
            message="seed and seeds exclude each other; keep one",
            holds=lambda m: m.seed is None or not m.seeds,
        ),
        Rule(
            cel=f"{' * '.join(map(_cel_size, _GRID_LISTS))} <= {MAX_GRID_PICTURES}",
            message=f"the grid has more than {MAX_GRID_PICTURES} pictures, the product of its lists; shorten a list",
            holds=lambda m: m.known_pictures <= MAX_GRID_PICTURES,
        ),
    )

    weights: Annotated[tuple[Weight, ...], Field(min_length=1, max_length=32)] = (0.2, 0.25, 0.4, 0.5, 0.75, 0.8, 1.0)
    """Strengths at which each epoch's adapter is drawn: the columns."""
    epochs: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(max_length=64)] = ()
    """Epochs that are drawn: the rows. Default: every epoch of which there is an adapter."""
    prompts: Annotated[tuple[SamplePrompt, ...], Field(max_length=16)] = ()
    """What to draw; their weight and seed are replaced. Default: the first of `samples.prompts`."""
    seed: Seed | None = None
    """Seed of all pictures. Default: 42."""
    seeds: Annotated[tuple[Seed, ...], Field(max_length=16)] = ()
    """Seeds to compare, instead of one."""
    block_weights: Annotated[tuple[BlockWeights, ...], Field(max_length=16)] = ()
    """Block-weight presets to compare."""
    samplers: Annotated[tuple[Sampler, ...], Field(max_length=6)] = ()
    """Samplers to compare. Default: that of the prompt."""
    guidances: Annotated[tuple[Guidance, ...], Field(max_length=16)] = ()
    """Guidance scales to compare. Default: that of the prompt."""

    @property
    def known_pictures(self) -> int:
        """Number of pictures, as far as the lists say it: without `epochs`, those of one epoch."""
        lists = (self.epochs, self.weights, self.prompts, self.seeds, self.block_weights, self.samplers, self.guidances)
        return math.prod(max(1, len(values)) for values in lists)


class BestEpoch(ApiModel):
    """How the best epoch is chosen.

    The same pictures, noise and timesteps are used after every epoch, so that epochs are compared and not luck.
    """

    by: Literal["None", "ValidationLoss"] = "ValidationLoss"
    """ValidationLoss: the earliest epoch that is as good as the best one within the error of the measurement, by the
    loss on held-out pictures; where none are held out, by gain against drift, with low confidence. None: nothing is
    measured."""
    held_out_passes: Annotated[int, Field(ge=8, le=1024)] = 64
    """Forward passes on held-out pictures after every saved epoch."""
    training_passes: Count = 32
    """Forward passes on as many training pictures; 0: over-fitting is told by held-out pictures alone."""
    drift_passes: Count = 32
    """Forward passes on captions that have nothing to do with the pictures; 0: drift is not measured."""


class EarlyStop(ApiModel):
    """Ends the training when it gets worse."""

    patience: Annotated[int, Field(ge=1, le=100)] = 2
    """Saved epochs in a row that have to be over-trained before the training ends."""


class Similarity(ApiModel):
    """Measures on pictures, for which models are needed. They are told, and choose nothing."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.clipUri) || has(self.dinoUri)",
            message="similarity needs clipUri or dinoUri; add one, or remove similarity",
            holds=lambda m: m.clip_uri is not None or m.dino_uri is not None,
        ),
    )

    clip_uri: ReadUri | None = None
    """CLIP model (transformers folder): how well pictures fit their prompts."""
    dino_uri: ReadUri | None = None
    """DINO model (transformers folder): how like the training pictures they are, and which of these is nearest."""


class Evaluation(ApiModel):
    """What is measured and drawn, while training and after it.

    The only part of a finished training that may change: then only this is made again.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.earlyStop) || !has(self.bestEpoch) || !has(self.bestEpoch.by) || "
            "self.bestEpoch.by != 'None'",
            message="earlyStop needs a measure, but bestEpoch.by is None; remove one of them",
            holds=lambda m: m.early_stop is None or m.best_epoch.by != "None",
        ),
    )

    best_epoch: BestEpoch = BestEpoch()
    """How the best epoch is chosen."""
    early_stop: EarlyStop | None = None
    """Ends the training when it gets worse. Default: it is trained to the end."""
    grid: Grid | None = None
    """Epoch × weight grid. Default: none."""
    similarity: Similarity | None = None
    """Measures on the sample pictures, for which models are needed. Default: none."""
    report: bool = True
    """Write `evaluation/report.html`, one file that shows it all."""
