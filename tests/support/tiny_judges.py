"""A CLIP and a DINOv2 of a few thousand random weights, in folders as transformers keeps them."""

from pathlib import Path

import torch
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)

_SIDE = 32
_LAYER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def write_tiny_clip(folder: Path) -> Path:
    """A CLIP that reads letters."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[])
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config={**_LAYER, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 77},
        vision_config={**_LAYER, "image_size": _SIDE, "patch_size": 16},
        projection_dim=12,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": _SIDE}, crop_size=_SIDE).save_pretrained(folder)
    return folder


def write_tiny_dino(folder: Path) -> Path:
    """A DINOv2; pictures of different colours are not alike."""
    config = Dinov2Config(**_LAYER, image_size=_SIDE, patch_size=16, mlp_ratio=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Dinov2Model(config).save_pretrained(folder)
    BitImageProcessorPil(size={"shortest_edge": _SIDE}, crop_size=_SIDE).save_pretrained(folder)
    return folder
