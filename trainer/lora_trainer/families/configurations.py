"""The configurations of the families at their real sizes, which ship with the package.

Used by `single_file`, whose files hold no configuration, and by `architectures`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_api.model_spec import Family
from lora_trainer.families.diffusers_folder import betas_of, read_json
from lora_trainer.families.model_files import BetaSchedule, ModelPart, TextPart
from lora_trainer.families.vocabulary import END, clip_tokenizer

CONFIGS = Path(__file__).parent / "configs"
"""A folder for each family, laid out as a diffusers folder without weights and tokenizers."""

_PADS_WITH_ZERO = (("sd2", "text_encoder"), ("sdxl", "text_encoder_2"))


@dataclass(frozen=True)
class Architecture:
    """The configuration of a family's parts."""

    family: Family
    configs: Path = CONFIGS

    def config(self, part: ModelPart) -> dict[str, Any]:
        """Configuration of a part, as diffusers and transformers name its fields."""
        return self._read(f"{part}/config.json")

    def build(self, part: ModelPart, model_class: Any) -> Any:
        """A part with freshly drawn weights, on torch's current default device."""
        config = self.config(part)
        if part in ("unet", "vae"):
            return model_class.from_config(config)
        # Here, as below: it imports torch, which takes ten seconds, and what only looks at a model does without.
        from transformers import CLIPTextConfig  # noqa: PLC0415

        return model_class(CLIPTextConfig(**config))

    def build_empty(self, part: ModelPart, model_class: Any) -> Any:
        """A part without weights, which are to be assigned."""
        from accelerate import init_empty_weights  # noqa: PLC0415

        with init_empty_weights():
            return self.build(part, model_class)

    def tokenizer(self, encoder: TextPart) -> Any:
        """The tokenizer of a text encoder."""
        return clip_tokenizer("!" if (self.family, encoder) in _PADS_WITH_ZERO else END)

    def betas(self) -> BetaSchedule:
        """The noise schedule."""
        return betas_of(self._read("scheduler/scheduler_config.json"))

    def _read(self, name: str) -> dict[str, Any]:
        return read_json(self.configs / self.family, name, field="the package")
