"""Stable Diffusion pipelines with tiny random weights, written as diffusers folders.

`sd15` and `sd2` have the real topology; `sdxl` its three levels and two text encoders, with fewer transformer layers.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lora_api.model_spec import Family, Prediction

TEXT_WIDTH = 16
TEXT_LAYERS = 2
POOLED_WIDTH = 12
"""Width of the pooled state of the tiny SDXL."""
SIZE_WIDTH = 4
"""Sinusoids of each of the six sizes of the tiny SDXL."""
_CHANNELS = (8, 8, 16, 16)
_BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def write_tiny_pipeline(
    folder: Path, *, seed: int = 0, family: Family = "sd15", prediction: Prediction = "epsilon"
) -> Path:
    """Writes the pipeline into `folder`; random, but alive: prompts and timesteps change what it predicts."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = _sdxl(prediction) if family == "sdxl" else _sd1_or_2(family, prediction)
    pipeline.save_pretrained(folder)
    return folder


def _sd1_or_2(family: Family, prediction: Prediction) -> Any:
    tokenizer = _tokenizer(pads_with_zero=family == "sd2")
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        unet=_unet(use_linear_projection=family == "sd2"),
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1, prediction_type=prediction, **_BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(prediction: Prediction) -> Any:
    tokenizer, tokenizer_2 = _tokenizer(pads_with_zero=False), _tokenizer(pads_with_zero=True)
    return StableDiffusionXLPipeline(
        vae=_vae(scaling_factor=0.13025),
        text_encoder=CLIPTextModel(_text_config(tokenizer)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer_2, projection_dim=POOLED_WIDTH)).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=_sdxl_unet(),
        scheduler=DDIMScheduler(prediction_type=prediction, **_BETAS),
        add_watermarker=False,
    )


def _tokenizer(*, pads_with_zero: bool) -> CLIPTokenizer:
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    padding = {"pad_token": "!"} if pads_with_zero else {}
    return CLIPTokenizer(vocab=vocabulary, merges=[("r", "e"), ("re", "d</w>")], model_max_length=77, **padding)


def _text_config(tokenizer: CLIPTokenizer, **changes: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **changes,
    )


def _unet(**changes: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=_CHANNELS,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
        **changes,
    ).eval()


def _sdxl_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=2 * TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=SIZE_WIDTH,
        projection_class_embeddings_input_dim=POOLED_WIDTH + 6 * SIZE_WIDTH,
    ).eval()


def _vae(**changes: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=64,
        **changes,
    ).eval()
