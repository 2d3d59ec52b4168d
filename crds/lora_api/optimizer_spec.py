"""How weights are updated: optimizer, learning rates, schedule."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from lora_api.base import ApiModel, Rule
from lora_api.fields import Fraction, LearningRate, ShortText
from lora_api.optimizer_arguments import problems_with

ScheduleName = Literal[
    "constant", "linear", "cosine", "cosine_with_restarts", "cosine_with_min_lr", "polynomial", "inverse_sqrt",
    "warmup_stable_decay", "piecewise_constant",
]  # fmt: skip
OptimizerName = Literal[
    "adamw", "adamw8bit", "pagedadamw", "pagedadamw8bit", "pagedadamw32bit",
    "lion", "lion8bit", "pagedlion8bit", "sgdnesterov", "sgdnesterov8bit", "adafactor", "prodigy",
    "dadaptation", "dadaptadagrad", "dadaptadam", "dadaptadan", "dadaptadanip", "dadaptlion", "dadaptsgd",
    "schedulefree", "radamschedulefree", "sgdschedulefree",
]  # fmt: skip

ADAPTIVE = ("prodigy", "dadaptation", "dadaptadagrad", "dadaptadam", "dadaptadan", "dadaptadanip", "dadaptlion",
            "dadaptsgd")  # fmt: skip
"""Optimizers that find the learning rate themselves; the rate that is set only multiplies it."""
SCHEDULE_FREE = ("schedulefree", "radamschedulefree", "sgdschedulefree")
"""Optimizers that average weights instead of following a schedule."""
STATE_LIKE_WEIGHTS = ("adamw", *ADAPTIVE, "schedulefree", "radamschedulefree")
"""Optimizers that keep squared gradients, or even smaller sums, in the number format of the weights."""
PAGED = ("pagedadamw", "pagedadamw8bit", "pagedadamw32bit", "pagedlion8bit")
"""Optimizers that move their state out of the GPU's memory."""


def _in(field: str, names: tuple[str, ...]) -> str:
    return f"{field} in [{', '.join(repr(name) for name in names)}]"


class Piece(ApiModel):
    """From one step on, a factor on the learning rate."""

    from_step: Annotated[int, Field(ge=0, le=10_000_000)]
    """Number of steps made from which the factor holds."""
    factor: Annotated[float, Field(ge=0.0, le=1000.0)]
    """Factor on the learning rate."""


def _only(field: str, camel: str, *names: str) -> Rule:
    """A rule that `field` has an effect on the schedules `names` only."""
    return Rule(
        cel=f"!has(self.{camel}) || (has(self.name) && {_in('self.name', names)})",
        message=f"{camel} belongs to {' and '.join(names)}; remove it or change name",
        holds=lambda m: getattr(m, field) is None or m.name in names,
    )


