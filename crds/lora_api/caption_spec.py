"""How captions are written for pictures that have none: `dataset.captions.generate`. Part of `dataset_spec`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from lora_api.base import ApiModel, Rule
from lora_api.fields import ReadUri, Text


class CaptionGenerator(ApiModel):
    """A model that describes pictures. The same picture, model and settings give the same words."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.minTokens) || !has(self.maxTokens) || self.minTokens <= self.maxTokens",
            message="minTokens must not be larger than maxTokens; swap or change them",
            holds=lambda m: m.min_tokens <= m.max_tokens,
        ),
    )

    model_uri: ReadUri
    """BLIP model for captioning: a transformers folder with safetensors."""
    trigger: Literal["FolderName", "None"] = "FolderName"
    """FolderName: the text of the picture's folder (or `classTokens`) and a comma stand before the description, unless
    it holds these words already. None: the description alone."""
    prefix: Text = ""
    """Text put before every generated caption, with a space between."""
    suffix: Text = ""
    """Text put after every generated caption, with a space between."""
    beams: Annotated[int, Field(ge=1, le=16)] = 3
    """Beams of the search; 1: the likeliest word each time."""
    min_tokens: Annotated[int, Field(ge=0, le=200)] = 5
    """Shortest description in tokens of the model."""
    max_tokens: Annotated[int, Field(ge=1, le=200)] = 50
    """Longest description in tokens of the model."""


_WANTED = (
    "((has(self.captions) && has(self.captions.missing) && self.captions.missing == 'Generate') || "
    "(has(self.subsets) && self.subsets.exists(s, has(s.captions) && has(s.captions.missing) && "
    "s.captions.missing == 'Generate')))"
)
_GIVEN = "(has(self.captions) && has(self.captions.generate))"


def wants_generator(dataset: Any) -> bool:
    """Whether pictures of a `Dataset`, or of one of its subsets, get generated captions."""
    own = (subset.captions.missing for subset in dataset.subsets if subset.captions is not None)
    return "Generate" in (dataset.captions.missing, *own)


GENERATION_RULES = (
    Rule(
        cel=f"!{_WANTED} || {_GIVEN}",
        message="captions.missing is Generate, but captions.generate does not say by which model; add "
        "generate.modelUri",
        holds=lambda m: not wants_generator(m) or m.captions.generate is not None,
    ),
    Rule(
        cel=f"!{_GIVEN} || {_WANTED}",
        message="captions.generate has no effect unless captions.missing is Generate; set it or remove generate",
        holds=lambda m: m.captions.generate is None or wants_generator(m),
    ),
)
"""Rules of `Dataset`."""
