"""Another VAE in place of a model's own (`spec.baseModel.vaeUri`): from a diffusers folder or a single file."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_api.model_spec import Family, Prediction
from lora_trainer.digests import join_digests, sha256_of
from lora_trainer.errors import BaseModelUnavailable
from lora_trainer.families.configurations import CONFIGS, Architecture
from lora_trainer.families.diffusers_folder import find_weights, load_folder
from lora_trainer.families.ldm_names import Origin
from lora_trainer.families.model_files import BetaSchedule, ModelFiles, ModelPart, TextPart
from lora_trainer.families.single_file import VAE, Locate, fill, locate_vae, read_header

if TYPE_CHECKING:
    import torch

_FIELD = "spec.baseModel.vaeUri"


@dataclass(frozen=True)
class WithVae:
    """The files of a model whose VAE is replaced; see `ModelFiles`."""

    files: ModelFiles
    vae: Path
    """A folder with a VAE or with a whole diffusers model, or a `.safetensors` file of either."""
    configs: Path = CONFIGS

    @property
    def family(self) -> Family:
        """That of the model."""
        return self.files.family

    @property
    def prediction(self) -> Prediction:
        """That of the model."""
        return self.files.prediction

    @property
    def digest(self) -> str:
        """SHA-256 over the model's files and the VAE's."""
        return join_digests(self.digests)

    @property
    def digests(self) -> Mapping[str, str]:
        """Those of the model, and of the replacing VAE as `vae` or `vae/<file>`."""
        return {**self.files.digests, **self._vae_digests}

    @property
    def vae_digest(self) -> str:
        """SHA-256 over the replacing VAE's files; that of its file, if it is one."""
        return self._vae_digests.get("vae") or join_digests(self._vae_digests)

    @cached_property
    def _vae_digests(self) -> dict[str, str]:
        if not self.vae.is_dir():
            return {"vae": sha256_of(self.vae)}
        weights = self._weights()
        return {f"vae/{path.name}": sha256_of(path) for path in (weights.with_name("config.json"), weights)}

    def load(self, part: ModelPart, model_class: Any, *, precision: "torch.dtype") -> Any:
        """A part; see `ModelFiles.load`."""
        if part != "vae":
            return self.files.load(part, model_class, precision=precision)
        if self.vae.is_dir():
            weights = self._weights()
            return load_folder(weights.parent, model_class, weights, precision=precision, name=f"{_FIELD}: vae")
        empty = Architecture(self.family, self.configs).build_empty("vae", model_class)
        return fill(empty, self.vae, self._locate(), precision=precision, name=f"{_FIELD}: vae")

    def load_tokenizer(self, encoder: TextPart, *, vocabulary: int) -> Any:
        """That of the model."""
        return self.files.load_tokenizer(encoder, vocabulary=vocabulary)

    def betas(self) -> BetaSchedule:
        """That of the model."""
        return self.files.betas()

    def _weights(self) -> Path:
        folder = self.vae / "vae" if (self.vae / "vae").is_dir() else self.vae
        weights = find_weights(folder, name=f"{_FIELD} holds no ")
        if not weights.with_name("config.json").is_file():
            raise BaseModelUnavailable(f"{_FIELD} holds no config.json beside {weights.name}")
        return weights

    def _locate(self) -> Locate:
        """Single files hold the VAE under diffusers' names, under LDM's, or as a part of a whole checkpoint."""
        header = read_header(self.vae, field=_FIELD)
        if header.has("decoder.up_blocks."):
            return Origin
        config = Architecture(self.family, self.configs).config("vae")
        return locate_vae(config, VAE if header.has(VAE) else "")
