"""The pictures: where they lie, their captions, sizes, augmentation and caches."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from lora_api.base import ApiModel, Rule, show
from lora_api.caption_spec import GENERATION_RULES, CaptionGenerator
from lora_api.cluster_spec import Storage
from lora_api.fields import Fraction, Pixels, ReadUri, Text, WriteUri

MissingCaption = Literal["UseFolderName", "Fail", "Generate"]
Extension = Annotated[str, Field(min_length=2, max_length=16, pattern=r"^\.[A-Za-z0-9]+$")]
Separator = Annotated[str, Field(min_length=1, max_length=8)]
Marker = Annotated[str, Field(min_length=1, max_length=16)]
KeepTokens = Annotated[int, Field(ge=0, le=225)]
Repeats = Annotated[int, Field(ge=1, le=100000)]


class Regularization(ApiModel):
    """Pictures of the ordinary class that keep the base model from forgetting it."""

    uri: ReadUri | None = None
    """Folder of `<repeats>_<class>` folders. Default: `reg/` beside the concept folders of the dataset."""
    loss_weight: Annotated[float, Field(ge=0.0, le=100.0)] = 1.0
    """Factor on the loss of every regularisation sample (kohya's prior_loss_weight)."""
    target: Literal["Noise", "BaseModel"] = "Noise"
    """What the model has to predict on these pictures: the noise, as on all others, or what the base model without
    the adapter predicts, which keeps the class as the base knows it whatever the pictures show."""


ResizeFilter = Literal["Auto", "Box", "Bilinear", "Bicubic", "Lanczos", "Nearest"]
CropPosition = Literal["Center", "Top", "Bottom", "Left", "Right"]


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
    """Off: every picture is scaled to cover the resolution and cropped to it."""
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
    resize_filter: ResizeFilter = "Auto"
    """How pictures are scaled. Auto: Box (the mean over whole areas) to shrink, Lanczos to enlarge."""
    crop_position: CropPosition = "Center"
    """Which part of a picture is kept when it stands over its bucket; `Top` suits portraits."""


class TokenWarmup(ApiModel):
    """Tags of a caption that are used at the beginning, and when all are."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.steps) != has(self.fraction)",
            message="exactly one of steps and fraction must be set",
            holds=lambda m: (m.steps is None) != (m.fraction is None),
        ),
    )

    min_tags: Annotated[int, Field(ge=1, le=225)] = 1
    """Tags beside the kept ones that are used at the first step."""
    steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Step from which on all tags are used."""
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """The same as a share of all steps."""


def _unlike_separator(field: str, camel: str) -> Rule:
    return Rule(
        cel=f"!has(self.{camel}) || !has(self.separator) || self.{camel} != self.separator",
        message=f"{camel} must differ from separator, or it would never be found; change one",
        holds=lambda m: getattr(m, field) is None or getattr(m, field) != m.separator,
    )


_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif")
_CAPTION_RULES = (
    Rule(
        cel=f"!has(self.extension) || !(self.extension.lowerAscii() in [{', '.join(repr(e) for e in _PICTURES)}])",
        message="extension is that of pictures; name that of the caption files, such as .txt",
        holds=lambda m: m.extension is None or m.extension.lower() not in _PICTURES,
    ),
    _unlike_separator("secondary_separator", "secondarySeparator"),
    _unlike_separator("keep_tokens_separator", "keepTokensSeparator"),
)


class Captions(ApiModel):
    """How a picture gets its text. Tags are what stands between two separators."""

    rules: ClassVar[tuple[Rule, ...]] = _CAPTION_RULES

    extension: Extension = ".txt"
    """Extension of the caption file beside a picture; its first line is the caption."""
    missing: MissingCaption = "UseFolderName"
    """What a picture without caption file gets: the text of its folder's name, an error that names it, or a
    description by a model (`generate`)."""
    generate: CaptionGenerator | None = None
    """By which model captions are generated, and how they are worded; needed by `missing: Generate`."""
    max_tokens: Literal[75, 150, 225] = 75
    """Longest caption in CLIP tokens; longer ones are cut, and the plan names their pictures."""
    prefix: Text = ""
    """Text put before every caption, with a space between."""
    suffix: Text = ""
    """Text put after every caption, with a space between."""
    separator: Separator = ","
    """What separates the tags of a caption."""
    secondary_separator: Separator | None = None
    """Separates parts inside one tag, such as `;;;`: they move and drop together, then it becomes separator."""
    shuffle: bool = False
    """Shuffle the tags of a caption at each draw."""
    keep_tokens: KeepTokens = 0
    """Leading tags that stay in place when tags are shuffled or dropped."""
    keep_tokens_separator: Marker | None = None
    """A marker in captions, such as `|||`: what stands before it (and after a second one) stays in place."""
    dropout_fraction: Fraction = 0.0
    """Share of draws with an empty caption."""
    dropout_every_n_epochs: Annotated[int, Field(ge=0, le=1000)] = 0
    """Every n-th epoch is trained with empty captions; 0: never."""
    tag_dropout_fraction: Fraction = 0.0
    """Share of tags dropped at each draw."""
    token_warmup: TokenWarmup | None = None
    """Begin with few tags of each caption and come to use all of them."""
    wildcards: bool = False
    """`{a|b}` in a caption becomes a or b at each draw, and of several lines one is drawn."""
    weighted: bool = False
    """Read AUTOMATIC1111's emphasis: `(word)`, `(word:1.3)`, `[word]`."""


class CaptionOverrides(ApiModel):
    """What is different from `spec.dataset.captions` in one subset; what is left out stays as it is there."""

    rules: ClassVar[tuple[Rule, ...]] = _CAPTION_RULES

    extension: Extension | None = None
    """Extension of the caption files."""
    missing: MissingCaption | None = None
    """What a picture without caption file gets."""
    prefix: Text | None = None
    """Text put before every caption."""
    suffix: Text | None = None
    """Text put after every caption."""
    separator: Separator | None = None
    """What separates the tags of a caption."""
    secondary_separator: Separator | None = None
    """Separates parts inside one tag."""
    shuffle: bool | None = None
    """Shuffle the tags of a caption at each draw."""
    keep_tokens: KeepTokens | None = None
    """Leading tags that stay in place."""
    keep_tokens_separator: Marker | None = None
    """A marker in captions around what may move."""
    dropout_fraction: Fraction | None = None
    """Share of draws with an empty caption."""
    dropout_every_n_epochs: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Every n-th epoch is trained with empty captions."""
    tag_dropout_fraction: Fraction | None = None
    """Share of tags dropped at each draw."""
    token_warmup: TokenWarmup | None = None
    """Begin with few tags of each caption."""
    wildcards: bool | None = None
    """`{a|b}` in a caption becomes a or b at each draw."""

    def applied_to(self, captions: Captions) -> Captions:
        """`captions` with what is set here instead."""
        return captions.model_copy(update=self.model_dump_set())

    def model_dump_set(self) -> dict[str, object]:
        """The fields that are set, under their Python names."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class FaceCropRange(ApiModel):
    """Range of the face's share of the crop."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.minimum <= self.maximum",
            message="minimum must not be larger than maximum; swap them",
            holds=lambda m: m.minimum <= m.maximum,
        ),
    )

    minimum: Annotated[float, Field(ge=1.0, le=100.0)]
    """Smallest ratio between the side of the crop and the face."""
    maximum: Annotated[float, Field(ge=1.0, le=100.0)]
    """Largest ratio between the side of the crop and the face."""


class Augmentation(ApiModel):
    """Random changes to pictures; each draw is a function of seed, epoch and picture."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.randomCrop) || !self.randomCrop || !has(self.faceCropRange)",
            message="randomCrop and faceCropRange both choose the crop; remove one",
            holds=lambda m: not m.random_crop or m.face_crop_range is None,
        ),
    )

    flip: bool = False
    """Mirror half of the draws. Both latents are cached. Off for anything with a left and a right."""
    color: bool = False
    """Jitter hue or gamma of a third of the draws. Needs latentVariants or latentCache None."""
    random_crop: bool = False
    """Crop at a random offset. Needs latentVariants or latentCache None."""
    face_crop_range: FaceCropRange | None = None
    """Crop around the face whose centre and size in px end the file's name: `name_<x>_<y>_<width>_<height>.png`.
    Needs latentVariants or latentCache None."""

    @property
    def changes_pixels(self) -> bool:
        """Whether draws of a picture differ in more than being mirrored."""
        return self.color or self.random_crop or self.face_crop_range is not None


