"""The parts of the tiny base model: Stable Diffusion 1.x with only widths and vocabulary shrunk. Used by the stages.

Depths, block types, heads of the config files and module names are those of
https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5, so key maps and block weights are the real ones.
"""

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

LATENT_SCALE = 0.18215  # SD 1.x; trainers hard-code it, so the latents are made to fit it
TEXT_WIDTH = 96


def build_unet() -> UNet2DConditionModel:
    """Four levels, two layers per block, 16 transformer blocks; latents [n, 4, 16, 16] for 128 px."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH,
        # SD 1.x says 8, and means the number of heads. Here 8 heads would be 4 channels wide.
        attention_head_dim=2,
        norm_num_groups=8,
        down_block_types=(
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "DownBlock2D",
        ),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )


def build_text_encoder(start_id: int, end_id: int) -> CLIPTextModel:
    """Twelve layers, twelve heads, 77 positions. The end mark is the last id of the vocabulary and pads."""
    config = CLIPTextConfig(
        vocab_size=end_id + 1,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=12,
        num_attention_heads=12,
        hidden_act="quick_gelu",
        bos_token_id=start_id,
        eos_token_id=end_id,
        pad_token_id=end_id,
    )
    return CLIPTextModel(config)


def build_autoencoder() -> AutoencoderKL:
    """Four levels, two layers per block, 8 times smaller latents of 4 channels; starts as a downscaler."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=2,
        norm_num_groups=2,
        sample_size=128,
        scaling_factor=LATENT_SCALE,
    )
    _start_as_identity(vae)
    return vae


def build_scheduler() -> PNDMScheduler:
    """SD 1.x's noise schedule (epsilon prediction, 1000 steps) and default sampler."""
    return PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )


def alphas_cumprod() -> torch.Tensor:
    """The schedule's cumulative products of (1 - beta), float32 [1000]."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


@torch.no_grad()
def _start_as_identity(vae: AutoencoderKL) -> None:
    """Lets colours pass straight through at the start: residuals zero, samplers average, convolutions copy.

    From the usual random start a VAE this narrow sits on a plateau for a thousand steps.
    """
    for name, module in vae.named_modules():
        if name.endswith((".conv2", ".to_out.0")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif name.endswith("downsamplers.0.conv"):
            _copy_channels(module, taps=((0, 0), (0, 1), (1, 0), (1, 1)))
        elif name.endswith(("upsamplers.0.conv", "conv_in")):
            _copy_channels(module, taps=((1, 1),))
        elif name.endswith(("conv_shortcut", "quant_conv")):
            _copy_channels(module, taps=((0, 0),))
    spread = vae.encoder.conv_out
    spread.weight[4:] = 0
    spread.bias[4:] = -5  # log-variance: nearly deterministic latents to begin with


def _copy_channels(conv: nn.Conv2d, taps: tuple[tuple[int, int], ...]) -> None:
    """Output channel i = mean over the taps of input channel i; channels without a twin stay random."""
    shared = min(conv.in_channels, conv.out_channels)
    conv.weight[:shared] = 0
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    for i in range(shared):
        for row, column in taps:
            conv.weight[i, i, row, column] = 1 / len(taps)
