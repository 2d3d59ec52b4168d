"""What is trained and how: base model, dataset, network, optimizer, loop, checkpoints, samples, evaluation."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from lora_api.base import ApiModel, Rule, show, supported
from lora_api.cluster_spec import Storage
from lora_api.fields import Fraction, LearningRate, Pixels, ReadUri, SecretKeyRef, ShortText, Text

Prediction = Literal["epsilon", "v_prediction"]
Family = Literal["sd15", "sd2", "sdxl"]
Sampler = Literal["euler_a", "euler", "ddim", "dpmpp_2m", "dpmpp_2m_karras", "unipc"]
MissingCaption = Literal["UseFolderName", "Fail", "Generate"]


class BaseModelSpec(ApiModel):
    """The model that the adapter is trained for."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.tokenSecretRef) || self.uri.startsWith('hf://')",
            message="tokenSecretRef is only used by hf:// URIs; remove it or change uri",
            holds=lambda m: m.token_secret_ref is None or m.uri.startswith("hf://"),
        ),
    )

    uri: ReadUri
    """Where the model lies: `hf://owner/repo[@revision]`, `s3://bucket/folder-or-file.safetensors`, or
    `pvc://claim/path`. A diffusers folder or a single `.safetensors` checkpoint."""
    family: Annotated[Family, supported("sd15")] | None = None
    """Architecture. Read from the model when absent; a model of another family is refused."""
    token_secret_ref: SecretKeyRef | None = None
    """Access token for gated hf:// models, mounted as a file."""
    vae_uri: Annotated[ReadUri, supported()] | None = None
    """Replacement for the model's own VAE."""
    prediction: Annotated[Prediction, supported("epsilon")] | None = None
    """What the UNet predicts. Read from the model when absent."""
    clip_skip: Annotated[int, Field(ge=1, le=12)] = 1
    """Which hidden state of the text encoder is used, counted from the end as AUTOMATIC1111 does: 1 is the
    last one, 2 the one before (then the final layer norm)."""
    storage: Annotated[Storage, supported()] | None = None
    """Overrides `spec.storage` for this URI."""


class Regularization(ApiModel):
    """Pictures of the ordinary class that keep the base model from forgetting it."""

    uri: Annotated[ReadUri, supported()] | None = None
    """Folder of `<repeats>_<class>` folders. Default: `reg/` beside the concept folders of the dataset."""
    loss_weight: Annotated[float, Field(ge=0.0, le=100.0)] = 1.0
    """Factor on the loss of every regularisation sample (kohya's prior_loss_weight)."""


