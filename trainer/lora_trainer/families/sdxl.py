"""Stable Diffusion XL: two text encoders (OpenAI's ViT-L/14 and OpenCLIP's ViT-bigG/14), and size conditions.

Used by `catalogue`. Paper: Podell et al. 2023, SDXL, https://arxiv.org/abs/2307.01952.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from lora_api.model_spec import Family
from lora_trainer.conditioning import TextStates, Tokens
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.families.clip import Join
from lora_trainer.families.stable_diffusion import StableDiffusion

_LAYER = 2
"""Counted from the end: the hidden state that both encoders give, without the final norm."""


class StableDiffusionXL(StableDiffusion):
    """A loaded Stable Diffusion XL model."""

    family: ClassVar[Family] = "sdxl"
    encoder_classes = (CLIPTextModel, CLIPTextModelWithProjection)

    @property
    def unused_text_layers(self) -> tuple[str, ...]:
        """The last layer of the first encoder; the second one's makes the pooled state."""
        first = self.texts[0]
        return (f"text_encoder.{first.layer_prefix(first.layers - 1)}",)

    def encode_prompts(self, tokens: Tokens, *, clip_skip: int, negative: bool = False) -> TextStates:
        """Text states of prompts' tokens; of empty negative ones zeros, as the WebUI and diffusers take them."""
        text = super().encode_prompts(tokens, clip_skip=clip_skip, negative=negative)
        if not negative:
            return text
        assert text.pooled is not None
        has_words = tokens.ids[:, 0, 0, 1] != self.texts[0].tokenizer.eos_token_id
        kept = has_words.to(text.states.device, text.states.dtype)
        return TextStates(text.states * kept[:, None, None], text.pooled * kept[:, None])

    def check_clip_skip(self, clip_skip: int, *, field: str) -> None:
        """Raises InvalidConfiguration when `field` asks for another hidden state than SDXL always reads."""
        if clip_skip != 1:
            raise InvalidConfiguration(
                f"{field} is {clip_skip}, but sdxl always reads the last layer but one, whatever it says; remove it"
            )

    def _encode(self, tokens: Tokens, clip_skip: int, join: Join) -> TextStates:
        """States of both encoders side by side (B, L, D1 + D2), and the pooled state (B, P) of the second.

        Weights of tokens act on the states only, and clip skip on nothing.
        """
        first, second = self.texts
        tokens = tokens.to(first.encoder.device)
        ids = tokens.ids
        weights = (None, None) if tokens.weights is None else (tokens.weights[:, 0], tokens.weights[:, 1])
        one, _ = first.encode(ids[:, 0], weights[0], layer=_LAYER, normed=False, join=join)
        two, last = second.encode(ids[:, 1], weights[1], layer=_LAYER, normed=False, join=join)
        return TextStates(torch.cat([one, two], dim=-1), second.pool(last, ids[:, 1]))

    def _added_conditions(self, text: TextStates, sizes: Tensor) -> dict[str, Any]:
        """The pooled state, and six sizes in px that the UNet turns into sinusoids of 256 dimensions each."""
        return {"added_cond_kwargs": {"text_embeds": text.pooled, "time_ids": sizes}}
