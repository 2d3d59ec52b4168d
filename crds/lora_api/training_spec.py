"""Length, batch, precision and objective of a run."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lora_api.base import ApiModel, Rule, supported


def _needs(field: str, camel: str, other: str, other_camel: str) -> Rule:
    """A rule that `field` has no effect without `other`."""
    return Rule(
        cel=f"!has(self.{camel}) || has(self.{other_camel})",
        message=f"{camel} has no effect without {other_camel}; set {other_camel} or remove {camel}",
        holds=lambda m: getattr(m, field) is None or getattr(m, other) is not None,
    )


def _flag_needs(field: str, camel: str, other: str, other_camel: str) -> Rule:
    return Rule(
        cel=f"!has(self.{camel}) || !self.{camel} || has(self.{other_camel})",
        message=f"{camel} has no effect without {other_camel}; set {other_camel} or remove {camel}",
        holds=lambda m: not getattr(m, field) or getattr(m, other) is not None,
    )


def _huber_only(field: str, camel: str) -> Rule:
    return Rule(
        cel=f"!has(self.{camel}) || (has(self.type) && self.type in ['huber', 'smooth_l1'])",
        message=f"{camel} belongs to the types huber and smooth_l1; remove it or change type",
        holds=lambda m: getattr(m, field) is None or m.type in ("huber", "smooth_l1"),
    )


class Loss(ApiModel):
    """The objective: distance, noise and weight of each timestep. Default: plain mean squared error."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _huber_only("huber_c", "huberC"),
        _huber_only("huber_schedule", "huberSchedule"),
        _huber_only("huber_scale", "huberScale"),
        Rule(
            cel="!has(self.huberScale) || (has(self.huberSchedule) && self.huberSchedule != 'snr')",
            message="huberScale has no effect on the schedule snr; set huberSchedule to constant or exponential",
            holds=lambda m: m.huber_scale is None or m.huber_schedule in ("constant", "exponential"),
        ),
        _needs("adaptive_noise_scale", "adaptiveNoiseScale", "noise_offset", "noiseOffset"),
        _flag_needs("noise_offset_random_strength", "noiseOffsetRandomStrength", "noise_offset", "noiseOffset"),
        _needs(
            "multires_noise_discount",
            "multiresNoiseDiscount",
            "multires_noise_iterations",
            "multiresNoiseIterations",
        ),
        _flag_needs("ip_noise_gamma_random_strength", "ipNoiseGammaRandomStrength", "ip_noise_gamma", "ipNoiseGamma"),
        Rule(
            cel="!has(self.minTimestep) || !has(self.maxTimestep) || self.minTimestep < self.maxTimestep",
            message="minTimestep must be smaller than maxTimestep; swap or change them",
            holds=lambda m: m.min_timestep < m.max_timestep,
        ),
        Rule(
            cel="!has(self.debiasedEstimation) || !self.debiasedEstimation || !has(self.minSnrGamma)",
            message="debiasedEstimation and minSnrGamma both weight timesteps by their SNR; remove one",
            holds=lambda m: not m.debiased_estimation or m.min_snr_gamma is None,
        ),
        Rule(
            cel="!has(self.vPredictionLikeLoss) || ((!has(self.zeroTerminalSnr) || !self.zeroTerminalSnr) && "
            "(!has(self.scaleVPredictionLikeNoise) || !self.scaleVPredictionLikeNoise))",
            message="vPredictionLikeLoss is for noise prediction, zeroTerminalSnr and scaleVPredictionLikeNoise are "
            "for v-prediction; remove what does not fit the model",
            holds=lambda m: (
                m.v_prediction_like_loss is None or not (m.zero_terminal_snr or m.scale_v_prediction_like_noise)
            ),
        ),
    )

    type: Literal["l2", "l1", "huber", "smooth_l1"] = "l2"
    """Distance between prediction and target."""
    min_snr_gamma: Annotated[float, Field(gt=0.0, le=100.0)] | None = None
    """Weights timesteps by min(SNR, gamma) / SNR, for v-prediction / (SNR + 1); the paper suggests 5."""
    noise_offset: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Strength of a constant added to the noise of each channel, which lets the model learn very dark and bright
    pictures; 0.05 to 0.1 are usual."""
    noise_offset_random_strength: bool = False
    """Draw the strength between 0 and noiseOffset for each batch."""
    adaptive_noise_scale: Annotated[float, Field(ge=-10.0, le=10.0)] | None = None
    """Adds this times the size (absolute value) of the latent's mean to noiseOffset, in each channel."""
    multires_noise_iterations: Annotated[int, Field(ge=1, le=32)] | None = None
    """Levels of pyramid noise; 6 to 10 are usual."""
    multires_noise_discount: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Weight ratio from one level of pyramid noise to the next. Default: 0.3."""
    ip_noise_gamma: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Strength of input perturbation: noise that the model does not have to predict; 0.1 is usual."""
    ip_noise_gamma_random_strength: bool = False
    """Draw the strength between 0 and ipNoiseGamma for each batch."""
    debiased_estimation: bool = False
    """Weights timesteps by 1 / sqrt(SNR), for v-prediction by 1 / (SNR + 1)."""
    zero_terminal_snr: bool = False
    """Rescales the noise schedule so that its end is pure noise; for v-prediction models."""
    scale_v_prediction_like_noise: bool = False
    """Scales the v-prediction loss to that of noise prediction: by SNR / (SNR + 1)."""
    v_prediction_like_loss: Annotated[float, Field(gt=0.0, le=100.0)] | None = None
    """Adds this times the loss as v-prediction would scale it; for noise prediction."""
    huber_c: Annotated[float, Field(gt=0.0, le=10.0)] | None = None
    """Where the Huber losses turn from squared to linear. Default: 0.1."""
    huber_schedule: Literal["constant", "exponential", "snr"] | None = None
    """How huberC changes with the timestep. Default: snr."""
    huber_scale: Annotated[float, Field(gt=0.0, le=100.0)] | None = None
    """Factor on huberC for the schedules constant and exponential. Default: 1."""
    min_timestep: Annotated[int, Field(ge=0, le=999)] = 0
    """Smallest timestep that is trained."""
    max_timestep: Annotated[int, Field(ge=1, le=1000)] = 1000
    """Timesteps from this one on are not trained."""


