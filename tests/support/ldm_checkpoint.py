"""Writes a diffusers folder as one file under LDM's names, by walking LDM's constructors block by block."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_api.model_spec import Family

Weights = dict[str, Tensor]

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "middle_block.1": "mid_block.attentions.0",
}
_VAE_RESNET = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "conv_shortcut"}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


@dataclass(frozen=True)
class Checkpoint:
    """The same model twice: as a folder and as one file."""

    family: Family
    folder: Path
    file: Path
    configs: Path
    """Holds the folder under the family's name."""


def write_ldm_checkpoint(folder: Path, file: Path, family: Family) -> Path:
    """Writes the weights of the model in `folder` into `file`."""
    clip, open_clip = _text_prefixes(family)
    weights = {
        **_prefixed("model.diffusion_model.", unet_weights(folder)),
        **_prefixed("first_stage_model.", vae_weights(folder)),
    }
    if clip:
        weights |= _prefixed(f"{clip}text_model.", _part(folder, "text_encoder", "model"))
        weights[f"{clip}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    if open_clip:
        part = "text_encoder" if family == "sd2" else "text_encoder_2"
        weights |= _prefixed(open_clip, open_clip_weights(_part(folder, part, "model")))
    save_file(weights, file)
    return file


def unet_weights(folder: Path) -> Weights:
    """The UNet's weights under LDM's names."""
    weights = _part(folder, "unet", "diffusion_pytorch_model")
    return _renamed(weights, dict(unet_modules(_config(folder, "unet"), weights)))


def vae_weights(folder: Path) -> Weights:
    """The VAE's weights under LDM's names, its attention as 1x1 convolutions."""
    weights = _part(folder, "vae", "diffusion_pytorch_model")
    renamed = _renamed(weights, dict(_vae_modules(_config(folder, "vae"))))
    for name in renamed:
        if ".attn_1." in name and name.endswith("weight") and ".norm." not in name:
            renamed[name] = renamed[name][:, :, None, None].contiguous()
    return renamed


def open_clip_weights(weights: Weights) -> Weights:
    """A text encoder's weights under OpenCLIP's names."""
    source = {name.removeprefix("text_model."): tensor for name, tensor in weights.items()}
    made = {
        "token_embedding.weight": source["embeddings.token_embedding.weight"],
        "positional_embedding": source["embeddings.position_embedding.weight"],
        "ln_final.weight": source["final_layer_norm.weight"],
        "ln_final.bias": source["final_layer_norm.bias"],
    }
    width = len(made["ln_final.bias"])
    projection = source.get("text_projection.weight", torch.eye(width))
    made["text_projection"] = projection.T.contiguous()
    made["logit_scale"] = torch.tensor(4.6)
    layer = 0
    while f"encoder.layers.{layer}.mlp.fc1.weight" in source:
        old, new = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            thirds = [source[f"{old}.self_attn.{which}_proj.{kind}"] for which in "qkv"]
            made[f"{new}.attn.in_proj_{kind}"] = torch.cat(thirds)
            made[f"{new}.attn.out_proj.{kind}"] = source[f"{old}.self_attn.out_proj.{kind}"]
            made[f"{new}.ln_1.{kind}"] = source[f"{old}.layer_norm1.{kind}"]
            made[f"{new}.ln_2.{kind}"] = source[f"{old}.layer_norm2.{kind}"]
            made[f"{new}.mlp.c_fc.{kind}"] = source[f"{old}.mlp.fc1.{kind}"]
            made[f"{new}.mlp.c_proj.{kind}"] = source[f"{old}.mlp.fc2.{kind}"]
        layer += 1
    return made


def unet_modules(config: dict[str, Any], weights: Weights) -> Iterator[tuple[str, str]]:
    """LDM's name and diffusers' name of each module."""
    yield from _UNET_ENDS.items()
    yield from _joined("middle_block.0", "mid_block.resnets.0", _RESNET)
    yield from _joined("middle_block.2", "mid_block.resnets.1", _RESNET)
    levels, layers = len(config["block_out_channels"]), int(config["layers_per_block"])
    number = 0
    for level in range(levels):
        for layer in range(layers):
            number += 1
            yield from _joined(f"input_blocks.{number}.0", f"down_blocks.{level}.resnets.{layer}", _RESNET)
            yield f"input_blocks.{number}.1", f"down_blocks.{level}.attentions.{layer}"
        if level < levels - 1:
            number += 1
            yield f"input_blocks.{number}.0.op", f"down_blocks.{level}.downsamplers.0.conv"
    number = 0
    for level in range(levels):
        has_attention = any(name.startswith(f"up_blocks.{level}.attentions.") for name in weights)
        for layer in range(layers + 1):
            yield from _joined(f"output_blocks.{number}.0", f"up_blocks.{level}.resnets.{layer}", _RESNET)
            yield f"output_blocks.{number}.1", f"up_blocks.{level}.attentions.{layer}"
            if layer == layers and level < levels - 1:
                place = 2 if has_attention else 1
                yield f"output_blocks.{number}.{place}.conv", f"up_blocks.{level}.upsamplers.0.conv"
            number += 1


def _vae_modules(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    levels, layers = len(config["block_out_channels"]), int(config["layers_per_block"])
    yield from (("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv"))
    for side in ("encoder", "decoder"):
        yield from ((f"{side}.conv_in", f"{side}.conv_in"), (f"{side}.conv_out", f"{side}.conv_out"))
        yield f"{side}.norm_out", f"{side}.conv_norm_out"
        yield from _joined(f"{side}.mid.block_1", f"{side}.mid_block.resnets.0", _VAE_RESNET)
        yield from _joined(f"{side}.mid.block_2", f"{side}.mid_block.resnets.1", _VAE_RESNET)
        yield from _joined(f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0", _VAE_ATTENTION)
    for level in range(levels):
        for layer in range(layers):
            place = f"encoder.down.{level}.block.{layer}"
            yield from _joined(place, f"encoder.down_blocks.{level}.resnets.{layer}", _VAE_RESNET)
        yield f"encoder.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv"
        for layer in range(layers + 1):
            place = f"decoder.up.{levels - 1 - level}.block.{layer}"
            yield from _joined(place, f"decoder.up_blocks.{level}.resnets.{layer}", _VAE_RESNET)
        yield f"decoder.up.{levels - 1 - level}.upsample.conv", f"decoder.up_blocks.{level}.upsamplers.0.conv"


def _joined(new: str, old: str, parts: dict[str, str]) -> Iterator[tuple[str, str]]:
    return ((f"{new}.{new_part}", f"{old}.{old_part}") for new_part, old_part in parts.items())


def _renamed(weights: Weights, modules: dict[str, str]) -> Weights:
    """Every weight under the name of its module; fails if one is left over."""
    made = {
        f"{new}{name.removeprefix(old)}": tensor
        for new, old in modules.items()
        for name, tensor in weights.items()
        if name.startswith(f"{old}.")
    }
    assert len(made) == len(weights)
    return made


def _text_prefixes(family: Family) -> tuple[str, str]:
    """Where CLIP's and OpenCLIP's weights are."""
    match family:
        case "sd15":
            return "cond_stage_model.transformer.", ""
        case "sd2":
            return "", "cond_stage_model.model."
    return "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."


def _part(folder: Path, part: str, stem: str) -> Weights:
    weights: Weights = load_file(folder / part / f"{stem}.safetensors")
    return weights


def _config(folder: Path, part: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / part / "config.json").read_text())
    return config


def _prefixed(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}
