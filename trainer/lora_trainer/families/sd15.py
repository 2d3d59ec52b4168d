"""Stable Diffusion 1.x: one CLIP text encoder, a UNet that predicts noise, and a VAE of 8 px per latent cell.

Loaded by `run`; its methods are passed to the data, the loop and the sampling.

The UNet and the text encoder are held in the training's precision, the VAE always in fp32: pictures are encoded
once, and SD 1.x VAEs overflow in fp16 on some pictures.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from lora_trainer.families.base import BetaSchedule

CHUNK_TOKENS = 75
"""Words that CLIP reads at once, between a start and an end token."""

FILES = (
    "model_index.json",
    "scheduler/*",
    "tokenizer/*",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder_2/config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
)
"""Patterns of the files that are worth fetching: what is loaded, and what tells the families apart."""

_CONFIGURATIONS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
)


@dataclass(frozen=True)
class StableDiffusion15:
    """A loaded Stable Diffusion 1.x model; see `families.base.BaseModel`."""

    unet: nn.Module
    text_encoder: Any
    vae: Any
    tokenizer: Any
    betas: BetaSchedule
    clip_skip: int
    max_tokens: int
    """75, 150 or 225 words of a caption are read."""

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
        layers = int(self.text_encoder.config.num_hidden_layers)
        return tuple(f"encoder.layers.{index}." for index in range(layers - self.clip_skip + 1, layers))

    def checkpoint_gradients(self) -> None:
        """Recomputes activations in the backward pass from now on; changes no number."""
        unet: Any = self.unet
        unet.enable_gradient_checkpointing()
        self.text_encoder.activation_checkpointing_enable()
        # transformers asks for training mode before it checkpoints; SD 1.x has no dropout that this could wake.
        self.text_encoder.train()

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids (B, chunks, 77); longer texts are cut at `max_tokens`, the layout is that of sd-scripts.

        For more than 75 tokens the text is tokenised once and cut into windows of 75, each between the start
        token and the last token of the whole (the end token).
        """
        encoded = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.max_tokens + 2, return_tensors="pt"
        )
        ids: Tensor = encoded.input_ids
        windows = ids[:, 1:-1].reshape(len(texts), -1, CHUNK_TOKENS)  # (B, chunks, 75)
        chunks = windows.shape[1]
        first = ids[:, :1, None].expand(-1, chunks, 1)
        last = ids[:, -1:, None].expand(-1, chunks, 1)
        return torch.cat([first, windows, last], dim=2)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, uncut, without start and end."""
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False).input_ids]

    def encode_texts(self, ids: Tensor) -> Tensor:
        """Text states (B, L, D) of token ids (B, chunks, 77), L = 75 chunks + 2.

        Clip skip k takes the k-th hidden state from the end and applies the final layer norm, as AUTOMATIC1111
        and sd-scripts do; k = 1 is the encoder's ordinary output. Of several chunks the first start state, the
        75 states of each and the last end state are kept.
        """
        batch, chunks, length = ids.shape
        encoder = self.text_encoder
        output = encoder(ids.reshape(batch * chunks, length), output_hidden_states=True)
        states: Tensor = encoder.final_layer_norm(output.hidden_states[-self.clip_skip])
        if chunks == 1:
            return states
        states = states.reshape(batch, chunks, length, -1)
        words = states[:, :, 1:-1].flatten(1, 2)  # (B, 75 chunks, D)
        return torch.cat([states[:, 0, :1], words, states[:, -1, -1:]], dim=1)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, h, w): the mean of the VAE's posterior, times its scaling factor, in fp32.

        The mean, not a draw: it is the same for every seed, batch and order, and sd-scripts freezes its one
        draw per picture in the cache anyway.
        """
        with torch.autocast(pixels.device.type, enabled=False):
            posterior = self.vae.encode(pixels.to(self.vae.device, torch.float32)).latent_dist
        latents: Tensor = posterior.mean * self.vae.config.scaling_factor
        return latents

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in -1..1 of latents (B, C, h, w), in fp32."""
        with torch.autocast(latents.device.type, enabled=False):
            pixels: Tensor = self.vae.decode(latents.float() / self.vae.config.scaling_factor).sample
        return pixels.clamp(-1, 1)

    def predict(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """The noise (B, C, h, w), in fp32, that the UNet sees in noisy latents (B, C, h, w) at timesteps (B,)."""
        prediction: Tensor = self.unet(latents, timesteps, encoder_hidden_states=states, return_dict=False)[0]
        return prediction.float()


def load(
    folder: Path, device: torch.device, *, precision: torch.dtype, clip_skip: int = 1, max_tokens: int = CHUNK_TOKENS
) -> StableDiffusion15:
    """The model of the diffusers folder `folder` on `device`, frozen, in evaluation mode.

    Raises:
        BaseModelUnavailable: a file is missing or cannot be read, or weights are missing in it.
    """
    unet = _load_part(UNet2DConditionModel, folder, "unet", precision)
    text_encoder = _load_part(CLIPTextModel, folder, "text_encoder", precision)
    vae = _load_part(AutoencoderKL, folder, "vae", torch.float32)
    for part in (unet, text_encoder, vae):
        part.to(device).eval().requires_grad_(False)
    layers = text_encoder.config.num_hidden_layers
    if clip_skip > layers:
        raise InvalidConfiguration(
            f"spec.baseModel.clipSkip is {clip_skip}, but the text encoder has only {layers} layers; lower it"
        )
    return StableDiffusion15(
        unet=unet,
        text_encoder=text_encoder,
        vae=vae,
        tokenizer=_load_tokenizer(folder, vocabulary=text_encoder.config.vocab_size),
        betas=_betas(folder),
        clip_skip=clip_skip,
        max_tokens=max_tokens,
    )


def _load_part(model_class: Any, folder: Path, part: str, dtype: torch.dtype) -> Any:
    variant = "fp16" if ".fp16." in _weights(folder, part).name else None
    options: dict[str, Any] = {"torch_dtype": dtype} if part != "text_encoder" else {"dtype": dtype}
    try:
        model, info = model_class.from_pretrained(
            folder / part,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BaseModelUnavailable(f"spec.baseModel.uri: {part} cannot be loaded: {_first_line(error)}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise BaseModelUnavailable(f"spec.baseModel.uri: {part} lacks {len(missing)} weights, such as {missing[0]}")
    return model


def _weights(folder: Path, part: str) -> Path:
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        if (folder / part / name).is_file():
            return folder / part / name
    raise BaseModelUnavailable(
        f"spec.baseModel.uri holds no {part}/{stem}.safetensors; pickled weights (.bin, .ckpt) are refused because "
        "they can run code, convert them to safetensors"
    )


def _load_tokenizer(folder: Path, *, vocabulary: int) -> Any:
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaseModelUnavailable(f"spec.baseModel.uri: tokenizer cannot be loaded: {_first_line(error)}") from error
    # transformers makes a tokenizer of a few tokens, without a word, when it misses the vocabulary's file.
    if len(tokenizer) != vocabulary:
        raise BaseModelUnavailable(
            f"spec.baseModel.uri: tokenizer has {len(tokenizer)} tokens, but the text encoder knows {vocabulary}"
        )
    return tokenizer


def _betas(folder: Path) -> BetaSchedule:
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    return BetaSchedule(
        start=float(config.get("beta_start", 0.00085)),
        end=float(config.get("beta_end", 0.012)),
        steps=int(config.get("num_train_timesteps", 1000)),
        name=str(config.get("beta_schedule", "scaled_linear")),
    )


def digest_of(folder: Path) -> str:
    """SHA-256 over every file that `load` reads, the same wherever the folder lies. Raises BaseModelUnavailable."""
    weights = [_weights(folder, part) for part in ("text_encoder", "unet", "vae")]
    tokenizer = [path for path in (folder / "tokenizer").glob("*") if path.is_file()]
    configurations = [folder / name for name in _CONFIGURATIONS]
    missing = [path for path in configurations if not path.is_file()]
    if missing:
        raise BaseModelUnavailable(f"spec.baseModel.uri holds no {missing[0].relative_to(folder).as_posix()}")
    files = sorted([*configurations, *weights, *tokenizer])
    lines = [f"{path.relative_to(folder).as_posix()} {_sha256(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
