"""Sample pictures as files: what to draw, PNGs with AUTOMATIC1111's `parameters` text, and the sheet of all epochs.

Used by `run`; how a picture is drawn is passed in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from lora_api.evaluation_spec import SamplePrompt
from lora_api.spec import LoraTrainingSpec

_MARGIN = 8
_LABEL_HEIGHT = 20
_PROMPT_WIDTH = 200
_MAX_CELL = 384
_MAX_COLUMNS = 16
_BACKGROUND = "white"
_INK = "black"


@dataclass(frozen=True)
class Picture:
    """One picture to draw, every default filled in."""

    prompt: str
    negative_prompt: str
    width_px: int
    height_px: int
    steps: int
    guidance: float
    seed: int

    def parameters(self, clip_skip: int) -> str:
        """The text under which AUTOMATIC1111 shows how a picture was made."""
        lines = [self.prompt]
        if self.negative_prompt:
            lines.append(f"Negative prompt: {self.negative_prompt}")
        settings = [
            f"Steps: {self.steps}",
            "Sampler: Euler a",
            f"CFG scale: {self.guidance:g}",
            f"Seed: {self.seed}",
            f"Size: {self.width_px}x{self.height_px}",
        ]
        if clip_skip > 1:
            settings.append(f"Clip skip: {clip_skip}")
        return "\n".join([*lines, ", ".join(settings)])


def pictures_of(spec: LoraTrainingSpec) -> tuple[Picture, ...]:
    """What `spec.samples.prompts` asks for: sizes and seeds filled in from the dataset and the training."""
    return tuple(_picture(prompt, spec, place) for place, prompt in enumerate(spec.samples.prompts))


def _picture(prompt: SamplePrompt, spec: LoraTrainingSpec, place: int) -> Picture:
    width, height = spec.dataset.size_px
    return Picture(
        prompt=prompt.prompt,
        negative_prompt=prompt.negative_prompt,
        width_px=prompt.width_px or width,
        height_px=prompt.height_px or height,
        steps=prompt.steps,
        guidance=prompt.guidance,
        seed=spec.training.seed + place if prompt.seed is None else prompt.seed,
    )


def picture_name(name: str, epoch: int, place: int) -> str:
    """File name of the picture of prompt `place` (from 0) after `epoch`."""
    return f"{name}-e{epoch:06d}-{place:02d}.png"


def write_picture(image: Image.Image, path: Path, parameters: str) -> None:
    """Writes a PNG that carries how it was made."""
    info = PngInfo()
    info.add_text("parameters", parameters)
    image.save(path, pnginfo=info)


def write_sheet(pictures: Sequence[Picture], columns: Mapping[int, Sequence[Path]], path: Path) -> None:
    """Writes the sheet: a row for each prompt, a column for each epoch in `columns`, both labelled.

    Of more than 16 epochs, 16 evenly spread ones are shown, the first and the last among them.

    Args:
        pictures: the prompts, one a row.
        columns: epoch -> files of its pictures in the order of the prompts; epoch 0 is the base model.
        path: where the PNG goes.
    """
    shown = _spread(sorted(columns))
    cells = [_cell_size(picture) for picture in pictures]
    cell_width = max(width for width, _ in cells)
    tops = _running_tops([height for _, height in cells])
    size = (_PROMPT_WIDTH + _MARGIN + len(shown) * (cell_width + _MARGIN), tops[-1])
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for row, picture in enumerate(pictures):
        draw.multiline_text((_MARGIN, tops[row]), _wrapped(picture, draw, font), fill=_INK, font=font)
    for column, epoch in enumerate(shown):
        left = _PROMPT_WIDTH + _MARGIN + column * (cell_width + _MARGIN)
        draw.text((left, _MARGIN), "base model" if epoch == 0 else f"epoch {epoch}", fill=_INK, font=font)
        for row, file in enumerate(columns[epoch]):
            with Image.open(file) as image:
                sheet.paste(image.convert("RGB").resize(cells[row], Image.Resampling.LANCZOS), (left, tops[row]))
    sheet.save(path)


def _spread(epochs: Sequence[int]) -> list[int]:
    """At most as many epochs as fit, evenly spread."""
    if len(epochs) <= _MAX_COLUMNS:
        return list(epochs)
    return [epochs[round(column * (len(epochs) - 1) / (_MAX_COLUMNS - 1))] for column in range(_MAX_COLUMNS)]


def _cell_size(picture: Picture) -> tuple[int, int]:
    """Size on the sheet: the picture's own, shrunk to the largest cell, and small ones doubled."""
    longest = max(picture.width_px, picture.height_px)
    factor = min(1.0, _MAX_CELL / longest) if longest > _MAX_CELL // 2 else 2.0 if longest < _MAX_CELL // 2 else 1.0
    return max(1, round(picture.width_px * factor)), max(1, round(picture.height_px * factor))


def _running_tops(heights: Sequence[int]) -> list[int]:
    """Top edge of each row, and below the last one the height of the sheet."""
    tops = [_MARGIN + _LABEL_HEIGHT]
    for height in heights:
        tops.append(tops[-1] + height + _MARGIN)
    return tops


def _wrapped(picture: Picture, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    lines = [""]
    for word in f"{picture.prompt} (seed {picture.seed})".split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font) > _PROMPT_WIDTH - _MARGIN:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