class AugmentationOverrides(ApiModel):
    """What is different from `spec.dataset.augmentation` in one subset; what is left out stays as it is there."""

    flip: bool | None = None
    """Mirror half of the draws."""
    color: bool | None = None
    """Jitter hue or gamma."""
    random_crop: bool | None = None
    """Crop at a random offset."""
    face_crop_range: FaceCropRange | None = None
    """Crop around the face named in the file's name."""

    def applied_to(self, augmentation: Augmentation) -> Augmentation:
        """`augmentation` with what is set here instead."""
        changes = {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
        return augmentation.model_copy(update=changes)


class Subset(ApiModel):
    """One folder of pictures, said explicitly instead of by the folder convention."""

    uri: ReadUri
    """Folder that holds the pictures; its last part names it in messages and metadata."""
    repeats: Repeats = 1
    """How often each picture is seen in an epoch."""
    class_tokens: Text | None = None
    """Caption of pictures without caption file."""
    is_regularization: bool = False
    """The pictures show the ordinary class, not the concept."""
    captions: CaptionOverrides | None = None
    """What is different from `spec.dataset.captions` in this folder."""
    augmentation: AugmentationOverrides | None = None
    """What is different from `spec.dataset.augmentation` in this folder."""


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


LatentCache = Literal["Memory", "Disk", "Store", "None"]


def _overridden(m: "Dataset") -> list[Augmentation]:
    """The augmentation of every subset that has overrides."""
    return [s.augmentation.applied_to(m.augmentation) for s in m.subsets if s.augmentation is not None]


def _changed_pixels(m: "Dataset") -> bool:
    return any(augmentation.changes_pixels for augmentation in (m.augmentation, *_overridden(m)))


def _in_uri(uri: str, folder: str | None) -> bool:
    return folder is not None and (uri.rstrip("/") + "/").startswith(folder.rstrip("/") + "/")


_CHANGES = "(has({0}.color) && {0}.color) || (has({0}.randomCrop) && {0}.randomCrop) || has({0}.faceCropRange)"
_CHANGES_PIXELS = (
    f"(has(self.augmentation) && ({_CHANGES.format('self.augmentation')})) || (has(self.subsets) && "
    f"self.subsets.exists(s, has(s.augmentation) && ({_CHANGES.format('s.augmentation')})))"
)


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
        Rule(
            cel="type(self.resolution) != int || !self.buckets.enabled || self.buckets.stepPx <= self.resolution",
            message="buckets.stepPx must not be larger than resolution; lower it",
            holds=lambda m: (
                not isinstance(m.resolution, int) or not m.buckets.enabled or m.buckets.step_px <= m.resolution
            ),
        ),
        Rule(
            cel="!has(self.subsets) || size(self.subsets) == 0 || self.subsets.exists(s, "
            "!has(s.isRegularization) || !s.isRegularization)",
            message="subsets holds only regularisation pictures; add the folder of what is to be learnt",
            holds=lambda m: not m.subsets or any(not subset.is_regularization for subset in m.subsets),
        ),
        Rule(
            cel="!has(self.subsets) || self.subsets.all(s, self.subsets.exists_one(t, t.uri == s.uri))",
            message="subsets names a folder twice; join the two entries and add up their repeats",
            holds=lambda m: len({subset.uri for subset in m.subsets}) == len(m.subsets),
        ),
        Rule(
            cel="!has(self.subsets) || self.subsets.all(s, !has(s.augmentation) || !("
            "(has(s.augmentation.randomCrop) ? s.augmentation.randomCrop : (has(self.augmentation) && "
            "has(self.augmentation.randomCrop) && self.augmentation.randomCrop)) && "
            "(has(s.augmentation.faceCropRange) || (has(self.augmentation) && "
            "has(self.augmentation.faceCropRange)))))",
            message="subsets[].augmentation: randomCrop and faceCropRange both choose the crop; set randomCrop to "
            "false or remove faceCropRange",
            holds=lambda m: not any(a.random_crop and a.face_crop_range is not None for a in _overridden(m)),
        ),
        Rule(
            cel="!has(self.subsets) || size(self.subsets) == 0 || !has(self.regularization) || "
            "((!has(self.regularization.lossWeight) || self.regularization.lossWeight == 1.0) && "
            "(!has(self.regularization.target) || self.regularization.target == 'Noise')) || "
            "self.subsets.exists(s, has(s.isRegularization) && s.isRegularization)",
            message="regularization has no effect without a subset with isRegularization: true; add one or remove it",
            holds=lambda m: (
                not m.subsets
                or (m.regularization.loss_weight == 1 and m.regularization.target == "Noise")
                or any(subset.is_regularization for subset in m.subsets)
            ),
        ),
        Rule(
            cel="!has(self.uri) || !has(self.regularization) || !has(self.regularization.uri) || "
            "self.regularization.uri != self.uri",
            message="regularization.uri must differ from uri; the class pictures lie in a folder of their own",
            holds=lambda m: m.uri is None or m.regularization.uri != m.uri,
        ),
        Rule(
            cel="!has(self.regularization) || !has(self.regularization.uri) || has(self.uri)",
            message="regularization.uri goes with uri; beside subsets, write a subset with isRegularization: true",
            holds=lambda m: m.regularization.uri is None or m.uri is not None,
        ),
        Rule(
            cel=f"!({_CHANGES_PIXELS}) || has(self.latentVariants) || "
            "(has(self.latentCache) && self.latentCache == 'None')",
            message="color, randomCrop and faceCropRange would be frozen by the latent cache; set latentVariants to "
            "the number of versions to keep of each picture, or latentCache to None",
            holds=lambda m: not _changed_pixels(m) or m.latent_variants is not None or m.latent_cache == "None",
        ),
        Rule(
            cel=f"!has(self.latentVariants) || ({_CHANGES_PIXELS})",
            message="latentVariants has no effect without color, randomCrop or faceCropRange; remove it",
            holds=lambda m: m.latent_variants is None or _changed_pixels(m),
        ),
        Rule(
            cel="!has(self.latentVariants) || !has(self.latentCache) || self.latentCache != 'None'",
            message="latentVariants has no effect while latentCache is None; remove it",
            holds=lambda m: m.latent_variants is None or m.latent_cache != "None",
        ),
        Rule(
            cel="!has(self.cacheUri) || (has(self.latentCache) && self.latentCache == 'Store')",
            message="cacheUri belongs to latentCache Store; remove it or change latentCache",
            holds=lambda m: m.cache_uri is None or m.latent_cache == "Store",
        ),
        Rule(
            cel="!has(self.cacheUri) || !has(self.uri) || !(self.cacheUri + '/').startsWith("
            "self.uri.endsWith('/') ? self.uri : self.uri + '/')",
            message="cacheUri must not lie inside uri, where pictures are looked for; choose another folder",
            holds=lambda m: m.cache_uri is None or not _in_uri(m.cache_uri, m.uri),
        ),
        Rule(
            cel="!has(self.latentCache) || self.latentCache != 'Store' || has(self.cacheUri) || "
            "(has(self.uri) && !self.uri.startsWith('hf://'))",
            message="latentCache Store needs cacheUri when the pictures come from subsets or the hub; set it",
            holds=lambda m: (
                m.latent_cache != "Store"
                or m.cache_uri is not None
                or (m.uri is not None and not m.uri.startswith("hf://"))
            ),
        ),
        *GENERATION_RULES,
    )

    uri: ReadUri | None = None
    """Folder that holds `<repeats>_<concept>` folders and, if wanted, `reg/` beside them, or pictures and a
    `metadata.jsonl` that lists them."""
    subsets: Annotated[tuple[Subset, ...], Field(max_length=64)] = ()
    """Explicit list of folders, instead of uri and its folder convention."""
    regularization: Regularization = Regularization()
    """Where regularisation pictures lie, what they weigh and what they are compared with."""
    resolution: Resolution = 512
    """Area of the training pictures: `768` (768x768 px) or `768x512` (width x height in px)."""
    buckets: Buckets = Buckets()
    """Aspect-ratio buckets, and how pictures are scaled and cropped to them."""
    captions: Captions = Captions()
    """How a picture gets its text."""
    augmentation: Augmentation = Augmentation()
    """Random changes to pictures."""
    mask: Literal["None", "Alpha", "Files"] = "None"
    """Which parts of a picture count in the loss. Alpha: its transparency; Files: the grey picture of the same name
    in the folder `mask/` beside the concept folders (or named in `metadata.jsonl`); white counts, black does not."""
    latent_cache: LatentCache = "Memory"
    """Where encoded pictures are kept: in memory, on the pod's disk, in the object store for later runs as well, or
    nowhere: then every picture is encoded anew at each draw."""
    latent_variants: Annotated[int, Field(ge=1, le=64)] | None = None
    """Versions of each picture that are cached when augmentation changes more than its side."""
    cache_uri: WriteUri | None = None
    """Folder of the cache `Store`. Default: `<uri>.latents` beside the dataset."""
    workers: Annotated[int, Field(ge=0, le=64)] = 8
    """Threads that fetch and decode pictures; 0: none beside the main one. Never changes the result."""
    validation_fraction: Annotated[float, Field(ge=0.0, le=0.5)] | None = None
    """Share of the training pictures that is held out to measure over-fitting, and never trained on; at least 2.
    Default: a tenth, at least 2 and at most 16, if `evaluation` asks for the best epoch and there are at least 8
    pictures; else none."""
    storage: Storage | None = None
    """Replaces `spec.storage` for everything that `dataset` names."""

    @property
    def size_px(self) -> tuple[int, int]:
        """The resolution as (width, height) in px."""
        return parse_resolution(self.resolution)

    @property
    def latent_store_uri(self) -> str | None:
        """The folder of the cache `Store`; None for other caches."""
        if self.latent_cache != "Store":
            return None
        return self.cache_uri or f"{str(self.uri).rstrip('/')}.latents"
