"""How well drawn pictures fit their prompts, and how like the training pictures they are; used by `evaluate`.

CLIP-T is the cosine between the embeddings of a picture and its prompt (Radford et al. 2021,
https://arxiv.org/abs/2103.00020; as a score: https://arxiv.org/abs/2104.08718); likeness is the cosine between the
class tokens of a DINO model, as in https://arxiv.org/abs/2208.12242. A picture whose nearest training picture is
almost itself was learnt by heart. Told only: at few pictures these numbers rank no epochs.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BitImageProcessorPil, CLIPImageProcessorPil, CLIPModel

from lora_trainer.errors import InvalidConfiguration

FILES = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
"""What is worth fetching of a model; weights in other formats than safetensors are never read."""
_AT_ONCE = 8
_DINO_KINDS = ("dinov2", "dinov2_with_registers")
_DIGITS = 5


@dataclass(frozen=True)
class ModelFolder:
    """A transformers folder on this machine."""

    path: Path
    field: str
    """Where its URI stands; begins the messages."""


@dataclass(frozen=True)
class DrawnPicture:
    """A picture that is judged."""

    path: str
    """Its place in the output."""
    epoch: int
    prompt: str
    file: Path


@dataclass(frozen=True)
class TrainingPicture:
    """A picture that was trained on."""

    key: str
    """Its name in the dataset."""
    read: Callable[[], Image.Image]
    """Gives it in RGB."""


@dataclass(frozen=True)
class ClipJudge:
    """A loaded CLIP."""

    model: Any
    tokenizer: Any
    processor: Any
    device: torch.device

    @torch.no_grad()
    def fit(self, image: Image.Image, prompt: str) -> float:
        """Cosine between the embeddings of a picture and its prompt, -1 to 1. What exceeds 77 tokens is cut off."""
        length = self.model.config.text_config.max_position_embeddings
        words = self.tokenizer(prompt, truncation=True, max_length=length, return_tensors="pt").to(self.device)
        pixels = self.processor(image, return_tensors="pt")["pixel_values"].to(self.device)
        found = self.model(pixel_values=pixels, **words)
        return float(torch.cosine_similarity(found.image_embeds, found.text_embeds))


@dataclass(frozen=True)
class DinoJudge:
    """A loaded DINO."""

    model: Any
    processor: Any
    device: torch.device

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """(N, D) class tokens of length 1, on the CPU."""
        pixels = torch.cat([self.processor(image, return_tensors="pt")["pixel_values"] for image in images])
        tokens = self.model(pixel_values=pixels.to(self.device)).last_hidden_state[:, 0]
        return torch.nn.functional.normalize(tokens.float(), dim=1).cpu()


def load_clip(folder: ModelFolder, device: torch.device) -> ClipJudge:
    """The CLIP in a folder, on `device`. Raises InvalidConfiguration: there is none, or it cannot be read."""
    _check_kind(folder, ("clip",))
    with _reading(folder.field):
        model = CLIPModel.from_pretrained(folder.path, use_safetensors=True, local_files_only=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
        processor = CLIPImageProcessorPil.from_pretrained(folder.path, local_files_only=True)
    return ClipJudge(model.eval().to(device), tokenizer, processor, device)


def load_dino(folder: ModelFolder, device: torch.device) -> DinoJudge:
    """The DINOv2 in a folder, on `device`. Raises InvalidConfiguration: there is none, or it cannot be read."""
    _check_kind(folder, _DINO_KINDS)
    with _reading(folder.field):
        options = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
        model = AutoModel.from_pretrained(folder.path, dtype=torch.float32, **options)
        processor = BitImageProcessorPil.from_pretrained(folder.path, local_files_only=True)
    return DinoJudge(model.eval().to(device), processor, device)


def measure(
    drawn: Sequence[DrawnPicture],
    training: Sequence[TrainingPicture],
    *,
    clip: ClipJudge | None,
    dino: DinoJudge | None,
    on_picture: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """What `evaluation/similarity.json` holds: `pictures`, each with its numbers, and their means as `epochs`.

    A number is None where its model is not given. `on_picture` is called before each picture and may raise to stop.
    """
    known = None if dino is None or not training else _embeddings(training, dino, on_picture)
    pictures = []
    for picture in drawn:
        on_picture()
        with Image.open(picture.file) as opened:
            image = opened.convert("RGB")
        text = None if clip is None else round(clip.fit(image, picture.prompt), _DIGITS)
        likeness = _likeness(image, training, known, dino)
        told = {"path": picture.path, "epoch": picture.epoch, "prompt": picture.prompt, "clipText": text}
        pictures.append(told | likeness)
    return {"pictures": pictures, "epochs": _means(pictures)}


def _embeddings(training: Sequence[TrainingPicture], dino: DinoJudge, on_picture: Callable[[], None]) -> Tensor:
    """(N, D), a few pictures at a time."""
    found = []
    for start in range(0, len(training), _AT_ONCE):
        on_picture()
        found.append(dino.embed([picture.read() for picture in training[start : start + _AT_ONCE]]))
    return torch.cat(found)


def _likeness(
    image: Image.Image, training: Sequence[TrainingPicture], known: Tensor | None, dino: DinoJudge | None
) -> dict[str, Any]:
    if dino is None or known is None:
        return {"dinoMean": None, "dinoNearest": None, "nearest": None}
    cosines = known @ dino.embed([image])[0]
    nearest = int(cosines.argmax())
    return {
        "dinoMean": round(float(cosines.mean()), _DIGITS),
        "dinoNearest": round(float(cosines[nearest]), _DIGITS),
        "nearest": training[nearest].key,
    }


def _means(pictures: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    by_epoch: dict[int, list[Mapping[str, Any]]] = {}
    for picture in pictures:
        by_epoch.setdefault(picture["epoch"], []).append(picture)
    names = ("clipText", "dinoMean", "dinoNearest")
    return [
        {"epoch": epoch} | {name: _mean([picture[name] for picture in members]) for name in names}
        for epoch, members in sorted(by_epoch.items())
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return round(sum(found) / len(found), _DIGITS) if found else None


def _check_kind(folder: ModelFolder, kinds: Sequence[str]) -> None:
    field = folder.field
    try:
        kind = json.loads((folder.path / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        message = f"{field} holds no config.json that can be read: {error}; name a model's folder"
        raise InvalidConfiguration(message) from error
    if kind not in kinds:
        wanted = " or ".join(kinds)
        raise InvalidConfiguration(f"{field} holds a model of the kind {kind}, but {wanted} is needed; correct it")
    if not (folder.path / "model.safetensors").is_file():
        raise InvalidConfiguration(f"{field} holds no model.safetensors; other formats can run code, convert them")


@contextmanager
def _reading(field: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise InvalidConfiguration(f"{field} cannot be loaded: {line}; copy the whole model anew") from error
