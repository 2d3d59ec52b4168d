"""Reads base models that lie in a folder of the diffusers library: one sub-folder a part, each with its config."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from transformers import CLIPTokenizer

from lora_api.model_spec import Family, Prediction
from lora_trainer.digests import join_digests, sha256_of
from lora_trainer.errors import BaseModelUnavailable
from lora_trainer.families.model_files import BetaSchedule, ModelPart, TextPart, first_line

if TYPE_CHECKING:
    import torch

FILES = (
    "model_index.json",
    "scheduler/*",
    *(f"{part}/*" for part in ("tokenizer", "tokenizer_2")),
    *(
        f"{part}/{name}"
        for part in ("text_encoder", "text_encoder_2")
        for name in ("config.json", "model.safetensors", "model.fp16.safetensors")
    ),
    *(
        f"{part}/{name}"
        for part in ("unet", "vae")
        for name in (
            "config.json",
            "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model.fp16.safetensors",
        )
    ),
)
"""Patterns of the files that are worth fetching: what is loaded, and what tells the families apart."""

SCHEDULER = "scheduler/scheduler_config.json"


@dataclass(frozen=True)
class DiffusersFolder:
    """The files of a model in a diffusers folder; see `ModelFiles`."""

    folder: Path
    family: Family
    prediction: Prediction
    field: str = field(default="spec.baseModel.uri")
    """YAML path of what names the folder; begins every message."""

    @property
    def digest(self) -> str:
        """SHA-256 over every file that is loaded."""
        return join_digests(self.digests)

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of every file that is loaded, as `model/<path>`."""
        files = [self.folder / "model_index.json", self.folder / SCHEDULER, *self._part_files("unet")]
        for tokenizer, encoder in (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")):
            if encoder == "text_encoder" or self.family == "sdxl":
                files += [path for path in (self.folder / tokenizer).glob("*") if path.is_file()]
                files += self._part_files(encoder)
        return self._digests([*files, *self._part_files("vae")])

    @property
    def vae_digest(self) -> str:
        """SHA-256 over the VAE's files."""
        return join_digests({name: digest for name, digest in self.digests.items() if name.startswith("model/vae/")})

    def load(self, part: ModelPart, model_class: Any, *, precision: "torch.dtype") -> Any:
        """A part; see `ModelFiles.load`."""
        weights = self._weights(part)
        return load_folder(weights.parent, model_class, weights, precision=precision, name=f"{self.field}: {part}")

    def load_tokenizer(self, encoder: TextPart, *, vocabulary: int) -> Any:
        """The tokenizer of a text encoder; see `ModelFiles.load_tokenizer`."""
        name = encoder.replace("text_encoder", "tokenizer")
        if not (self.folder / name).is_dir():
            raise BaseModelUnavailable(f"{self.field} holds no {name}/; copy the whole model")
        try:
            tokenizer = CLIPTokenizer.from_pretrained(self.folder / name, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BaseModelUnavailable(f"{self.field}: {name} cannot be loaded: {first_line(error)}") from error
        # transformers makes a tokenizer of a few tokens, without a word, when it misses the vocabulary's file.
        if len(tokenizer) != vocabulary:
            raise BaseModelUnavailable(
                f"{self.field}: {name} has {len(tokenizer)} tokens, but the text encoder knows {vocabulary}"
            )
        return tokenizer

    def betas(self) -> BetaSchedule:
        """The noise schedule of the scheduler's configuration."""
        return betas_of(read_json(self.folder, SCHEDULER, field=self.field))

    def _part_files(self, part: str) -> list[Path]:
        return [self.folder / part / "config.json", self._weights(part)]

    def _weights(self, part: str) -> Path:
        return find_weights(self.folder / part, name=f"{self.field} holds no {part}/")

    def _digests(self, files: list[Path]) -> dict[str, str]:
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise BaseModelUnavailable(f"{self.field} holds no {missing[0].relative_to(self.folder).as_posix()}")
        return {f"model/{path.relative_to(self.folder).as_posix()}": sha256_of(path) for path in files}


def read_json(folder: Path, name: str, *, field: str) -> dict[str, Any]:
    """The object in the configuration file `name` of a diffusers folder. Raises BaseModelUnavailable."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BaseModelUnavailable(
            f"{field} holds no {name}, so it is no diffusers folder of a Stable Diffusion model"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BaseModelUnavailable(f"{field}: {name} is no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise BaseModelUnavailable(f"{field}: {name} holds no JSON object")
    return content


def prediction_of(name: Any, *, field: str) -> Prediction:
    """What a scheduler's configuration calls `prediction_type`, if it can be trained.

    Raises:
        BaseModelUnavailable: the model predicts something else.
    """
    if name == "epsilon":
        return "epsilon"
    if name == "v_prediction":
        return "v_prediction"
    raise BaseModelUnavailable(
        f"{field} holds a model that predicts {name}; use one that predicts epsilon or v_prediction"
    )


def find_weights(folder: Path, *, name: str) -> Path:
    """The weights in the folder of one part, in full or half precision; `name` begins the message if there are none.

    Raises:
        BaseModelUnavailable: there are none, or only pickled ones.
    """
    stem = "model" if folder.name.startswith("text_encoder") else "diffusion_pytorch_model"
    for file in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        if (folder / file).is_file():
            return folder / file
    raise BaseModelUnavailable(
        f"{name}{stem}.safetensors; pickled weights (.bin, .ckpt) are refused because they can run code, "
        "convert them to safetensors"
    )


def load_folder(folder: Path, model_class: Any, weights: Path, *, precision: "torch.dtype", name: str) -> Any:
    """The model in the folder of one part; `name` begins the messages.

    Raises:
        BaseModelUnavailable: the files cannot be read, or weights are missing in them.
    """
    # diffusers and transformers disagree about the name of this argument.
    dtype = "dtype" if weights.name.startswith("model.") else "torch_dtype"
    try:
        model, info = model_class.from_pretrained(
            folder,
            variant="fp16" if ".fp16." in weights.name else None,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **{dtype: precision},
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BaseModelUnavailable(f"{name} cannot be loaded: {first_line(error)}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise BaseModelUnavailable(f"{name} lacks {len(missing)} weights, such as {missing[0]}")
    return model


def betas_of(scheduler: dict[str, Any]) -> BetaSchedule:
    """The noise schedule of a scheduler's configuration."""
    return BetaSchedule(
        start=float(scheduler.get("beta_start", 0.00085)),
        end=float(scheduler.get("beta_end", 0.012)),
        steps=int(scheduler.get("num_train_timesteps", 1000)),
        name=str(scheduler.get("beta_schedule", "scaled_linear")),
    )
