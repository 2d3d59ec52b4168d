"""Trains the denoiser on cached latents, in one or more single-threaded processes. Used by `train`.

Noise prediction with min-SNR weights (Hang et al. 2023, https://arxiv.org/abs/2303.09556, gamma 5), AdamW, a
flat rate with a falling tail, and a moving average of the weights, which is what is published. Processes average
their gradients: on a busy machine two of them beat one with two threads, whose barriers stall.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import UNet2DConditionModel
from torch.nn import functional as fn

from lora_tinybase import model
from lora_tinybase.latents import LatentSet
from lora_tinybase.progress import Checkpoint

log = logging.getLogger(__name__)

SNR_CAP = 5.0
WARMUP = 150
SKIP_2_SHARE = 0.25  # of the batch is conditioned on the layer before the last, so that clip skip 2 works


@dataclass(frozen=True)
class Plan:
    """How long and how fast. `small_steps` of the `steps` see 64 px latents, four times cheaper."""

    steps: int
    small_steps: int
    batch: int = 16
    small_batch: int = 32
    peak_rate: float = 1e-3
    flat_share: float = 0.5
    last_rate: float = 0.03  # of the peak
    average: float = 0.998
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, flat, then linear down to `last_rate` of the peak."""
        done = step / self.steps
        tail = max(0.0, (done - self.flat_share) / (1 - self.flat_share))
        return self.peak_rate * min(1.0, (step + 1) / WARMUP) * (1 - tail * (1 - self.last_rate))


class MovingAverage:
    """Exponential moving average of parameters, with a shorter memory at the start."""

    def __init__(self, unet: UNet2DConditionModel, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in unet.named_parameters()}

    @torch.no_grad()
    def update(self, unet: UNet2DConditionModel, step: int) -> None:
        """Moves the average towards the present weights."""
        decay = min(self.decay, (step + 1) / (step + 10))
        present = [p for _, p in unet.named_parameters()]
        torch._foreach_lerp_(list(self.weights.values()), present, 1 - decay)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averaged weights, loadable into the UNet."""
        return self.weights

    def load_state_dict(self, weights: dict[str, torch.Tensor]) -> None:
        """Takes over saved averages."""
        self.weights = {name: weights[name].clone() for name in self.weights}


def min_snr_weight(alphas: torch.Tensor) -> torch.Tensor:
    """min(SNR, 5) / SNR for cumulative alphas [n]: the weight of the noise-prediction loss."""
    snr = alphas / (1 - alphas)
    return snr.clamp(max=SNR_CAP) / snr


def batches(data: LatentSet, plan: Plan, *, first: int, rank: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Noisy latents, timesteps, text states, noise and loss weights of each step, a function of seed and step."""
    alphas = model.alphas_cumprod()
    for step in range(first, plan.steps):
        generator = torch.Generator().manual_seed((plan.seed * 64 + rank) * 1_000_003 + step)
        small = step < plan.small_steps
        source, count = (data.small, plan.small_batch) if small else (data.large, plan.batch)
        picks = torch.randint(len(source), (count,), generator=generator)
        variant = torch.randint(data.states.shape[1], (count,), generator=generator)
        layer = (torch.rand(count, generator=generator) < SKIP_2_SHARE).long()
        t = torch.randint(len(alphas), (count,), generator=generator)
        clean = source[picks].float()
        noise = torch.randn(clean.shape, generator=generator)
        a = alphas[t][:, None, None, None]
        noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
        yield noisy, t, data.states[picks, variant, layer].float(), noise, min_snr_weight(alphas[t])


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Replaces each gradient by its mean over the processes, in one exchange."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


def train(rank: int, workers: int, plan: Plan, run: Path) -> None:
    """One process of the training: `run`/latents.pt in, `run`/unet-training.pt and, at the end, unet.pt out."""
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    meeting = f"file://{run.resolve()}/meeting-{workers}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)
    torch.manual_seed(plan.seed)
    unet = model.build_unet()
    average = MovingAverage(unet, plan.average)
    parameters = list(unet.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=plan.peak_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    state = {"model": unet, "optimizer": optimizer, "average": average}
    checkpoint = Checkpoint(run / "unet-training.pt")  # the first process alone reports, and so saves
    first = checkpoint.restore(state)
    dist.barrier()
    running = 0.0
    for step, batch in enumerate(batches(LatentSet.load(run / "latents.pt"), plan, first=first, rank=rank), first):
        noisy, t, states, noise, weight = batch
        error = fn.mse_loss(unet(noisy, t, states).sample, noise, reduction="none").mean((1, 2, 3))
        torch.autograd.backward((error * weight).mean())
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        average.update(unet, step)
        running = error.mean().item() if step == first else 0.98 * running + 0.02 * error.mean().item()
        if rank == 0:
            checkpoint.report(step + 1, plan.steps, state, error=running, rate=plan.rate(step))
    if rank == 0:
        torch.save(average.state_dict(), run / "unet.pt")
    dist.destroy_process_group()
