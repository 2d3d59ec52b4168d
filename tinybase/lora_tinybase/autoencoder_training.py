"""Trains the autoencoder on drawings and wild pictures, then gives its latents unit spread. Used by `train`."""

import logging

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as fn

from lora_tinybase import drawings
from lora_tinybase.model import LATENT_SCALE
from lora_tinybase.progress import Checkpoint, set_cosine_rate

log = logging.getLogger(__name__)

PEAK_RATE = 1e-3
KL_WEIGHT = 3e-4  # per latent element: keeps the posterior wide enough that small errors decode to clean pictures


def to_tensor(pictures: list[drawings.Pixels]) -> torch.Tensor:
    """uint8 [height, width, 3] pictures as float32 [n, 3, height, width] in -1..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def picture_pool(count: int, seed: int) -> torch.Tensor:
    """Half drawings, half wild pictures: uint8 [count, 3, 128, 128]."""
    rng = np.random.default_rng(seed)
    plain = [drawings.render(scene) for scene in drawings.scenes(count // 2, seed)]
    pictures = plain + [drawings.wild(rng) for _ in range(count - len(plain))]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def crops(pool: torch.Tensor, generator: torch.Generator, *, batch: int, side: int) -> torch.Tensor:
    """`batch` random square crops of the pool, float32 [batch, 3, side, side] in -1..1."""
    picks = torch.randint(len(pool), (batch,), generator=generator).tolist()
    corners = torch.randint(pool.shape[-1] - side + 1, (batch, 2), generator=generator).tolist()
    cut = [pool[i, :, y : y + side, x : x + side] for i, (y, x) in zip(picks, corners, strict=True)]
    return torch.stack(cut).float() / 127.5 - 1


def reconstruction_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean square + half mean absolute + half absolute difference of the edges, over [n, 3, h, w]."""
    edges = sum(fn.l1_loss(made.diff(dim=dim), wanted.diff(dim=dim)) for dim in (-1, -2))
    return fn.mse_loss(made, wanted) + 0.5 * fn.l1_loss(made, wanted) + 0.5 * edges


def train(vae: AutoencoderKL, checkpoint: Checkpoint, *, steps: int, seed: int) -> None:
    """Trains in place for `steps`: three quarters on 32 px crops, then on 64 px; cosine rate. Resumes."""
    pool = picture_pool(3000, seed)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, weight_decay=0.0, fused=True)
    state = {"model": vae, "optimizer": optimizer}
    for step in range(checkpoint.restore(state), steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        late = step > 0.75 * steps
        pictures = crops(pool, generator, batch=8 if late else 16, side=64 if late else 32)
        posterior = vae.encode(pictures).latent_dist
        made = vae.decode(posterior.sample(generator)).sample
        loss = reconstruction_loss(made, pictures) + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        set_cosine_rate(optimizer, step, steps=steps, peak=PEAK_RATE)
        optimizer.step()
        optimizer.zero_grad()
        checkpoint.report(step + 1, steps, state, loss=loss.item())


@torch.no_grad()
def fold_scale(vae: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Shifts and scales the latents so that, times 0.18215, each channel has mean 0 and spread 1.

    The change is folded into quant_conv and post_quant_conv, so pictures in and out stay the same.
    """
    latents = vae.encode(pictures).latent_dist.mean
    mean = latents.mean(dim=(0, 2, 3))
    factor = 1 / (LATENT_SCALE * latents.std(dim=(0, 2, 3)))
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight /= factor[None, :, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) * factor
    quant.weight[:4] *= factor[:, None, None, None]
    quant.bias[4:] += 2 * factor.log()  # log-variance scales with the square


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of the round trip in dB (peak 2), over all pictures."""
    made = vae.decode(vae.encode(pictures).latent_dist.mean).sample
    return float(10 * torch.log10(4 / fn.mse_loss(made, pictures)))