class Schedule(ApiModel):
    """How the learning rate changes over the run."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _only("cycles", "cycles", "cosine_with_restarts"),
        _only("power", "power", "polynomial"),
        _only("timescale", "timescale", "inverse_sqrt"),
        _only("min_rate_fraction", "minRateFraction", "cosine_with_min_lr", "warmup_stable_decay"),
        _only("decay_steps", "decaySteps", "warmup_stable_decay"),
        _only("decay_fraction", "decayFraction", "warmup_stable_decay"),
        Rule(
            cel="!has(self.pieces) || size(self.pieces) == 0 || (has(self.name) && self.name == 'piecewise_constant')",
            message="pieces belong to piecewise_constant; remove them or change name",
            holds=lambda m: not m.pieces or m.name == "piecewise_constant",
        ),
        Rule(
            cel="!has(self.pieces) || self.pieces.all(p, self.pieces.exists_one(q, q.fromStep == p.fromStep))",
            message="pieces names a step twice; remove one",
            holds=lambda m: len({piece.from_step for piece in m.pieces}) == len(m.pieces),
        ),
        Rule(
            cel="!has(self.name) || self.name != 'piecewise_constant' || (has(self.pieces) && size(self.pieces) > 0)",
            message="piecewise_constant needs pieces, such as [{fromStep: 1000, factor: 0.1}]",
            holds=lambda m: m.name != "piecewise_constant" or bool(m.pieces),
        ),
        Rule(
            cel="!has(self.name) || self.name != 'warmup_stable_decay' || has(self.decaySteps) || "
            "has(self.decayFraction)",
            message="warmup_stable_decay needs decaySteps or decayFraction",
            holds=lambda m: (
                m.name != "warmup_stable_decay" or m.decay_steps is not None or m.decay_fraction is not None
            ),
        ),
        Rule(
            cel="!has(self.decaySteps) || !has(self.decayFraction)",
            message="decaySteps and decayFraction exclude each other; remove one",
            holds=lambda m: m.decay_steps is None or m.decay_fraction is None,
        ),
        Rule(
            cel="!has(self.warmupFraction) || !has(self.warmupSteps) || self.warmupSteps == 0",
            message="warmupSteps and warmupFraction exclude each other; remove one",
            holds=lambda m: m.warmup_fraction is None or m.warmup_steps == 0,
        ),
        Rule(
            cel="!has(self.warmupFraction) || !has(self.decayFraction) || "
            "self.warmupFraction + self.decayFraction <= 1.0",
            message="warmupFraction and decayFraction must not add up to more than 1; lower one",
            holds=lambda m: (
                m.warmup_fraction is None or m.decay_fraction is None or m.warmup_fraction + m.decay_fraction <= 1
            ),
        ),
    )

    name: ScheduleName = "constant"
    """Shape of the curve after the warm-up. `constant`; `linear` and `polynomial` to 0; `cosine`: half a wave to 0;
    `cosine_with_restarts`: `cycles` half waves; `cosine_with_min_lr`: half a wave to minRateFraction; `inverse_sqrt`;
    `warmup_stable_decay`: constant, then down over decaySteps; `piecewise_constant`: pieces."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Steps over which the rate rises linearly from 0, before the curve begins."""
    warmup_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """The same as a share of all steps, such as 0.1 for kohya's 10 %."""
    cycles: Annotated[int, Field(ge=1, le=100)] | None = None
    """Half waves of `cosine_with_restarts`. Default: 1."""
    power: Annotated[float, Field(gt=0.0, le=16.0)] | None = None
    """Exponent of `polynomial`. Default: 1."""
    timescale: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Steps after which `inverse_sqrt` has fallen by the square root of 2. Default: the warm-up, or 10000."""
    min_rate_fraction: Fraction | None = None
    """Where `cosine_with_min_lr` and `warmup_stable_decay` end, as a share of the full rate. Default: 0. As in kohya,
    the warm-up of `warmup_stable_decay` starts there too."""
    decay_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Last steps, over which `warmup_stable_decay` falls."""
    decay_fraction: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """The same as a share of all steps."""
    pieces: Annotated[tuple[Piece, ...], Field(max_length=32)] = ()
    """Factors of `piecewise_constant`, in any order; before the first step named it is 1."""


class LoraPlus(ApiModel):
    """LoRA+ (https://arxiv.org/abs/2402.12354): the up weights learn faster than the down weights."""

    ratio: Annotated[float, Field(ge=1.0, le=1000.0)]
    """Factor on the learning rate of all up weights; the paper suggests 16."""
    unet_ratio: Annotated[float, Field(ge=1.0, le=1000.0)] | None = None
    """The same for the UNet only. Default: ratio."""
    text_encoder_ratio: Annotated[float, Field(ge=1.0, le=1000.0)] | None = None
    """The same for the text encoders only. Default: ratio."""


def _equal_rates(m: "Optimizer") -> bool:
    parts = (m.unet_learning_rate, m.text_encoder_learning_rate, m.text_encoder2_learning_rate)
    return all(rate in (None, 0, m.learning_rate) for rate in parts)


def _warms_up(m: "Optimizer") -> bool:
    return m.schedule.warmup_steps > 0 or m.schedule.warmup_fraction is not None


def _same(camel: str) -> str:
    return f"(!has(self.{camel}) || self.{camel} == 0.0 || self.{camel} == self.learningRate)"


_NOT_ADAPTIVE = f"!has(self.name) || !({_in('self.name', ADAPTIVE)})"
_NOT_SCHEDULE_FREE = f"!has(self.name) || !({_in('self.name', SCHEDULE_FREE)})"


