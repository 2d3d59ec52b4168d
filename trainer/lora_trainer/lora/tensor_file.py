"""`.safetensors` files whose bytes depend on what they hold only; used by all formats and by merges into a base.

Not written by the safetensors library: it writes metadata in random order, and equal runs give equal files.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
_LEGACY_HASHED = slice(0x100000, 0x110000)


class UnreadableTensorFile(ValueError):
    """No `.safetensors` file; the message says why."""


def payload(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of all tensors in the order of their names: what follows the header in the file."""
    return b"".join(_bytes(tensors[name]) for name in sorted(tensors))


def header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The safetensors header, length included."""
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
    legacy = (header(tensors, metadata) + data)[_LEGACY_HASHED]
    return {
        "sshs_model_hash": hashlib.sha256(data).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(legacy).hexdigest()[:8],
    }


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a `.safetensors` file whose bytes depend on `tensors` and `metadata` only."""
    with path.open("wb") as file:
        file.write(header(tensors, metadata))
        for name in sorted(tensors):
            file.write(_bytes(tensors[name]))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a `.safetensors` file by name, and its metadata. Raises UnreadableTensorFile."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118  (no mapping)
    except FileNotFoundError as error:
        raise UnreadableTensorFile(f"{path} does not exist; correct the path") from error
    except OSError as error:
        raise UnreadableTensorFile(f"{path.name} cannot be read: {error}") from error
    except SafetensorError as error:
        raise UnreadableTensorFile(
            f"{path.name} is no .safetensors file, or cut off; copy it again ({error})"
        ) from error


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
