"""Our sampling draws what diffusers draws, and an adapter that we write does there what it does here."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, EulerAncestralDiscreteScheduler
from PIL import Image

from lora_api.model_spec import Network
from lora_trainer.diffusion.noise import make_schedule, rescale_zero_terminal
from lora_trainer.drawing import Painter
from lora_trainer.families import catalogue
from lora_trainer.families.base import BaseModel
from lora_trainer.lora.formats import to_kohya, write_adapter
from lora_trainer.lora.inject import add_adapters
from lora_trainer.samples import Picture

PICTURES = [
    Picture("zwx red shape", "blue", width_px=64, height_px=64, steps=4, guidance=5.0, seed=11),
    Picture("a green cat", "", width_px=64, height_px=64, steps=4, guidance=2.5, seed=12),
    Picture("something wide", "", width_px=128, height_px=64, steps=3, guidance=7.0, seed=13),
]


def load(base: Path) -> BaseModel:
    return catalogue.load(base, torch.device("cpu"), precision=torch.float32)


def painted(model: BaseModel, *, zero_terminal: bool = False) -> list[Image.Image]:
    """Our pictures."""
    betas = model.betas
    schedule = make_schedule(betas.start, betas.end, steps=betas.steps, name=betas.name)
    if zero_terminal:
        schedule = rescale_zero_terminal(schedule)
    return Painter(model, schedule, nullcontext, lambda: None).draw(PICTURES, None)


def painted_with_adapter(base: Path, adapter: Path, *, alpha: float) -> list[Image.Image]:
    """Our pictures with a random adapter of rank 4, which is also written to `adapter`."""
    model = load(base)
    adapters = add_adapters(model.parts, Network(rank=4, alpha=alpha), family=model.family, seed=0)
    random = torch.Generator().manual_seed(5)
    for layer in adapters.layers:
        layer.tensors()["lora_up.weight"].data.normal_(0.0, 0.2, generator=random)
    write_adapter(adapter, to_kohya(adapters.layers, torch.float32, model.family), {})
    return painted(model)


def theirs(base: Path, adapter: Path | None = None, *, zero_terminal: bool = False) -> list[Image.Image]:
    """diffusers' pictures for the same prompts and seeds."""
    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="linspace", rescale_betas_zero_snr=zero_terminal
    )
    if adapter:
        pipeline.load_lora_weights(adapter.parent, weight_name=adapter.name)
    return [
        pipeline(
            picture.prompt,
            # Of SDXL an empty one is zeros, as in the WebUI; diffusers encodes "" and takes zeros for None.
            negative_prompt=picture.negative_prompt or None,
            width=picture.width_px,
            height=picture.height_px,
            num_inference_steps=picture.steps,
            guidance_scale=picture.guidance,
            generator=torch.Generator().manual_seed(picture.seed),
        ).images[0]
        for picture in PICTURES
    ]


def largest_difference(own: list[Image.Image], foreign: list[Image.Image]) -> int:
    """In levels of 0 to 255."""
    assert [image.size for image in own] == [image.size for image in foreign]
    return max(int(abs(a - b).max()) for a, b in zip(levels(own), levels(foreign), strict=True))


def levels(images: list[Image.Image]) -> list[np.ndarray]:
    """Pixels as integers that can be subtracted."""
    return [np.asarray(image).astype(int) for image in images]


@pytest.mark.parametrize("alpha", [4.0, 1.5], ids=["alpha=rank", "alpha<rank"])
def test_diffusers_draws_the_same_pictures_with_our_adapter(tiny_pipeline: Path, tmp_path: Path, alpha: float) -> None:
    adapter = tmp_path / "adapter.safetensors"

    own, foreign = painted_with_adapter(tiny_pipeline, adapter, alpha=alpha), theirs(tiny_pipeline, adapter)

    assert largest_difference(own, foreign) <= 1


def test_the_adapter_matters_in_this_comparison(tiny_pipeline: Path, tmp_path: Path) -> None:
    own = painted_with_adapter(tiny_pipeline, tmp_path / "adapter.safetensors", alpha=1.5)

    without = levels(theirs(tiny_pipeline))

    assert min(int(abs(a - b).max()) for a, b in zip(levels(own), without, strict=True)) > 10


@pytest.mark.parametrize("zero_terminal", [False, True])
def test_diffusers_draws_the_same_pictures_with_a_v_prediction_model(tiny_sd2: Path, zero_terminal: bool) -> None:
    own = painted(load(tiny_sd2), zero_terminal=zero_terminal)

    assert largest_difference(own, theirs(tiny_sd2, zero_terminal=zero_terminal)) <= 1


def test_diffusers_draws_the_same_pictures_with_sdxl(tiny_sdxl: Path) -> None:
    own = painted(load(tiny_sdxl))

    assert largest_difference(own, theirs(tiny_sdxl)) <= 1
