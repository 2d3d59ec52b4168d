"""Stable Diffusion 1.x: one CLIP text encoder (OpenAI's ViT-L/14); used by `catalogue`."""

from typing import ClassVar

from transformers import CLIPTextModel

from lora_api.model_spec import Family
from lora_trainer.families.stable_diffusion import StableDiffusion


class StableDiffusion15(StableDiffusion):
    """A loaded Stable Diffusion 1.x model."""

    family: ClassVar[Family] = "sd15"
    encoder_classes = (CLIPTextModel,)
