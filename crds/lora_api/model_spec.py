"""The base model and the adapter that is put into it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lora_api.base import ApiModel, Rule
from lora_api.cluster_spec import Storage
from lora_api.fields import ReadUri, SecretKeyRef

Prediction = Literal["epsilon", "v_prediction"]
Family = Literal["sd15", "sd2", "sdxl"]
NetworkType = Literal["lora", "locon", "dora", "loha", "lokr"]

_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
NOT_IN_SDXL = ("IN09", "IN10", "IN11", "OUT09", "OUT10", "OUT11")
ONLY_IN_SDXL = ("M01", "M02")


def _no_pickle(field: str, camel: str, *, guard: bool) -> Rule:
    """A rule that the URI in `field` names no pickle file."""
    return Rule(
        cel=(f"!has(self.{camel}) || " if guard else "") + f"!self.{camel}.matches('(?i)[.](ckpt|pt|pth|bin)$')",
        message=f"{camel} names a pickle file, which can run code when it is read; convert it to .safetensors",
        holds=lambda m: not (getattr(m, field) or "").lower().endswith(_PICKLES),
    )


class BaseAdapter(ApiModel):
    """An adapter that is added to the base model before the training begins (kohya's base_weights)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _no_pickle("uri", "uri", guard=False),
        Rule(
            cel="!has(self.weight) || self.weight != 0.0",
            message="weight is 0, so the adapter has no effect; remove the entry or change weight",
            holds=lambda m: m.weight != 0,
        ),
    )

    uri: ReadUri
    """The `.safetensors` file, in kohya's or diffusers' format (`lora convert` makes one of a PEFT folder)."""
    weight: Annotated[float, Field(ge=-10.0, le=10.0)] = 1.0
    """Strength at which it is added."""


class BaseModelSpec(ApiModel):
    """The model that the adapter is trained for."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.tokenSecretRef) || self.uri.startsWith('hf://')",
            message="tokenSecretRef is only used by hf:// URIs; remove it or change uri",
            holds=lambda m: m.token_secret_ref is None or m.uri.startswith("hf://"),
        ),
        _no_pickle("uri", "uri", guard=False),
        _no_pickle("vae_uri", "vaeUri", guard=True),
        Rule(
            cel="!has(self.family) || self.family != 'sdxl' || self.clipSkip == 1",
            message="clipSkip has no effect on sdxl, which always reads the last layer but one; remove it",
            holds=lambda m: m.family != "sdxl" or m.clip_skip == 1,
        ),
    )

    uri: ReadUri
    """Where the model lies: `hf://owner/repo[@revision]`, `s3://bucket/folder-or-file.safetensors`, or
    `pvc://claim/path`. A diffusers folder or a single `.safetensors` checkpoint."""
    family: Family | None = None
    """Architecture. Read from the model when absent; a model of another family is refused."""
    token_secret_ref: SecretKeyRef | None = None
    """Access token for gated hf:// models, mounted as a file."""
    vae_uri: ReadUri | None = None
    """Replacement for the model's own VAE: a diffusers folder or a single `.safetensors` file."""
    prediction: Prediction | None = None
    """What the UNet predicts. Read from the model when absent; if the model says otherwise it is refused."""
    clip_skip: Annotated[int, Field(ge=1, le=12)] = 1
    """Which hidden state of the text encoder is used, counted from the end as AUTOMATIC1111 does: 1 is the
    last one, 2 the one before (then the final layer norm). Not for `sdxl`."""
    adapters: Annotated[tuple[BaseAdapter, ...], Field(max_length=8)] = ()
    """Adapters that are added to the base model before the training begins."""
    storage: Storage | None = None
    """Replaces `spec.storage` for everything that `baseModel` names."""


BlockName = Literal[
    "IN00", "IN01", "IN02", "IN03", "IN04", "IN05", "IN06", "IN07", "IN08", "IN09", "IN10", "IN11",
    "M00", "M01", "M02",
    "OUT00", "OUT01", "OUT02", "OUT03", "OUT04", "OUT05", "OUT06", "OUT07", "OUT08", "OUT09", "OUT10", "OUT11",
]  # fmt: skip


