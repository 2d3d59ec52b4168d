"""Adapter files in kohya's format, which AUTOMATIC1111, ComfyUI, diffusers and sd-scripts open; written and read.

Three tensors a module: `<key>.lora_down.weight`, `<key>.lora_up.weight`, `<key>.alpha`. Used by `run` to publish,
by `lora.verify` to check and by `lora inspect`.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

if TYPE_CHECKING:
    # Reading a file needs no PEFT, and `lora inspect` should not wait for it.
    from lora_trainer.lora.inject import AdaptedLayer, Part

_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


class InvalidAdapterFile(ValueError):
    """A file that is no adapter in kohya's format; the message says why."""


@dataclass(frozen=True)
class AdapterModule:
    """The adapter of one module, as a file holds it."""

    key: str
    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Inner size r."""
        return int(self.down.shape[0])

    @property
    def delta(self) -> Tensor:
        """What is added to the base weight, (out, in), in fp32: alpha / r * B A."""
        return self.up.float().flatten(1) @ self.down.float().flatten(1) * (self.alpha / self.rank)


@dataclass(frozen=True)
class AdapterFile:
    """A file that was read."""

    modules: Mapping[str, AdapterModule]
    metadata: Mapping[str, str]


def kohya_key(part: "Part", path: str) -> str:
    """The module's name in the file.

    Since transformers 5.6 the text encoder's paths lack `text_model.`, which every reader of the format expects.
    """
    if part == "unet":
        return "lora_unet_" + path.replace(".", "_")
    return "lora_te_text_model_" + path.removeprefix("text_model.").replace(".", "_")


def to_kohya(layers: "Iterable[AdaptedLayer]", dtype: torch.dtype) -> dict[str, Tensor]:
    """The file's tensors for live adapters, on the CPU in `dtype`."""
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        key = kohya_key(layer.part, layer.path)
        tensors[key + _DOWN] = layer.down.detach().to("cpu", dtype)
        tensors[key + _UP] = layer.up.detach().to("cpu", dtype)
        tensors[key + _ALPHA] = torch.tensor(layer.alpha, dtype=dtype)
    return tensors


def payload(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of all tensors in the order of their names: what follows the header in the file."""
    return b"".join(_bytes(tensors[name]) for name in sorted(tensors))


def header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The safetensors header, length included.

    Not left to the safetensors library: it writes metadata in random order, and equal runs give equal files.
    """
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def content_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The two hashes by which web UIs know a file: of the tensors alone, and AUTOMATIC1111's old short one."""
    data = payload(tensors)
    legacy = (header(tensors, metadata) + data)[0x100000:0x110000]
    return {
        "sshs_model_hash": hashlib.sha256(data).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(legacy).hexdigest()[:8],
    }


def write_adapter(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a `.safetensors` file whose bytes depend on `tensors` and `metadata` only."""
    with path.open("wb") as file:
        file.write(header(tensors, metadata))
        for name in sorted(tensors):
            file.write(_bytes(tensors[name]))


def read_adapter(path: Path) -> AdapterFile:
    """The adapter in `path`.

    Raises:
        InvalidAdapterFile: no safetensors file, or one that does not hold whole LoRA modules.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (OSError, SafetensorError) as error:
        raise InvalidAdapterFile(f"{path.name} cannot be read as a .safetensors file: {error}") from error
    keys = sorted({name.removesuffix(_DOWN) for name in tensors if name.endswith(_DOWN)})
    if not keys:
        raise InvalidAdapterFile(f"{path.name} holds no lora_down weights, so it is no LoRA in kohya's format")
    modules = {key: _module(key, tensors, path.name) for key in keys}
    unknown = sorted(set(tensors) - {key + suffix for key in keys for suffix in (_DOWN, _UP, _ALPHA)})
    if unknown:
        raise InvalidAdapterFile(f"{path.name} holds {len(unknown)} tensors of no LoRA module, such as {unknown[0]}")
    return AdapterFile(modules, metadata)


def _module(key: str, tensors: Mapping[str, Tensor], file_name: str) -> AdapterModule:
    down, up = tensors[key + _DOWN], tensors.get(key + _UP)
    if up is None:
        raise InvalidAdapterFile(f"{file_name} lacks {key + _UP}")
    if down.dim() < 2 or up.dim() < 2 or up.shape[1] != down.shape[0]:
        raise InvalidAdapterFile(f"{file_name}: {key} has ranks that do not fit: {[*down.shape]} and {[*up.shape]}")
    alpha = float(tensors[key + _ALPHA]) if key + _ALPHA in tensors else float(down.shape[0])
    return AdapterModule(key, down, up, alpha)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