class Buckets(ApiModel):
    """Aspect-ratio buckets: pictures are trained at sizes of about equal area instead of being cropped square."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.minPx) || !has(self.maxPx) || self.minPx <= self.maxPx",
            message="minPx must not be larger than maxPx; swap or change them",
            holds=lambda m: m.min_px is None or m.max_px is None or m.min_px <= m.max_px,
        ),
        Rule(
            cel="!has(self.minPx) || self.minPx % self.stepPx == 0",
            message="minPx must be a multiple of stepPx; round it to one",
            holds=lambda m: m.min_px is None or m.min_px % m.step_px == 0,
        ),
        Rule(
            cel="!has(self.maxPx) || self.maxPx % self.stepPx == 0",
            message="maxPx must be a multiple of stepPx; round it to one",
            holds=lambda m: m.max_px is None or m.max_px % m.step_px == 0,
        ),
    )

    enabled: bool = True
    """Off: every picture is scaled to cover the resolution and its middle is cropped."""
    min_px: Pixels | None = None
    """Smallest side of a bucket in pixels. Default: half of the resolution's smaller side, rounded down to
    a multiple of stepPx."""
    max_px: Pixels | None = None
    """Largest side of a bucket in pixels. Default: twice the resolution's larger side, rounded up to a
    multiple of stepPx."""
    step_px: Annotated[int, Field(ge=8, le=512, multiple_of=8)] = 64
    """Bucket sides are multiples of this many pixels."""
    upscale: bool = True
    """Enlarge pictures smaller than the resolution. Off: they keep their size, and minPx and maxPx do not
    apply (kohya's bucket_no_upscale)."""


class Captions(ApiModel):
    """How a picture gets its text."""

    extension: Annotated[str, Field(min_length=2, max_length=16, pattern=r"^\.[A-Za-z0-9]+$")] = ".txt"
    """Extension of the caption file beside a picture; its first line is the caption."""
    missing: Annotated[MissingCaption, supported("UseFolderName", "Fail")] = "UseFolderName"
    """What a picture without caption file gets: the text of its folder's name, or an error that names it."""
    max_tokens: Annotated[Literal[75, 150, 225], Field()] = 75
    """Longest caption in CLIP tokens; longer ones are cut and counted in the plan's warnings."""
    shuffle: Annotated[bool, supported(False)] = False
    """Shuffle the tags of a caption at each draw."""
    keep_tokens: Annotated[int, Field(ge=0, le=225), supported(0)] = 0
    """Leading tags that stay in place when tags are shuffled or dropped."""
    separator: Annotated[str, Field(min_length=1, max_length=8), supported(",")] = ","
    """What separates the tags of a caption."""
    dropout_fraction: Annotated[Fraction, supported(0.0)] = 0.0
    """Share of draws with an empty caption."""
    dropout_every_n_epochs: Annotated[int, Field(ge=0, le=1000), supported(0)] = 0
    """Every n-th epoch is trained with empty captions; 0: never."""
    tag_dropout_fraction: Annotated[Fraction, supported(0.0)] = 0.0
    """Share of tags dropped at each draw."""
    prefix: Annotated[Text, supported("")] = ""
    """Text put before every caption."""
    suffix: Annotated[Text, supported("")] = ""
    """Text put after every caption."""


class FaceCropRange(ApiModel):
    """Range of the face's share of the crop."""

    minimum: Annotated[float, Field(ge=1.0, le=100.0)]
    """Lower bound of the factor between face size and crop."""
    maximum: Annotated[float, Field(ge=1.0, le=100.0)]
    """Upper bound of the factor between face size and crop."""


class Augmentation(ApiModel):
    """Random changes to pictures; each draw is a function of seed, epoch and picture."""

    flip: bool = False
    """Mirror half of the draws. Both latents are cached. Off for anything with a left and a right."""
    color: Annotated[bool, supported(False)] = False
    """Jitter hue and gamma."""
    random_crop: Annotated[bool, supported(False)] = False
    """Crop at a random offset instead of the middle."""
    face_crop_range: Annotated[FaceCropRange, supported()] | None = None
    """Crop around the face named in the file's name."""


class Subset(ApiModel):
    """One folder of pictures, said explicitly instead of by the folder convention."""

    uri: ReadUri
    """Folder that holds the pictures."""
    repeats: Annotated[int, Field(ge=1, le=100000)] = 1
    """How often each picture is seen in an epoch."""
    class_tokens: Text | None = None
    """Caption of pictures without caption file."""
    is_regularization: bool = False
    """The pictures show the ordinary class, not the concept."""
    captions: Captions | None = None
    """Overrides `spec.dataset.captions` for this folder."""
    augmentation: Augmentation | None = None
    """Overrides `spec.dataset.augmentation` for this folder."""


def _check_resolution(value: int | str) -> int | str:
    width, height = parse_resolution(value)
    for side in (width, height):
        if not 64 <= side <= 4096 or side % 8:
            raise PydanticCustomError(
                "resolution",
                "is {value}, but sides must be multiples of 8 from 64 to 4096; use 512, 768 or 768x512",
                {"value": show(value)},
            )
    return value


def parse_resolution(value: int | str) -> tuple[int, int]:
    """(width, height) in px of `768` or `768x512`."""
    if isinstance(value, int):
        return value, value
    width, height = value.split("x")
    return int(width), int(height)


Resolution = Annotated[
    int | Annotated[str, Field(max_length=9, pattern=r"^[0-9]{2,4}x[0-9]{2,4}$")],
    Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
    AfterValidator(_check_resolution),
]


class Dataset(ApiModel):
    """The captioned pictures."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.uri) != (has(self.subsets) && size(self.subsets) > 0)",
            message="exactly one of uri and subsets must be set",
            holds=lambda m: (m.uri is not None) != bool(m.subsets),
        ),
        Rule(
            cel="type(self.resolution) != int || !has(self.buckets.minPx) || self.buckets.minPx <= self.resolution",
            message="buckets.minPx must not be larger than resolution; lower it",
            holds=lambda m: (
                not isinstance(m.resolution, int) or m.buckets.min_px is None or m.buckets.min_px <= m.resolution
            ),
        ),
        Rule(
            cel="type(self.resolution) != int || !has(self.buckets.maxPx) || self.buckets.maxPx >= self.resolution",
            message="buckets.maxPx must not be smaller than resolution; raise it",
            holds=lambda m: (
                not isinstance(m.resolution, int) or m.buckets.max_px is None or m.buckets.max_px >= m.resolution
            ),
        ),
    )

    uri: ReadUri | None = None
    """Folder that holds `<repeats>_<concept>` folders and, if wanted, `reg/` beside them."""
    subsets: Annotated[tuple[Subset, ...], Field(max_length=64), supported(())] = ()
    """Explicit list of folders, instead of uri and its folder convention."""
    regularization: Regularization = Regularization()
    """Where regularisation pictures lie and what they weigh."""
    resolution: Resolution = 512
    """Area of the training pictures: `768` (768x768 px) or `768x512` (width x height in px)."""
    buckets: Buckets = Buckets()
    """Aspect-ratio buckets."""
    captions: Captions = Captions()
    """How a picture gets its text."""
    augmentation: Augmentation = Augmentation()
    """Random changes to pictures."""
    latent_cache: Annotated[Literal["Memory", "Disk", "Store", "None"], supported("Memory")] = "Memory"
    """Where encoded pictures are kept between epochs."""
    workers: Annotated[int, Field(ge=0, le=64)] = 8
    """Threads that fetch and decode pictures; 0: none beside the main one. Never changes the result."""
    validation_fraction: Annotated[Fraction, supported(0.0)] = 0.0
    """Share of pictures held out to measure over-fitting."""
    storage: Annotated[Storage, supported()] | None = None
    """Overrides `spec.storage` for the dataset."""

    @property
    def size_px(self) -> tuple[int, int]:
        """The resolution as (width, height) in px."""
        return parse_resolution(self.resolution)


class Network(ApiModel):
    """The adapter that is trained."""

    type: Annotated[Literal["lora", "locon", "dora", "loha", "lokr"], supported("lora")] = "lora"
    """Kind of adapter. `lora` adapts the linear layers and 1x1 convolutions of all attention blocks."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Size of the adapter (kohya's network_dim): more can hold more and over-fits earlier."""
    alpha: Annotated[float, Field(gt=0.0, le=4096.0)] | None = None
    """Strength: the adapter's output is scaled by alpha / rank. Default: the rank, a scale of 1."""
    dropout: Annotated[Fraction, supported(0.0)] = 0.0
    """Share of the adapter's inner values dropped in training."""
    conv_rank: Annotated[int, Field(ge=1, le=1024), supported()] | None = None
    """Rank of the adapters of 3x3 convolutions."""
    conv_alpha: Annotated[float, Field(gt=0.0, le=4096.0), supported()] | None = None
    """Alpha of the adapters of 3x3 convolutions."""
    text_encoder: bool = True
    """Adapt the text encoder as well, so that the trigger word gets a meaning of its own."""

    @property
    def effective_alpha(self) -> float:
        """Alpha, or the rank when it was left out."""
        return float(self.rank) if self.alpha is None else self.alpha


ScheduleName = Literal[
    "constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "inverse_sqrt", "piecewise_constant"
]
OptimizerName = Literal[
    "adamw", "adamw8bit", "pagedadamw8bit", "lion", "lion8bit", "adafactor", "prodigy", "dadaptation", "schedulefree"
]


class Schedule(ApiModel):
    """How the learning rate changes over the run."""

    name: Annotated[ScheduleName, supported("constant", "cosine")] = "constant"
    """`constant`, or `cosine`: half a cosine from the full rate to 0 at the last step."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Steps over which the rate rises linearly from 0."""
    cycles: Annotated[int, Field(ge=1, le=100), supported(1)] = 1
    """Number of restarts of `cosine_with_restarts`."""


class Optimizer(ApiModel):
    """How weights are updated."""

    name: Annotated[OptimizerName, supported("adamw", "adamw8bit")] = "adamw8bit"
    """`adamw` (32-bit state) or `adamw8bit` (8-bit state, bitsandbytes)."""
    learning_rate: LearningRate = 1e-4
    """Learning rate of everything that has no rate of its own."""
    unet_learning_rate: LearningRate | None = None
    """Learning rate of the UNet's adapters. Default: learningRate."""
    text_encoder_learning_rate: LearningRate | None = None
    """Learning rate of the text encoder's adapters. Default: learningRate."""
    arguments: Annotated[dict[ShortText, ShortText], Field(max_length=16)] = {}
    """Further arguments of the optimizer as text, such as `{weight_decay: "0.1", betas: "(0.9, 0.99)"}`;
    unknown names are refused."""
    schedule: Schedule = Schedule()
    """How the learning rate changes over the run."""
    max_grad_norm: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Gradients are scaled down to this norm; 0: never."""


class Loss(ApiModel):
    """Changes to the plain mean squared error on the noise."""

    type: Annotated[Literal["l2", "l1", "huber", "smooth_l1"], supported("l2")] = "l2"
    """Distance between prediction and target."""
    min_snr_gamma: Annotated[float, Field(gt=0.0, le=100.0), supported()] | None = None
    """Weights timesteps by min(SNR, gamma) / SNR."""
    noise_offset: Annotated[float, Field(ge=0.0, le=1.0), supported()] | None = None
    """Strength of a constant added to the noise of each channel."""
    multires_noise_iterations: Annotated[int, Field(ge=0, le=32), supported()] | None = None
    """Levels of pyramid noise."""
    multires_noise_discount: Annotated[float, Field(ge=0.0, le=1.0), supported()] | None = None
    """Weight ratio from one level of pyramid noise to the next."""
    ip_noise_gamma: Annotated[float, Field(ge=0.0, le=1.0), supported()] | None = None
    """Strength of input perturbation."""
    debiased_estimation: Annotated[bool, supported(False)] = False
    """Weights timesteps by 1 / sqrt(SNR)."""
    zero_terminal_snr: Annotated[bool, supported(False)] = False
    """Rescales the noise schedule so that its end is pure noise."""
    scale_v_prediction_like_noise: Annotated[bool, supported(False)] = False
    """Scales the v-prediction loss to that of noise prediction."""
    v_prediction_like_loss: Annotated[float, Field(ge=0.0, le=100.0), supported()] | None = None
    """Adds a loss scaled like that of v-prediction."""
    huber_c: Annotated[float, Field(gt=0.0, le=10.0), supported()] | None = None
    """Where the Huber losses turn from squared to linear."""
    huber_schedule: Annotated[Literal["constant", "exponential", "snr"], supported()] | None = None
    """How huberC changes with the timestep."""
    min_timestep: Annotated[int, Field(ge=0, le=999), supported(0)] = 0
    """Smallest timestep that is trained."""
    max_timestep: Annotated[int, Field(ge=1, le=1000), supported(1000)] = 1000
    """Timesteps from this one on are not trained."""


class Ema(ApiModel):
    """Exponential moving average of the adapter."""

    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.999
    """Share of the average that is kept at each step."""


class Training(ApiModel):
    """Length, batch and precision of the run."""

    epochs: Annotated[int, Field(ge=1, le=10000)] = 10
    """Times that the whole dataset, repeats included, is seen."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Stop after this many steps although epochs are left. A step is one update of the weights."""
    batch_size: Annotated[int, Field(ge=1, le=256)] = 1
    """Pictures per forward pass."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=256)] = 1
    """Batches per step."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Arithmetic of the base model. The adapter's own weights are always kept in fp32."""
    full_precision: Annotated[bool, supported(False)] = False
    """Keep the adapter's weights in `precision` as well."""
    seed: Annotated[int, Field(ge=0, le=4294967295)] = 1234
    """Every random draw is a function of this number and the step."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    attention: Annotated[Literal["sdpa", "xformers"], supported("sdpa")] = "sdpa"
    """Attention kernel."""
    low_memory: Annotated[bool, supported(False)] = False
    """Load one part of the model at a time."""
    compile: Annotated[bool, supported(False)] = False
    """Compile the UNet before training."""
    loss: Loss = Loss()
    """Changes to the plain loss."""
    ema: Annotated[Ema, supported()] | None = None
    """Keep an exponential moving average of the adapter."""


class Checkpoints(ApiModel):
    """What is saved, and when."""

    every_epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """An adapter is written after every n-th epoch, and always after the last one."""
    every_steps: Annotated[int, Field(ge=1, le=1_000_000), supported()] | None = None
    """State is saved every n steps."""
    every_seconds: Annotated[int, Field(ge=30, le=86400), supported()] | None = None
    """State is saved every n seconds."""
    keep_last: Annotated[int, Field(ge=1, le=100), supported(2)] = 2
    """Number of states that are kept."""
    save_state: Annotated[bool, supported(True)] = True
    """Save what a restarted pod needs to go on: after every epoch, and when it is told to stop."""


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
