"""What all Stable Diffusion families have in common: a UNet, CLIP text encoders, a VAE. Used by the families' modules.

UNet and text encoders are held in the training's precision, the VAE always in fp32: pictures are encoded once, and
the VAEs of SD 1.x and above all of SDXL overflow in fp16.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from lora_api.model_spec import Family, Prediction
from lora_trainer.conditioning import Part, TextStates, Tokens
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.families.clip import (
    CHUNK_TOKENS,
    ClipText,
    Join,
    Reading,
    caption_states,
    prompt_states,
    tokenize_for,
)
from lora_trainer.families.model_files import BetaSchedule, ModelFiles, TextPart

_TEXT_PARTS: tuple[TextPart, ...] = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class StableDiffusion:
    """A loaded model with one text encoder, of which the state that clip skip selects is normed; see `BaseModel`."""

    family: ClassVar[Family]
    encoder_classes: ClassVar[tuple[Any, ...]]
    """Class of each text encoder."""

    unet: Any
    texts: tuple[ClipText, ...]
    vae: Any
    betas: BetaSchedule
    prediction: Prediction
    reading: Reading

    @classmethod
    def load(
        cls,
        files: ModelFiles,
        device: torch.device,
        *,
        precision: torch.dtype,
        reading: Reading = Reading(),  # noqa: B008 - it is frozen
    ) -> Self:
        """The model of `files` on `device`, frozen, in evaluation mode.

        Raises:
            BaseModelUnavailable: a file is missing or cannot be read, or weights are missing in it.
            InvalidConfiguration: clip skip goes beyond the text encoder's layers.
        """
        model = cls(
            unet=files.load("unet", UNet2DConditionModel, precision=precision),
            texts=tuple(
                _load_text(files, part, encoder_class, precision)
                for part, encoder_class in zip(_TEXT_PARTS, cls.encoder_classes, strict=False)
            ),
            vae=files.load("vae", AutoencoderKL, precision=torch.float32),
            betas=files.betas(),
            prediction=files.prediction,
            reading=reading,
        )
        model.check_clip_skip(reading.clip_skip, field="spec.baseModel.clipSkip")
        for part in (*model.parts.values(), model.vae):
            part.to(device).eval().requires_grad_(False)
        return model

    @property
    def parts(self) -> Mapping[Part, nn.Module]:
        """UNet and text encoders by name."""
        encoders: dict[Part, nn.Module] = {
            part: text.encoder for part, text in zip(_TEXT_PARTS, self.texts, strict=False)
        }
        return {"unet": self.unet, **encoders}

    @property
    def latent_channels(self) -> int:
        """Channels C of a latent."""
        return int(self.vae.config.latent_channels)

    @property
    def pixels_per_latent(self) -> int:
        """Pixels along one side of a latent cell."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def unused_text_layers(self) -> tuple[str, ...]:
        """Prefixes of the text-encoder layers above the hidden state that clip skip selects."""
        text = self.texts[0]
        unused = range(text.layers - self.reading.clip_skip + 1, text.layers)
        return tuple(f"text_encoder.{text.layer_prefix(index)}" for index in unused)

    def checkpoint_gradients(self) -> None:
        """Recomputes activations in the backward pass from now on; changes no number."""
        self.unet.enable_gradient_checkpointing()
        for text in self.texts:
            text.encoder.activation_checkpointing_enable()
            # transformers asks for training mode before it checkpoints; CLIP has no dropout that this could wake.
            text.encoder.train()

    def use_xformers(self) -> None:
        """Uses xformers' attention in the UNet from now on. Raises RuntimeError that says why it cannot."""
        if self.unet.device.type != "cuda":
            raise RuntimeError("xformers needs an NVIDIA GPU")
        try:
            self.unet.enable_xformers_memory_efficient_attention()
        except (ImportError, ValueError, NotImplementedError) as error:
            raise RuntimeError(f"xformers cannot be used: {error}") from error

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids (B, E, chunks, 77) of `texts` on the CPU, cut at `max_tokens`."""
        return tokenize_for(texts, self.texts, self.reading)

    def tokenize_prompt(self, prompt: str) -> Tokens:
        """Token ids (1, E, chunks, 77) of a whole prompt on the CPU, emphasis read, as the WebUI reads it."""
        longest = max(text.count_tokens([prompt], weighted=True)[0] for text in self.texts)
        chunks = max(1, -(-longest // CHUNK_TOKENS))
        return tokenize_for(
            [prompt], self.texts, replace(self.reading, max_tokens=chunks * CHUNK_TOKENS, weighted=True)
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, uncut, without start and end; of two tokenizers the larger number."""
        counts = [text.count_tokens(texts, weighted=self.reading.weighted) for text in self.texts]
        return [max(each) for each in zip(*counts, strict=True)]

    def encode_texts(self, tokens: Tokens) -> TextStates:
        """Text states of tokens.

        Clip skip k takes the k-th hidden state from the end and applies the final layer norm, as AUTOMATIC1111
        and sd-scripts do; k = 1 is the encoder's ordinary output.
        """
        return self._encode(tokens, self.reading.clip_skip, caption_states)

    def encode_prompts(self, tokens: Tokens, *, clip_skip: int, negative: bool = False) -> TextStates:
        """Text states of prompts' tokens, as the WebUI makes them at a clip skip."""
        return self._encode(tokens, clip_skip, prompt_states)

    def check_clip_skip(self, clip_skip: int, *, field: str) -> None:
        """Raises InvalidConfiguration when `field` asks for a hidden state that the text encoder does not have."""
        if clip_skip > self.texts[0].layers:
            raise InvalidConfiguration(
                f"{field} is {clip_skip}, but the text encoder has only {self.texts[0].layers} layers; lower it"
            )

    def _encode(self, tokens: Tokens, clip_skip: int, join: Join) -> TextStates:
        tokens = tokens.to(self.texts[0].encoder.device)
        weights = None if tokens.weights is None else tokens.weights[:, 0]
        states, _ = self.texts[0].encode(tokens.ids[:, 0], weights, layer=clip_skip, normed=True, join=join)
        return TextStates(states)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, h, w): the mean of the VAE's posterior, times its scaling factor, in fp32.

        The mean, not a draw: it is the same for every seed, batch and order, and sd-scripts freezes its one
        draw per picture in the cache anyway.
        """
        with torch.autocast(self.vae.device.type, enabled=False):
            posterior = self.vae.encode(pixels.to(self.vae.device, torch.float32)).latent_dist
        latents: Tensor = posterior.mean * self.vae.config.scaling_factor
        return latents

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in -1..1 of latents (B, C, h, w), in fp32."""
        with torch.autocast(self.vae.device.type, enabled=False):
            latents = latents.to(self.vae.device, torch.float32) / self.vae.config.scaling_factor
            pixels: Tensor = self.vae.decode(latents).sample
        return pixels.clamp(-1, 1)

    def predict(self, latents: Tensor, timesteps: Tensor, text: TextStates, sizes: Tensor) -> Tensor:
        """Noise or v (B, C, h, w), in fp32, that the UNet sees in noisy latents (B, C, h, w) at timesteps (B,)."""
        prediction: Tensor = self.unet(
            latents,
            timesteps,
            encoder_hidden_states=text.states,
            return_dict=False,
            **self._added_conditions(text, sizes),
        )[0]
        return prediction.float()

    def _added_conditions(self, text: TextStates, sizes: Tensor) -> dict[str, Any]:
        """Further arguments of the UNet: none."""
        return {}

    def place(self, *parts: Part | str, device: torch.device) -> None:
        """Moves parts (`unet`, `text_encoder`, `text_encoder_2`, `vae`) to a device."""
        modules: dict[str, nn.Module] = {str(name): module for name, module in self.parts.items()} | {"vae": self.vae}
        for part in parts:
            modules[part].to(device)


def _load_text(files: ModelFiles, part: TextPart, encoder_class: Any, precision: torch.dtype) -> ClipText:
    encoder = files.load(part, encoder_class, precision=precision)
    return ClipText(encoder, files.load_tokenizer(part, vocabulary=encoder.config.vocab_size))
