"""Writes the finished parts as a diffusers folder in half precision: `python -m lora_tinybase.assemble`."""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from lora_tinybase import model, tokenizer


def load_vae(run: Path) -> AutoencoderKL:
    """The trained autoencoder of a run folder, float32."""
    vae = model.build_autoencoder()
    vae.load_state_dict(torch.load(run / "vae.pt", weights_only=True))
    return vae.eval()


def load_text_encoder(run: Path) -> CLIPTextModel:
    """The trained text encoder of a run folder, float32."""
    words = tokenizer.build()
    encoder = model.build_text_encoder(words.bos_token_id, words.eos_token_id)
    encoder.load_state_dict(torch.load(run / "text.pt", weights_only=True))
    return encoder.eval()


def load_unet(file: Path) -> UNet2DConditionModel:
    """The denoiser of unet.pt, or the averaged one of a training checkpoint, float32."""
    unet = model.build_unet()
    saved = torch.load(file, weights_only=True)
    unet.load_state_dict(saved.get("average", saved))
    return unet.eval()


def pipeline(run: Path, unet: str = "unet.pt") -> StableDiffusionPipeline:
    """The pipeline of a run folder's vae.pt, text.pt and unet.pt, in float32."""
    return StableDiffusionPipeline(
        vae=load_vae(run),
        text_encoder=load_text_encoder(run),
        tokenizer=tokenizer.build(),
        unet=load_unet(run / unet),
        scheduler=model.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Writes the folder with SD 1.x's file names, tokenizer files and text encoder keys, in float16."""
    pipe.to(dtype=torch.float16)
    pipe.save_pretrained(folder)
    _restore_text_keys(folder / "text_encoder" / "model.safetensors")
    for stale in (folder / "tokenizer").iterdir():
        stale.unlink()
    tokenizer.save(folder / "tokenizer")


def _restore_text_keys(path: Path) -> None:
    """transformers from 5.6 on drops the `text_model.` that every SD 1.x file has before its keys."""
    weights = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})


def main() -> None:
    """Assembles one run folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder with vae.pt, text.pt and unet.pt")
    parser.add_argument("--unet", default="unet.pt", help="file with the denoiser; a training checkpoint will do")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()
    save(pipeline(options.run, options.unet), options.out)


if __name__ == "__main__":
    main()
