"""Names of the UNet's blocks as LoRA Block Weight and kohya's networks count them; used by `lora.targets`.

The numbers are those of the original checkpoints: input block 0 is the first convolution, each down block holds
two layers and a downsampler, each up block three layers, of which the last carries the upsampler.
"""

import re

from lora_api.model_spec import BlockName, Family

_LAYER = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.")

_SD: tuple[BlockName, ...] = (
    "IN00", "IN01", "IN02", "IN03", "IN04", "IN05", "IN06", "IN07", "IN08", "IN09", "IN10", "IN11",
    "M00",
    "OUT00", "OUT01", "OUT02", "OUT03", "OUT04", "OUT05", "OUT06", "OUT07", "OUT08", "OUT09", "OUT10", "OUT11",
)  # fmt: skip
_SDXL: tuple[BlockName, ...] = (
    "IN00", "IN01", "IN02", "IN03", "IN04", "IN05", "IN06", "IN07", "IN08",
    "M00", "M01", "M02",
    "OUT00", "OUT01", "OUT02", "OUT03", "OUT04", "OUT05", "OUT06", "OUT07", "OUT08",
)  # fmt: skip


def block_names(family: Family) -> tuple[BlockName, ...]:
    """The family's blocks from input to output: 25, in `sdxl` 21."""
    return _SDXL if family == "sdxl" else _SD


def block_of(path: str, family: Family) -> BlockName | None:
    """The block in which the UNet's module `path` (diffusers' naming) lies; None outside all of them.

    `conv_in` is IN00; the time embedding and `conv_out` belong to no block.
    """
    if path.startswith("conv_in"):
        return "IN00"
    name = _middle_block(path, family) or _side_block(path)
    return next((block for block in block_names(family) if block == name), None)


def _middle_block(path: str, family: Family) -> str | None:
    found = _MIDDLE.match(path)
    if found is None:
        return None
    if family != "sdxl":
        return "M00"
    # The original middle block is residual block, transformer, residual block.
    kind, index = found[1], int(found[2])
    return "M01" if kind == "attentions" else f"M{2 * index:02d}"


def _side_block(path: str) -> str | None:
    found = _LAYER.match(path)
    if found is None:
        return None
    side, block, kind, layer = found[1], int(found[2]), found[3], int(found[4])
    if side == "down":
        return f"IN{3 * block + 3 if kind == 'downsamplers' else 3 * block + 1 + layer:02d}"
    return f"OUT{3 * block + 2 if kind == 'upsamplers' else 3 * block + layer:02d}"