class NetworkBlock(ApiModel):
    """What is different in one block of the UNet."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.rank) || has(self.alpha) || has(self.convRank) || has(self.convAlpha) || "
            "(has(self.learningRateFactor) && self.learningRateFactor != 1.0)",
            message="nothing is different in this block; set rank, alpha, convRank, convAlpha or learningRateFactor, "
            "or remove the entry",
            holds=lambda m: (
                any(v is not None for v in (m.rank, m.alpha, m.conv_rank, m.conv_alpha)) or m.learning_rate_factor != 1
            ),
        ),
    )

    name: BlockName
    """`IN00` to `IN11`, `M00`, `OUT00` to `OUT11` as in LoRA Block Weight; in `sdxl` `IN00` to `IN08`, `M00` to
    `M02` for the three parts of the middle, and `OUT00` to `OUT08`."""
    rank: Annotated[int, Field(ge=0, le=1024)] | None = None
    """Rank in this block; 0: no adapter. Default: `network.rank`."""
    alpha: Annotated[float, Field(gt=0.0, le=4096.0)] | None = None
    """Alpha in this block. Default: `network.alpha`, or the block's rank when that was left out."""
    conv_rank: Annotated[int, Field(ge=0, le=1024)] | None = None
    """Rank of the 3x3 convolutions in this block; 0: no adapter. Default: `network.convRank`."""
    conv_alpha: Annotated[float, Field(gt=0.0, le=4096.0)] | None = None
    """Alpha of the 3x3 convolutions in this block. Default: `network.convAlpha`."""
    learning_rate_factor: Annotated[float, Field(ge=0.0, le=100.0)] = 1.0
    """Factor on the learning rate of this block; 0: no adapter, as in kohya's networks."""


