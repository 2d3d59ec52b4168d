"""A BLIP of a few thousand random weights in a folder as transformers keeps it, with a vocabulary of colours."""

from pathlib import Path

import torch
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("a", "red", "green", "blue", "dark", "bright", "shape", "man", "hat", "wall", "smiling", "big", "old")
_SIDE = 32


def write_tiny_blip(folder: Path, *, seed: int = 0) -> Path:
    """Writes the model; what it says of a picture has no meaning, but depends on the picture and on `seed`."""
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join((*_SPECIAL, *WORDS)) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    BlipImageProcessorPil(size={"height": _SIDE, "width": _SIDE}).save_pretrained(folder)
    model = BlipForConditionalGeneration(_config())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim > 1:
                parameter.normal_(0.0, 0.5, generator=generator)
        # Of the special tokens only the one that ends a text, so that every description has words.
        bias = model.text_decoder.cls.predictions.bias
        bias[: len(_SPECIAL)] = bias[-1] = -1e4
        bias[_SPECIAL.index("[SEP]")] = 2.0
    model.save_pretrained(folder)
    return folder


def _config() -> BlipConfig:
    tokens = len(_SPECIAL) + len(WORDS)
    layer = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BlipConfig(
        # The token that begins a description stands behind the vocabulary, as in the models of BLIP's authors.
        text_config={
            **layer,
            "encoder_hidden_size": 16,
            "vocab_size": tokens + 1,
            "bos_token_id": tokens,
            "eos_token_id": 2,
            "sep_token_id": 3,
            "pad_token_id": 0,
            "max_position_embeddings": 64,
        },
        vision_config={**layer, "image_size": _SIDE, "patch_size": 16},
        projection_dim=16,
    )