class Ema(ApiModel):
    """Exponential moving average of the adapter, which is what is saved and drawn."""

    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.999
    """Share of the average that is kept at each step; it rises to this value over the first steps."""
    every_steps: Annotated[int, Field(ge=1, le=1000)] = 1
    """Update the average every n steps."""


class Training(ApiModel):
    """Length, batch and precision of the run."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.fullPrecision) || !self.fullPrecision || !has(self.precision) || self.precision != 'fp32'",
            message="fullPrecision has no effect with precision fp32; remove it or set precision to bf16 or fp16",
            holds=lambda m: not m.full_precision or m.precision != "fp32",
        ),
    )

    epochs: Annotated[int, Field(ge=1, le=10000)] = 10
    """Times that the whole dataset, repeats included, is seen."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Stop after this many steps although epochs are left. A step is one update of the weights."""
    batch_size: Annotated[int, Field(ge=1, le=256)] = 1
    """Pictures per forward pass."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=256)] = 1
    """Batches per step."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Arithmetic of the base model. The adapter's own weights are kept in fp32 unless fullPrecision is set."""
    full_precision: bool = False
    """Keep the adapter's weights and gradients in `precision` as well (kohya's full_fp16, full_bf16): a little less
    memory, a worse result."""
    seed: Annotated[int, Field(ge=0, le=4294967295)] = 1234
    """Every random draw is a function of this number and the step."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    attention: Literal["sdpa", "xformers"] = "sdpa"
    """Attention kernel. `xformers` falls back to `sdpa`, and says so, where it cannot run."""
    low_memory: bool = False
    """Keep only the part of the model on the GPU that is in use: the VAE while pictures are encoded and drawn, a
    text encoder that is not trained while captions are."""
    compile: Annotated[bool, supported(False)] = False
    """Compile the UNet before training."""
    loss: Loss = Loss()
    """The objective."""
    ema: Ema | None = None
    """Keep an exponential moving average of the adapter, and save that."""
