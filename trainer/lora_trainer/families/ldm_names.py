"""Which tensor of an LDM checkpoint (the single files of AUTOMATIC1111) a weight of diffusers or transformers is.

Used by `single_file`. The names are those of https://github.com/CompVis/latent-diffusion and
https://github.com/mlfoundations/open_clip, the order of blocks follows from the two U-Nets' construction: diffusers
counts levels and layers, LDM counts blocks from the input on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_RESNET = (
    ("norm1.", "in_layers.0."),
    ("conv1.", "in_layers.2."),
    ("time_emb_proj.", "emb_layers.1."),
    ("norm2.", "out_layers.0."),
    ("conv2.", "out_layers.3."),
    ("conv_shortcut.", "skip_connection."),
)
_UNET_ENDS = (
    ("conv_in.", "input_blocks.0.0."),
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("add_embedding.linear_1.", "label_emb.0.0."),
    ("add_embedding.linear_2.", "label_emb.0.2."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
    ("mid_block.resnets.0.", "middle_block.0."),
    ("mid_block.attentions.0.", "middle_block.1."),
    ("mid_block.resnets.1.", "middle_block.2."),
)
_VAE = (
    ("mid_block.resnets.0.", "mid.block_1."),
    ("mid_block.resnets.1.", "mid.block_2."),
    ("mid_block.attentions.0.group_norm.", "mid.attn_1.norm."),
    ("mid_block.attentions.0.to_q.", "mid.attn_1.q."),
    ("mid_block.attentions.0.to_k.", "mid.attn_1.k."),
    ("mid_block.attentions.0.to_v.", "mid.attn_1.v."),
    ("mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out."),
    ("conv_norm_out.", "norm_out."),
    ("resnets.", "block."),
    ("downsamplers.0.", "downsample."),
    ("upsamplers.0.", "upsample."),
    ("conv_shortcut.", "nin_shortcut."),
    ("down_blocks.", "down."),
)
_OPEN_CLIP = (
    ("embeddings.token_embedding.", "token_embedding."),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
    ("self_attn.out_proj.", "attn.out_proj."),
    ("final_layer_norm.", "ln_final."),
    ("text_projection.weight", "text_projection"),
)
_BLOCK = re.compile(r"(?P<side>down|up)_blocks\.(?P<level>\d+)\.(?P<kind>\w+)\.(?P<layer>\d+)\.(?P<rest>.+)")
_QKV = re.compile(r"(?P<layer>.+)self_attn\.(?P<which>[qkv])_proj\.(?P<kind>weight|bias)")


@dataclass(frozen=True)
class Origin:
    """The tensor in the file that holds a weight."""

    name: str
    third: int | None = None
    """Which third of its rows is meant; None: all of it."""
    transposed: bool = False


def unet_origin(name: str, *, layers: int, up_with_attention: Sequence[bool]) -> Origin:
    """Where a weight of the UNet is, without `model.diffusion_model.`.

    Args:
        name: its name in diffusers.
        layers: residual blocks of one level on the way down; one more on the way up.
        up_with_attention: which levels on the way up have attention.
    """
    block = _BLOCK.fullmatch(name)
    if block is None:
        return Origin(_replaced(_replaced(name, _UNET_ENDS), _RESNET if ".resnets." in name else ()))
    level, layer, kind, rest = int(block["level"]), int(block["layer"]), block["kind"], block["rest"]
    first = level * (layers + 1)
    match block["side"], kind:
        case "down", "downsamplers":
            return Origin(f"input_blocks.{first + layers + 1}.0.{rest.replace('conv.', 'op.')}")
        case "up", "upsamplers":
            return Origin(f"output_blocks.{first + layers}.{2 if up_with_attention[level] else 1}.{rest}")
    place = f"input_blocks.{first + 1 + layer}" if block["side"] == "down" else f"output_blocks.{first + layer}"
    return Origin(f"{place}.1.{rest}" if kind == "attentions" else f"{place}.0.{_replaced(rest, _RESNET)}")


def vae_origin(name: str, *, levels: int) -> Origin:
    """Where a weight of the VAE is, without `first_stage_model.`; LDM counts the decoder's levels backwards."""
    renamed = re.sub(r"up_blocks\.(\d+)\.", lambda match: f"up.{levels - 1 - int(match[1])}.", name)
    return Origin(_replaced(renamed, _VAE))


def open_clip_origin(name: str) -> Origin:
    """Where a weight of an OpenCLIP text encoder is, without its prefix; query, key and value lie in one tensor."""
    name = name.removeprefix("text_model.")
    joined = _QKV.fullmatch(name)
    if joined is not None:
        layer = _replaced(joined["layer"], _OPEN_CLIP)
        return Origin(f"{layer}attn.in_proj_{joined['kind']}", third="qkv".index(joined["which"]))
    return Origin(_replaced(name, _OPEN_CLIP), transposed=name == "text_projection.weight")


def _replaced(name: str, renamings: Sequence[tuple[str, str]]) -> str:
    """The name with each part that is listed renamed; parts begin at a dot or at the start."""
    for old, new in renamings:
        name = re.sub(rf"(^|\.){re.escape(old)}", rf"\g<1>{new}", name, count=1)
    return name