class Network(ApiModel):
    """The adapter that is trained."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.type) || self.type != 'lora' || (!has(self.convRank) && !has(self.convAlpha))",
            message="convRank and convAlpha need a type that adapts 3x3 convolutions; use type locon or remove them",
            holds=lambda m: m.type != "lora" or (m.conv_rank is None and m.conv_alpha is None),
        ),
        Rule(
            cel="!has(self.type) || self.type != 'lora' || !has(self.blocks) || "
            "self.blocks.all(b, !has(b.convRank) && !has(b.convAlpha))",
            message="blocks with convRank or convAlpha need a type that adapts 3x3 convolutions; use type locon",
            holds=lambda m: m.type != "lora" or all(b.conv_rank is None and b.conv_alpha is None for b in m.blocks),
        ),
        Rule(
            cel="!has(self.type) || !(self.type in ['loha', 'lokr']) || !has(self.dropout) || self.dropout == 0.0",
            message="dropout works for lora, locon and dora only; use rankDropout or moduleDropout",
            holds=lambda m: m.type not in ("loha", "lokr") or m.dropout == 0,
        ),
        Rule(
            cel="!has(self.type) || self.type in ['lora', 'locon'] || !has(self.weightNormLimit)",
            message="weightNormLimit works for lora and locon only; remove it",
            holds=lambda m: m.type in ("lora", "locon") or m.weight_norm_limit is None,
        ),
        Rule(
            cel="!has(self.lokrFactor) || (has(self.type) && self.type == 'lokr')",
            message="lokrFactor belongs to type lokr; remove it or change type",
            holds=lambda m: m.lokr_factor is None or m.type == "lokr",
        ),
        Rule(
            cel="!has(self.unet) || !has(self.textEncoder) || self.unet || self.textEncoder",
            message="unet and textEncoder are both false, so nothing would be trained; set one to true",
            holds=lambda m: m.unet or m.text_encoder,
        ),
        Rule(
            cel="!has(self.blocks) || size(self.blocks) == 0 || !has(self.unet) || self.unet",
            message="blocks belong to the UNet, which is not trained while unet is false; remove them",
            holds=lambda m: not m.blocks or m.unet,
        ),
        Rule(
            cel="!has(self.blocks) || self.blocks.all(b, self.blocks.exists_one(c, c.name == b.name))",
            message="blocks names a block twice; join the two entries",
            holds=lambda m: len({block.name for block in m.blocks}) == len(m.blocks),
        ),
        Rule(
            cel="!has(self.type) || !(self.type in ['dora', 'loha', 'lokr']) || has(self.convRank) || "
            "(!has(self.convAlpha) && (!has(self.blocks) || "
            "self.blocks.all(b, !has(b.convRank) && !has(b.convAlpha))))",
            message="dora, loha and lokr adapt 3x3 convolutions only with convRank; set it, or remove convAlpha and "
            "the convRank and convAlpha of blocks",
            holds=lambda m: (
                m.type not in ("dora", "loha", "lokr")
                or m.conv_rank is not None
                or (m.conv_alpha is None and all(b.conv_rank is None and b.conv_alpha is None for b in m.blocks))
            ),
        ),
        Rule(
            cel="!has(self.unet) || self.unet || (!has(self.convRank) && !has(self.convAlpha))",
            message="convRank and convAlpha belong to the UNet, which is not trained while unet is false; remove them",
            holds=lambda m: m.unet or (m.conv_rank is None and m.conv_alpha is None),
        ),
        _no_pickle("initial_uri", "initialUri", guard=True),
    )

    type: NetworkType = "lora"
    """Kind of adapter. `lora`: the linear layers and 1x1 convolutions of all attention blocks; `locon`: those and
    all other convolutions of the UNet; `dora`, `loha`, `lokr`: weight decomposition, Hadamard and Kronecker
    products on the layers of `locon` (without convRank: of `lora`)."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Size of the adapter (kohya's network_dim): more can hold more and over-fits earlier."""
    alpha: Annotated[float, Field(gt=0.0, le=4096.0)] | None = None
    """Strength: the adapter's output is scaled by alpha / rank. Default: the rank, a scale of 1."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the adapter's inner values that is zeroed at each step."""
    rank_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the ranks that is left out for a whole picture; the others are scaled up. In `loha` and `lokr` it is
    the share of the output channels."""
    module_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the modules whose adapter is skipped in a forward pass; one is always kept."""
    conv_rank: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Rank of the adapters of 3x3 convolutions. Default for `locon`: rank."""
    conv_alpha: Annotated[float, Field(gt=0.0, le=4096.0)] | None = None
    """Alpha of the adapters of 3x3 convolutions. Default: alpha, or convRank when that was left out."""
    lokr_factor: Annotated[int, Field(ge=2, le=1024)] | None = None
    """Size of the smaller Kronecker factor of `lokr`; in layers narrower than its square, of the larger one.
    Default: the largest that gives two factors of like size."""
    unet: bool = True
    """Adapt the UNet."""
    text_encoder: bool = True
    """Adapt the text encoder (in `sdxl` both) as well, so that the trigger word gets a meaning of its own."""
    blocks: Annotated[tuple[NetworkBlock, ...], Field(max_length=27)] = ()
    """Blocks of the UNet that differ in rank, alpha or learning rate."""
    weight_norm_limit: Annotated[float, Field(gt=0.0, le=1000.0)] | None = None
    """Largest norm of a module's weight change; larger ones are scaled down after each step (kohya's
    scale_weight_norms)."""
    initial_uri: ReadUri | None = None
    """An adapter to start from (kohya's network_weights): a `.safetensors` file of the same type and ranks."""

    @property
    def effective_alpha(self) -> float:
        """Alpha, or the rank when it was left out."""
        return float(self.rank) if self.alpha is None else self.alpha

    @property
    def adapts_convolutions(self) -> bool:
        """Whether 3x3 convolutions, and all else in the UNet's residual blocks, get adapters."""
        return self.type == "locon" or self.conv_rank is not None

    @property
    def effective_conv_rank(self) -> int:
        """Rank of 3x3 convolutions, or the rank when it was left out."""
        return self.conv_rank or self.rank

    @property
    def effective_conv_alpha(self) -> float:
        """Alpha of 3x3 convolutions: convAlpha, else alpha, else their rank."""
        if self.conv_alpha is not None:
            return self.conv_alpha
        return float(self.effective_conv_rank) if self.alpha is None else self.alpha
