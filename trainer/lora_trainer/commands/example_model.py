"""A Stable Diffusion 1 pipeline so small that it is made up in a second. Used by `example`."""

import string
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 16
_CHANNELS = (8, 8, 16, 16)
_NORM_GROUPS = 4


def write_example_model(folder: Path, *, seed: int = 0) -> None:
    """Writes a diffusers folder with random weights: the topology of Stable Diffusion 1, a few channels wide."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = _build()
    pipeline.save_pretrained(folder)


def _build() -> StableDiffusionPipeline:
    tokenizer = _build_tokenizer()
    return StableDiffusionPipeline(
        vae=_build_vae(),
        text_encoder=_build_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=_build_unet(),
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _build_tokenizer() -> CLIPTokenizer:
    """One token a character, so that every caption can be read."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = [*characters, *(f"{one}</w>" for one in characters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: place for place, token in enumerate(tokens)}, merges=[], model_max_length=77)


def _build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _build_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=_CHANNELS,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=_NORM_GROUPS,
    )


def _build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * len(_CHANNELS),
        up_block_types=("UpDecoderBlock2D",) * len(_CHANNELS),
        latent_channels=4,
        norm_num_groups=_NORM_GROUPS,
        layers_per_block=1,
        sample_size=64,
    )
