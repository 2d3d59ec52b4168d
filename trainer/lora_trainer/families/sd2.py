"""Stable Diffusion 2.x: one OpenCLIP text encoder (ViT-H/14), predicts noise (512 px) or v (768 px).

Used by `catalogue`. Its text encoder is stored without the last layer, so that its ordinary output is what the
UNet was trained with.
"""

from typing import ClassVar

from transformers import CLIPTextModel

from lora_api.model_spec import Family
from lora_trainer.families.stable_diffusion import StableDiffusion


class StableDiffusion2(StableDiffusion):
    """A loaded Stable Diffusion 2.x model."""

    family: ClassVar[Family] = "sd2"
    encoder_classes = (CLIPTextModel,)
