"""An adapter as a file holds it: modules by name, each with its tensors, and what they add to the base weights.

Formats read and write it; `merge`, `resize`, `convert` and `inspect` work on it.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lora_api.model_spec import Family, NetworkType
from lora_trainer.conditioning import Part
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.lora.keys import ModuleName, kohya_key

FileFormat = Literal["kohya", "diffusers", "peft"]

DOWN, UP, MID = "lora_down.weight", "lora_up.weight", "lora_mid.weight"
DORA_SCALE = "dora_scale"
_LORA = frozenset({DOWN, UP, MID, DORA_SCALE})
_LOHA = frozenset({f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")})
_LOKR = frozenset({f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")})
SUFFIXES = _LORA | _LOHA | _LOKR
"""Names of the tensors of a module, without the alpha."""

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""Number formats of files."""

_SD2_TEXT_WIDTH = 1024
_LDM = re.compile(r"^lora_unet_(input_blocks|middle_block|output_blocks)_")
_LATER_LAYER = re.compile(r"\.transformer_blocks\.[1-9]")


class InvalidAdapterFile(InvalidConfiguration):
    """A file that is no adapter that we know, or cannot become what is asked; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="")


@dataclass(frozen=True)
class AdapterModule:
    """The adapter of one module."""

    name: ModuleName
    tensors: Mapping[str, Tensor]
    """By the suffix that kohya's and LyCORIS' files use, such as `lora_down.weight`."""
    alpha: float

    @property
    def type(self) -> NetworkType:
        """Kind of adapter; a convolution with a kernel makes `locon` of `lora`."""
        if DORA_SCALE in self.tensors:
            return "dora"
        if "hada_w1_a" in self.tensors:
            return "loha"
        if DOWN not in self.tensors:
            return "lokr"
        return "locon" if self.down.dim() == 4 and self.down.shape[-2:].numel() > 1 else "lora"

    @property
    def down(self) -> Tensor:
        """A of a LoRA: (r, in) or (r, in, k, k)."""
        return self.tensors[DOWN]

    @property
    def up(self) -> Tensor:
        """B of a LoRA: (out, r) or (out, r, 1, 1)."""
        return self.tensors[UP]

    @property
    def rank(self) -> int:
        """Inner size r; 0 for a LoKr of two whole matrices, which has none."""
        for name in (DOWN, "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
            if name in self.tensors:
                return int(self.tensors[name].shape[0])
        return 0

    @property
    def scale(self) -> float:
        """Factor on the product of the tensors: alpha / r."""
        return self.alpha / self.rank if self.rank else 1.0

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the tensors."""
        return next(iter(self.tensors.values())).dtype

    @property
    def parameters(self) -> int:
        """Numbers in the tensors."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def is_product(self) -> bool:
        """Whether the change is a product of two thin matrices, as it stands in the file."""
        return self.type in ("lora", "locon") and MID not in self.tensors

    @property
    def size(self) -> tuple[int, ...]:
        """(out, in * k * k) of the weight that is changed."""
        return tuple(_PRODUCTS[self.type]({name: tensor.to("meta") for name, tensor in self.tensors.items()}).shape)

    @property
    def delta(self) -> Tensor:
        """What is added to the base weight, (out, in * k * k) in fp32; for DoRA before the columns are re-normed."""
        return _PRODUCTS[self.type]({name: tensor.float() for name, tensor in self.tensors.items()}) * self.scale

    def change(self, weight: Tensor) -> Tensor:
        """What is added to this base weight, in its shape and in fp32.

        DoRA (https://arxiv.org/abs/2402.09353): W' = m (W + dW) / ||W + dW||, the norm over each output's inputs
        as PEFT has it, or over each input's outputs as LyCORIS has it; the shape of m tells which.
        """
        base = weight.float()
        change = self.delta.to(base.device).reshape(base.shape)
        if self.type != "dora":
            return change
        magnitude, merged = self.tensors[DORA_SCALE].to(base.device, torch.float32), base + change
        if magnitude.shape[0] == base.shape[0]:
            norm = merged.flatten(1).norm(dim=1)
            axis = 0
        else:
            norm = merged.transpose(0, 1).flatten(1).norm(dim=1)
            axis = 1
        shape = [-1 if dim == axis else 1 for dim in range(base.dim())]
        changed: Tensor = merged * (magnitude.reshape(shape) / norm.reshape(shape)) - base
        return changed


@dataclass(frozen=True)
class AdapterFile:
    """An adapter that was read or made."""

    modules: Mapping[str, AdapterModule]
    """By the key that kohya's format gives the module, whatever the file's format is."""
    metadata: Mapping[str, str]
    family: Family
    format: FileFormat = "kohya"

    @property
    def type(self) -> NetworkType:
        """Kind of network: the most special of the kinds of its modules."""
        types = {module.type for module in self.modules.values()}
        return next(kind for kind in _SPECIAL_FIRST if kind in types)

    def of(self, part: Part) -> list[AdapterModule]:
        """The modules of one part of the base model."""
        return [module for module in self.modules.values() if module.name.part == part]


def check_finite(adapter: AdapterFile, name: str, *, cure: str = "take one from before the training diverged") -> None:
    """Raises InvalidAdapterFile if a number in the adapter, called `name`, is none or endless."""
    for key, module in adapter.modules.items():
        if not math.isfinite(module.alpha) or not all(t.float().isfinite().all() for t in module.tensors.values()):
            raise InvalidAdapterFile(f"{name}: {key} holds numbers that are not finite; {cure}")


_SPECIAL_FIRST: tuple[NetworkType, ...] = ("dora", "lokr", "loha", "locon", "lora")


def keyed(modules: Iterable[AdapterModule], family: Family) -> dict[str, AdapterModule]:
    """Modules by kohya's key, in the order of the keys."""
    named = {kohya_key(module.name.part, module.name.path, family): module for module in modules}
    return dict(sorted(named.items()))


def family_of(modules: Iterable[AdapterModule], metadata: Mapping[str, str], names: Iterable[str] = ()) -> Family:
    """Which models the adapter is for.

    Args:
        modules: SDXL has a second text encoder and several transformer layers a block; SD 2 reads wider text states.
        metadata: what the file says of itself.
        names: names of the tensors, of which LDM's are SDXL's.
    """
    members = list(modules)
    version = metadata.get("ss_base_model_version", "") + metadata.get("modelspec.architecture", "")
    if "xl" in version or any(map(_LDM.search, names)) or any(_is_sdxl(module.name) for module in members):
        return "sdxl"
    if version:
        return "sd2" if "sd_v2" in version or "diffusion-v2" in version else "sd15"
    widths = {module.down.shape[1] for module in members if DOWN in module.tensors and _reads_text(module.name)}
    return "sd2" if _SD2_TEXT_WIDTH in widths else "sd15"


def _is_sdxl(name: ModuleName) -> bool:
    return name.part == "text_encoder_2" or bool(_LATER_LAYER.search(name.path))


def _reads_text(name: ModuleName) -> bool:
    return name.path.endswith(("attn2.to_k", "self_attn.k_proj"))


def _lora(tensors: Mapping[str, Tensor]) -> Tensor:
    down, up = tensors[DOWN], tensors[UP].flatten(1)
    if MID in tensors:
        core = torch.einsum("rskl,si->rikl", tensors[MID], down.flatten(1))
        return up @ core.flatten(1)
    return up @ down.flatten(1)


def _loha(tensors: Mapping[str, Tensor]) -> Tensor:
    """Hadamard product of two low-rank matrices: FedPara, https://arxiv.org/abs/2108.06098."""
    return _factor(tensors, "hada_w1", "hada_t1").flatten(1) * _factor(tensors, "hada_w2", "hada_t2").flatten(1)


def _lokr(tensors: Mapping[str, Tensor]) -> Tensor:
    """Kronecker product of two matrices, of which each may be low-rank: https://arxiv.org/abs/2212.10650."""
    first, second = _factor(tensors, "lokr_w1", ""), _factor(tensors, "lokr_w2", "lokr_t2")
    return torch.kron(first.reshape(*first.shape, *[1] * (second.dim() - 2)), second).flatten(1)


def _factor(tensors: Mapping[str, Tensor], name: str, core: str) -> Tensor:
    """One factor: whole, a product of two, or (Tucker) a core of kernel size between two: (out, in[, k, k])."""
    if name in tensors:
        return tensors[name]
    first, second = tensors[f"{name}_a"], tensors[f"{name}_b"]
    if core in tensors:
        return torch.einsum("pqkl,po,qi->oikl", tensors[core], first, second)
    return first @ second


_PRODUCTS = {"lora": _lora, "locon": _lora, "dora": _lora, "loha": _loha, "lokr": _lokr}
