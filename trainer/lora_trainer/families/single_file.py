"""Reads base models that lie in one `.safetensors` file, as AUTOMATIC1111 and ComfyUI use them, without network.

Such a file holds tensors under LDM's names and no configuration; the configurations ship with the package.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from lora_api.model_spec import Family, Prediction
from lora_trainer.digests import sha256_of
from lora_trainer.errors import BaseModelUnavailable
from lora_trainer.families.configurations import CONFIGS, Architecture
from lora_trainer.families.ldm_names import Origin, open_clip_origin, unet_origin, vae_origin
from lora_trainer.families.model_files import BetaSchedule, ModelPart, TextPart, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."

Locate = Callable[[str], Origin]
"""Name of a weight in diffusers or transformers -> where it is in the file."""


@dataclass(frozen=True)
class Header:
    """What is in a `.safetensors` file, read without its tensors."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]

    def has(self, prefix: str) -> bool:
        """Whether any tensor's name begins so."""
        return any(name.startswith(prefix) for name in self.shapes)


def read_header(path: Path, *, field: str) -> Header:
    """Names, shapes and metadata of a file; `field` begins the message. Raises BaseModelUnavailable."""
    if path.suffix != ".safetensors":
        raise BaseModelUnavailable(
            f"{field} names {path.name}, which is no .safetensors file; pickled weights (.ckpt, .pt, .bin) are "
            "refused because they can run code, convert them to safetensors"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return Header(shapes, file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise BaseModelUnavailable(f"{field}: {path.name} cannot be read: {first_line(error)}") from error


@dataclass(frozen=True)
class SingleFile:
    """The files of a model, of which there is one; see `ModelFiles`."""

    path: Path
    family: Family
    prediction: Prediction
    configs: Path = CONFIGS
    field: str = field(default="spec.baseModel.uri")
    """YAML path of what names the file; begins every message."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return sha256_of(self.path)

    @property
    def digests(self) -> Mapping[str, str]:
        """That of the file, as `model`."""
        return {"model": self.digest}

    @property
    def vae_digest(self) -> str:
        """SHA-256 of the file: the VAE is in it."""
        return self.digest

    def load(self, part: ModelPart, model_class: Any, *, precision: "torch.dtype") -> Any:
        """A part; see `ModelFiles.load`."""
        return fill(
            self._architecture.build_empty(part, model_class),
            self.path,
            self._locate(part),
            precision=precision,
            name=f"{self.field}: {part}",
        )

    def load_tokenizer(self, encoder: TextPart, *, vocabulary: int) -> Any:
        """CLIP's tokenizer, which all these models share."""
        return self._architecture.tokenizer(encoder)

    def betas(self) -> BetaSchedule:
        """The noise schedule of the family."""
        return self._architecture.betas()

    @property
    def _architecture(self) -> Architecture:
        return Architecture(self.family, self.configs)

    def _locate(self, part: ModelPart) -> Locate:
        config = self._architecture.config(part)
        match part, self.family:
            case "unet", _:
                return locate_unet(config)
            case "vae", _:
                return locate_vae(config, VAE)
            case "text_encoder", "sd2":
                return _behind(OPEN_CLIP, open_clip_origin)
            case "text_encoder_2", _:
                return _behind(OPEN_CLIP_XL, open_clip_origin)
        header = read_header(self.path, field=self.field)
        prefix = CLIP_XL if self.family == "sdxl" else CLIP
        # Files of some merging tools lack the inner prefix.
        inner = "text_model." if header.has(f"{prefix}text_model.") else ""
        return lambda name: Origin(f"{prefix}{inner}{name}")


def locate_unet(config: Mapping[str, Any]) -> Locate:
    """Where the weights of a UNet with this configuration are."""
    attention = ["CrossAttn" in kind for kind in config["up_block_types"]]
    layers = int(config["layers_per_block"])
    return _behind(UNET, lambda name: unet_origin(name, layers=layers, up_with_attention=attention))


def locate_vae(config: Mapping[str, Any], prefix: str) -> Locate:
    """Where the weights of a VAE with this configuration are, behind a prefix."""
    return _behind(prefix, lambda name: vae_origin(name, levels=len(config["block_out_channels"])))


def fill(model: Any, path: Path, locate: Locate, *, precision: "torch.dtype", name: str) -> Any:
    """The empty `model` with the weights of the file; `name` begins the messages.

    Raises:
        BaseModelUnavailable: the file cannot be read, weights are missing in it, or have another shape.
    """
    empty = model.state_dict()
    origins = {weight: locate(weight) for weight in empty}
    try:
        with safe_open(path, framework="pt") as file:
            missing = sorted({origin.name for origin in origins.values()} - frozenset(file.keys()))
            if missing:
                raise BaseModelUnavailable(f"{name} lacks {len(missing)} weights, such as {missing[0]}")
            weights = {weight: _read(file, origin, like=empty[weight]) for weight, origin in origins.items()}
    except (OSError, SafetensorError) as error:
        raise BaseModelUnavailable(f"{name} cannot be read: {first_line(error)}") from error
    for weight, tensor in weights.items():
        if tensor.shape != empty[weight].shape:
            raise BaseModelUnavailable(
                f"{name} has {origins[weight].name} of shape {tuple(tensor.shape)}, "
                f"but the architecture wants {tuple(empty[weight].shape)}"
            )
    model.load_state_dict({weight: tensor.to(precision) for weight, tensor in weights.items()}, assign=True)
    return model


def _read(file: Any, origin: Origin, *, like: "Tensor") -> "Tensor":
    """One weight; 1x1 convolutions of the VAE's attention become the linear layers that they are in diffusers."""
    if origin.third is None:
        tensor: Tensor = file.get_tensor(origin.name)
    else:
        rows = like.shape[0]
        tensor = file.get_slice(origin.name)[origin.third * rows : (origin.third + 1) * rows]
    if origin.transposed:
        tensor = tensor.T.contiguous()
    is_convolution = tensor.ndim == like.ndim + 2 and tensor.shape[-2:] == (1, 1)
    return tensor[..., 0, 0] if is_convolution else tensor


def _behind(prefix: str, locate: Locate) -> Locate:
    def located(name: str) -> Origin:
        origin = locate(name)
        return Origin(prefix + origin.name, origin.third, origin.transposed)

    return located
