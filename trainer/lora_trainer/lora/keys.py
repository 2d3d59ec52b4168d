"""Names of adapted modules: as the live model, kohya's files and Stability's checkpoints (LDM) call them.

Used by everything in `lora` that writes or reads a file. A canonical path is the module's path in diffusers' UNet
or in transformers' text encoder; there without `text_model.`, which `CLIPTextModel` lost in transformers 5.6 while
`CLIPTextModelWithProjection` keeps it, and which every file has.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from lora_api.model_spec import Family

if TYPE_CHECKING:
    # Only the name of a type: this module does without torch.
    from lora_trainer.conditioning import Part


class ModuleName(NamedTuple):
    """One module of a base model."""

    part: "Part"
    path: str
    """Canonical path."""


class UnknownKey(ValueError):
    """A key that names no module of a Stable Diffusion model; the message shows it."""


_TEXT_ENCODERS: dict[str, "Part"] = {
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
_UNET = "lora_unet_"
_TEXT_MODEL = "text_model."

_COMPOUNDS = (
    "down_blocks", "mid_block", "up_blocks", "transformer_blocks", "input_blocks", "middle_block", "output_blocks",
    "to_q", "to_k", "to_v", "to_out", "proj_in", "proj_out", "conv_in", "conv_out", "conv_norm_out", "conv_shortcut",
    "time_emb_proj", "time_embedding", "time_embed", "add_embedding", "label_emb", "linear_1", "linear_2",
    "in_layers", "out_layers", "emb_layers", "skip_connection",
    "text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "text_projection", "final_layer_norm",
    "token_embedding", "position_embedding", "layer_norm1", "layer_norm2",
)  # fmt: skip
_WORDS = re.compile("|".join(f"{word}(?=_|$)" for word in _COMPOUNDS) + "|[A-Za-z0-9]+")

_LDM_ROOT = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_LDM_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_DIFFUSERS_ROOT = {ldm: path for path, ldm in _LDM_ROOT.items()}
_DIFFUSERS_RESNET = {ldm: path for path, ldm in _LDM_RESNET.items()}

_BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)")
_LDM_BLOCK = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(\d)\.(.+)")
_LDM_MIDDLE = re.compile(r"middle_block\.([012])\.(.+)")


def kohya_key(part: "Part", path: str, family: Family = "sd15") -> str:
    """The module's name in a file of kohya's format; `path` with or without `text_model.`.

    SDXL's UNet goes by its LDM names there, that of Stable Diffusion 1 and 2 by diffusers' names.
    """
    if part == "unet":
        return _UNET + (ldm_path(path, family) if family == "sdxl" else path).replace(".", "_")
    prefix = {"text_encoder": "lora_te1_" if family == "sdxl" else "lora_te_", "text_encoder_2": "lora_te2_"}[part]
    return f"{prefix}text_model_{canonical_path(path)}".replace(".", "_")


def module_named(key: str) -> ModuleName:
    """The module that `kohya_key` named `key`; diffusers' names are read in SDXL files as well.

    Raises:
        UnknownKey: the key begins as no key of a Stable Diffusion adapter does.
    """
    if key.startswith(_UNET):
        return ModuleName("unet", diffusers_path(_dotted(key.removeprefix(_UNET))))
    for prefix, part in _TEXT_ENCODERS.items():
        if key.startswith(prefix):
            return ModuleName(part, canonical_path(_dotted(key.removeprefix(prefix))))
    raise UnknownKey(f"{key} names no module of Stable Diffusion 1, 2 or XL; the file is for another kind of model")


def canonical_path(path: str) -> str:
    """`path` without `text_model.`."""
    return path.removeprefix(_TEXT_MODEL)


def text_model_path(path: str) -> str:
    """`path` with `text_model.`, as diffusers' files have it for both text encoders."""
    return _TEXT_MODEL + canonical_path(path)


def kernel_of(name: ModuleName, family: Family) -> tuple[int, ...]:
    """Kernel of the module in the family's UNet: (3, 3), (1, 1), or () of a linear layer."""
    last = name.path.rpartition(".")[2]
    if name.part != "unet":
        return ()
    if last in ("conv", "conv1", "conv2", "conv_in", "conv_out"):
        return (3, 3)
    is_pointwise = last == "conv_shortcut" or (family == "sd15" and last in ("proj_in", "proj_out"))
    return (1, 1) if is_pointwise else ()


def ldm_path(path: str, family: Family) -> str:
    """The LDM name of a path in diffusers' UNet, with dots; other paths stay as they are."""
    if block := _BLOCK.fullmatch(path):
        side, number, kind, item, rest = block.groups()
        return _ldm_block(side, int(number), kind, item=int(item), rest=rest, family=family)
    if middle := _MIDDLE.fullmatch(path):
        kind, item, rest = middle.groups()
        place = 1 if kind == "attentions" else 2 * int(item)
        return f"middle_block.{place}.{_LDM_RESNET.get(rest, rest)}"
    return _LDM_ROOT.get(path, path)


def _ldm_block(side: str, number: int, kind: str, *, item: int, rest: str, family: Family) -> str:
    """Three LDM blocks make one of diffusers' down blocks (the third is the downsampler) and one of its up blocks."""
    if kind == "downsamplers":
        return f"input_blocks.{3 * number + 3}.0.op"
    if kind == "upsamplers":
        # After the resnet and, where the block has one, the attention.
        place = 1 if family != "sdxl" and number == 0 else 2
        return f"output_blocks.{3 * number + 2}.{place}.{rest}"
    place = 0 if kind == "resnets" else 1
    index = 3 * number + item + (1 if side == "down_blocks" else 0)
    name = "input_blocks" if side == "down_blocks" else "output_blocks"
    return f"{name}.{index}.{place}.{_LDM_RESNET.get(rest, rest)}"


def diffusers_path(path: str) -> str:
    """The path in diffusers' UNet of an LDM name with dots; other paths stay as they are."""
    if path in _DIFFUSERS_ROOT:
        return _DIFFUSERS_ROOT[path]
    if block := _LDM_BLOCK.fullmatch(path):
        side, index, place, rest = block.groups()
        return _diffusers_block(side, int(index), int(place), rest)
    if middle := _LDM_MIDDLE.fullmatch(path):
        place, rest = middle.groups()
        where = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}[place]
        return f"mid_block.{where}.{_DIFFUSERS_RESNET.get(rest, rest)}"
    return path


def _diffusers_block(side: str, index: int, place: int, rest: str) -> str:
    if side == "input_blocks":
        number, item = divmod(index - 1, 3)
        if rest == "op":
            return f"down_blocks.{number}.downsamplers.0.conv"
        block = f"down_blocks.{number}"
    else:
        number, item = divmod(index, 3)
        if rest == "conv":
            return f"up_blocks.{number}.upsamplers.0.conv"
        block = f"up_blocks.{number}"
    kind = "attentions" if place == 1 else "resnets"
    return f"{block}.{kind}.{item}.{_DIFFUSERS_RESNET.get(rest, rest)}"


def _dotted(text: str) -> str:
    """`to_out_0` -> `to_out.0`: underscores that stand for dots, told from those inside names."""
    return ".".join(_WORDS.findall(text))
