"""Trains the tiny base model from nothing: `python -m lora_tinybase.train --run DIR [--stage STAGE]`.

Stages, each seeded and resumable, each leaving one file in the run folder: `vae` (autoencoder), `text` (text
encoder), `latents` (pictures and captions through both), `unet` (denoiser). Then `python -m lora_tinybase.assemble`.
"""

import argparse
import logging
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from lora_tinybase import (
    assemble,
    autoencoder_training,
    drawings,
    latents,
    model,
    text_training,
    tokenizer,
    unet_training,
)
from lora_tinybase.progress import Checkpoint

log = logging.getLogger(__name__)

SEED = 20
VAE_STEPS = 2200
TEXT_STEPS = 500
SCENES = 6000
UNET_PLAN = unet_training.Plan(steps=3200, small_steps=1000, seed=SEED)


def train_vae(run: Path, workers: int) -> None:
    """Leaves vae.pt: the finished weights, scale folded in."""
    torch.manual_seed(SEED)
    vae = model.build_autoencoder()
    checkpoint = Checkpoint(run / "vae-training.pt")
    autoencoder_training.train(vae, checkpoint, steps=VAE_STEPS, seed=SEED)
    plain = autoencoder_training.to_tensor([drawings.render(s) for s in drawings.scenes(200, SEED + 1)])
    autoencoder_training.fold_scale(vae, plain)
    log.info("vae: %.1f dB on unseen drawings", autoencoder_training.psnr(vae, plain[:32]))
    torch.save(vae.state_dict(), run / "vae.pt")


def train_text(run: Path, workers: int) -> None:
    """Leaves text.pt: the finished weights."""
    torch.manual_seed(SEED)
    words = tokenizer.build()
    encoder = model.build_text_encoder(words.bos_token_id, words.eos_token_id)
    checkpoint = Checkpoint(run / "text-training.pt")
    text_training.train(encoder, words, steps=TEXT_STEPS, seed=SEED, checkpoint=checkpoint)
    torch.save(encoder.state_dict(), run / "text.pt")


def cache_latents(run: Path, workers: int) -> None:
    """Leaves latents.pt: what the denoiser is trained on."""
    vae, encoder = assemble.load_vae(run), assemble.load_text_encoder(run)
    latents.encode(vae, encoder, tokenizer.build(), count=SCENES, seed=SEED).save(run / "latents.pt")


def train_unet(run: Path, workers: int) -> None:
    """Leaves unet.pt: the averaged weights."""
    (run / f"meeting-{workers}").unlink(missing_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        runs = [pool.submit(unet_training.train, rank, workers, UNET_PLAN, run) for rank in range(workers)]
        for finished in runs:
            finished.result()


STAGES: dict[str, Callable[[Path, int], None]] = {
    "vae": train_vae,
    "text": train_text,
    "latents": cache_latents,
    "unet": train_unet,
}


def main() -> None:
    """Runs one stage, or all of them in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and finished stages")
    parser.add_argument("--stage", choices=[*STAGES], help="one stage only; without it all, in order")
    parser.add_argument("--workers", type=int, default=2, help="processes of the unet stage, one thread each")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.run.mkdir(parents=True, exist_ok=True)
    for stage in [options.stage] if options.stage else STAGES:
        STAGES[stage](options.run, options.workers)


if __name__ == "__main__":
    main()
