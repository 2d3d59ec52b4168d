"""Describes pictures with BLIP (Li et al. 2022, arXiv:2201.12086). Used by `generated_captions` and `caption_files`.

Always in full precision, and by beam search without any chance: what a picture shows decides its words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import BertTokenizer, BlipForConditionalGeneration, BlipImageProcessorPil

from lora_trainer.captioning.model_files import HINT, check_files
from lora_trainer.captioning.search import Search
from lora_trainer.errors import BaseModelUnavailable


@dataclass(frozen=True)
class Captioner:
    """A loaded BLIP."""

    model: Any
    tokenizer: Any
    processor: Any
    device: torch.device

    @torch.no_grad()
    def describe(self, images: Sequence[Image.Image], search: Search) -> list[str]:
        """What each of the RGB pictures shows, in words; empty where the model has none. At least one picture."""
        # Resized and normalised one by one: the processor would otherwise hold all of them at full size at once.
        pixels = torch.cat([self._pixels(image) for image in images])
        found = self.model.generate(
            pixels.to(self.device),
            do_sample=False,
            num_beams=search.beams,
            min_new_tokens=search.min_tokens,
            max_new_tokens=search.max_tokens,
            early_stopping=search.beams > 1,
        )
        # The first token only says that a description begins; it stands in no vocabulary.
        texts = self.tokenizer.batch_decode(found[:, 1:], skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        return cast("torch.Tensor", self.processor(image, return_tensors="pt")["pixel_values"])


def load_captioner(folder: Path, device: torch.device, *, field: str) -> Captioner:
    """The model in a transformers folder, on `device`; `field` begins the messages.

    Raises:
        BaseModelUnavailable: files are missing, cannot be read, or are those of another kind of model.
    """
    check_files(folder, field=field)
    try:
        model, info = BlipForConditionalGeneration.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
        tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
        processor = BlipImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise BaseModelUnavailable(f"{field} cannot be loaded: {_first_line(error)}", hint=HINT) from error
    _check(model, info, tokenizer, field)
    return Captioner(model.eval().to(device), tokenizer, processor, device)


def _check(model: Any, info: dict[str, Any], tokenizer: Any, field: str) -> None:
    missing = sorted(info["missing_keys"])
    if missing:
        raise BaseModelUnavailable(f"{field} lacks {len(missing)} weights, such as {missing[0]}", hint=HINT)
    text = model.config.text_config
    if len(tokenizer) > text.vocab_size or tokenizer.sep_token_id != text.sep_token_id:
        raise BaseModelUnavailable(
            f"{field}: the tokenizer has {len(tokenizer)} tokens and ends texts by {tokenizer.sep_token_id}, but the "
            f"model knows {text.vocab_size} and ends them by {text.sep_token_id}; copy the whole model anew",
            hint=HINT,
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