class Optimizer(ApiModel):
    """How weights are updated."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"{_NOT_ADAPTIVE} || (has(self.learningRate) && self.learningRate >= 0.1)",
            message="learningRate multiplies the rate that prodigy and dadaptation find themselves; set it to about 1",
            holds=lambda m: m.name not in ADAPTIVE or m.learning_rate >= 0.1,
        ),
        Rule(
            cel=f"{_NOT_ADAPTIVE} || ({_same('unetLearningRate')} && {_same('textEncoderLearningRate')} && "
            f"{_same('textEncoder2LearningRate')})",
            message="prodigy and dadaptation know one learning rate; remove the rates of parts, or set one to 0",
            holds=lambda m: m.name not in ADAPTIVE or _equal_rates(m),
        ),
        Rule(
            cel=f"{_NOT_ADAPTIVE} || !has(self.loraPlus)",
            message="loraPlus does not work with prodigy and dadaptation, which know one learning rate; remove it",
            holds=lambda m: m.name not in ADAPTIVE or m.lora_plus is None,
        ),
        Rule(
            cel=f"{_NOT_SCHEDULE_FREE} || !has(self.schedule) || !has(self.schedule.name) || "
            "self.schedule.name == 'constant'",
            message="schedule.name must be constant with a schedule-free optimizer; remove it",
            holds=lambda m: m.name not in SCHEDULE_FREE or m.schedule.name == "constant",
        ),
        Rule(
            cel=f"{_NOT_SCHEDULE_FREE} || !has(self.schedule) || ((!has(self.schedule.warmupSteps) || "
            "self.schedule.warmupSteps == 0) && !has(self.schedule.warmupFraction))",
            message="a schedule-free optimizer warms up by itself; remove schedule.warmupSteps and warmupFraction "
            '(schedulefree and sgdschedulefree take arguments: {warmup_steps: "100"} instead)',
            holds=lambda m: m.name not in SCHEDULE_FREE or not _warms_up(m),
        ),
        Rule(
            cel="!has(self.name) || self.name != 'dadaptsgd' || !has(self.schedule) || "
            "((!has(self.schedule.warmupSteps) || self.schedule.warmupSteps == 0) && "
            "!has(self.schedule.warmupFraction))",
            message="dadaptsgd measures the gradient at its first step, so it cannot begin at the rate 0 of a warm-up; "
            "remove schedule.warmupSteps and warmupFraction",
            holds=lambda m: m.name != "dadaptsgd" or not _warms_up(m),
        ),
    )

    name: OptimizerName = "adamw8bit"
    """`adamw` keeps its state in 32 bits (with fullPrecision in that precision), `adamw8bit` in 8 (bitsandbytes);
    `paged…` moves it to the host's memory when the GPU's runs out. `prodigy` and `dadapt…` find the learning rate
    themselves: set learningRate to 1. The momentum of `sgdnesterov8bit` is bitsandbytes', which is not Nesterov's
    whatever it is told."""
    learning_rate: LearningRate = 1e-4
    """Learning rate of everything that has no rate of its own."""
    unet_learning_rate: LearningRate | None = None
    """Learning rate of the UNet's adapters. Default: learningRate."""
    text_encoder_learning_rate: LearningRate | None = None
    """Learning rate of the text encoders' adapters. Default: learningRate."""
    text_encoder2_learning_rate: LearningRate | None = None
    """Learning rate of the second text encoder of `sdxl`. Default: textEncoderLearningRate."""
    lora_plus: LoraPlus | None = None
    """Let the up weights learn faster than the down weights."""
    arguments: Annotated[dict[ShortText, ShortText], Field(max_length=16)] = {}
    """Further arguments of the optimizer as text, such as `{weight_decay: "0.1", betas: "(0.9, 0.99)"}`;
    unknown names and values that do not fit are refused."""
    schedule: Schedule = Schedule()
    """How the learning rate changes over the run."""
    max_grad_norm: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Gradients are scaled down to this norm; 0: never."""

    @field_validator("arguments")
    @classmethod
    def _check_arguments(cls, arguments: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        """Only Python knows what each optimizer takes; a cluster learns it from the operator."""
        if "name" not in info.data:
            return arguments
        faults = [
            InitErrorDetails(type=PydanticCustomError("argument", "{fault}", {"fault": fault}), loc=(name,), input=name)
            for name, fault in problems_with(info.data["name"], arguments).items()
        ]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return arguments
