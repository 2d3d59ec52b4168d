"""An adapter that we write does in diffusers what it does in our own sampling."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionPipeline
from PIL import Image

from lora_api.model_spec import Network
from lora_trainer.diffusion.noise import make_schedule
from lora_trainer.drawing import Painter
from lora_trainer.families import sd15
from lora_trainer.lora.formats import to_kohya, write_adapter
from lora_trainer.lora.inject import add_adapters
from lora_trainer.samples import Picture

PICTURES = [
    Picture("zwx red shape", "blue", width_px=64, height_px=64, steps=4, guidance=5.0, seed=11),
    Picture("a green cat", "", width_px=64, height_px=64, steps=4, guidance=2.5, seed=12),
    Picture("something wide", "", width_px=128, height_px=64, steps=3, guidance=7.0, seed=13),
]


def ours(base: Path, adapter: Path, *, alpha: float) -> list[Image.Image]:
    """Our pictures with a random adapter of rank 4, which is also written to `adapter`."""
    model = sd15.load(base, torch.device("cpu"), precision=torch.float32)
    adapters = add_adapters(model.unet, model.text_encoder, Network(rank=4, alpha=alpha), seed=0)
    random = torch.Generator().manual_seed(5)
    for layer in adapters.layers:
        layer.up.data.normal_(0.0, 0.2, generator=random)
    write_adapter(adapter, to_kohya(adapters.layers, torch.float32), {})
    betas = model.betas
    schedule = make_schedule(betas.start, betas.end, steps=betas.steps, name=betas.name)
    return Painter(model, schedule, nullcontext, lambda: None).draw(PICTURES)


def theirs(base: Path, adapter: Path | None) -> list[Image.Image]:
    """diffusers' pictures for the same prompts and seeds."""
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="linspace"
    )
    if adapter:
        pipeline.load_lora_weights(adapter.parent, weight_name=adapter.name)
    return [
        pipeline(
            picture.prompt,
            negative_prompt=picture.negative_prompt,
            width=picture.width_px,
            height=picture.height_px,
            num_inference_steps=picture.steps,
            guidance_scale=picture.guidance,
            generator=torch.Generator().manual_seed(picture.seed),
        ).images[0]
        for picture in PICTURES
    ]


def levels(images: list[Image.Image]) -> list[np.ndarray]:
    """Pixels as integers that can be subtracted."""
    return [np.asarray(image).astype(int) for image in images]


@pytest.mark.parametrize("alpha", [4.0, 1.5], ids=["alpha=rank", "alpha<rank"])
def test_diffusers_draws_the_same_pictures_with_our_adapter(tiny_pipeline: Path, tmp_path: Path, alpha: float) -> None:
    adapter = tmp_path / "adapter.safetensors"

    own, foreign = levels(ours(tiny_pipeline, adapter, alpha=alpha)), levels(theirs(tiny_pipeline, adapter))

    assert [image.shape for image in own] == [image.shape for image in foreign]
    assert max(int(abs(a - b).max()) for a, b in zip(own, foreign, strict=True)) <= 1


def test_the_adapter_matters_in_this_comparison(tiny_pipeline: Path, tmp_path: Path) -> None:
    own = levels(ours(tiny_pipeline, tmp_path / "adapter.safetensors", alpha=1.5))

    without = levels(theirs(tiny_pipeline, None))

    assert min(int(abs(a - b).max()) for a, b in zip(own, without, strict=True)) > 10
