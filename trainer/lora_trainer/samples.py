"""Sample pictures as files: what to draw, PNGs with AUTOMATIC1111's `parameters` text, and the sheet of all of them.

Used by `gallery` and for the grid; how a picture is drawn is passed in.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from lora_api.evaluation_spec import SamplePrompt, Sampler
from lora_api.spec import LoraTrainingSpec

_MARGIN = 8
_LABEL_HEIGHT = 20
_PROMPT_WIDTH = 200
_MAX_CELL = 384
_MAX_COLUMNS = 16
_BACKGROUND = "white"
_INK = "black"

WEB_UI_SAMPLERS: Mapping[Sampler, tuple[str, str]] = {
    "euler_a": ("Euler a", "Automatic"),
    "euler": ("Euler", "Automatic"),
    "ddim": ("DDIM", "Automatic"),
    "dpmpp_2m": ("DPM++ 2M", "Uniform"),
    "dpmpp_2m_karras": ("DPM++ 2M", "Karras"),
    "unipc": ("UniPC", "Automatic"),
}
"""Name and schedule type of each sampler in the WebUI, whose "Automatic" is Karras for DPM++ 2M."""
SAMPLER_NAMES: Mapping[Sampler, str] = {
    sampler: f"{name} Karras" if schedule == "Karras" else name for sampler, (name, schedule) in WEB_UI_SAMPLERS.items()
}
"""What people call each sampler."""


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
    sampler: Sampler = "euler_a"
    clip_skip: int = 1
    weight: float = 1.0
    """Strength of the adapter."""

    def parameters(self, *, model: str, lora: str | None = None) -> str:
        """The text under which AUTOMATIC1111's WebUI keeps how a picture was made.

        "RNG: CPU" makes the WebUI take the noise that ours begins with.

        Args:
            model: name of the base model.
            lora: the whole tag of the adapter, as `lora_tag` gives it; None: none took part.
        """
        sampler, schedule = WEB_UI_SAMPLERS[self.sampler]
        settings: dict[str, object] = {
            "Steps": self.steps,
            "Sampler": sampler,
            "Schedule type": schedule,
            "CFG scale": f"{self.guidance:g}",
            "Seed": self.seed,
            "Size": f"{self.width_px}x{self.height_px}",
            "Model": _quoted(model),
        }
        if self.clip_skip > 1:
            settings["Clip skip"] = self.clip_skip
        settings["RNG"] = "CPU"
        prompt = self.prompt if lora is None else f"{self.prompt} {lora}"
        negative = [f"Negative prompt: {self.negative_prompt}"] if self.negative_prompt else []
        return "\n".join([prompt, *negative, ", ".join(f"{name}: {value}" for name, value in settings.items())])


def lora_tag(name: str, weight: float) -> str:
    """What the WebUI's prompt says of an adapter: the name of its file, without the extension, and its strength."""
    return f"<lora:{name}:{weight:g}>"


def model_name(base: str) -> str:
    """The name under which the WebUI shows a base model: that of its file without the extension, or of its folder."""
    return PurePosixPath(base).name.removesuffix(".safetensors")


def _quoted(text: str) -> str:
    """As the WebUI quotes a value that its own syntax would tear apart."""
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text


def pictures_of(spec: LoraTrainingSpec) -> tuple[Picture, ...]:
    """What `spec.samples.prompts` asks for: defaults filled in from the dataset, the model and the training."""
    return tuple(picture_of(prompt, spec, place) for place, prompt in enumerate(spec.samples.prompts))


def picture_of(prompt: SamplePrompt, spec: LoraTrainingSpec, place: int = 0) -> Picture:
    """The picture of a prompt that stands at `place` of its list."""
    width, height = spec.dataset.size_px
    return Picture(
        prompt=prompt.prompt,
        negative_prompt=prompt.negative_prompt,
        width_px=prompt.width_px or width,
        height_px=prompt.height_px or height,
        steps=prompt.steps,
        guidance=prompt.guidance,
        seed=spec.training.seed + place if prompt.seed is None else prompt.seed,
        sampler=prompt.sampler,
        clip_skip=prompt.clip_skip or spec.base_model.clip_skip,
        weight=prompt.weight,
    )


@dataclass(frozen=True)
class Moment:
    """When pictures are drawn: after an epoch, or after a step within one."""

    step: int
    """Steps made by then."""
    epoch: int | None = None
    """The epoch that ended there; 0 is before the first step; None: none that pictures are drawn after."""

    @property
    def label(self) -> str:
        """What the sheet says above its pictures."""
        if self.epoch is None:
            return f"step {self.step}"
        return f"epoch {self.epoch}" if self.epoch else "base model"

    def adapter_name(self, name: str) -> str:
        """Name of the adapter as it is then, of a run whose output is called `name`; as its file, where it has one."""
        return f"{name}-s{self.step:06d}" if self.epoch is None else f"{name}-{self.epoch:06d}"

    def picture_name(self, name: str, place: int) -> str:
        """File name of the picture of prompt `place` (from 0)."""
        when = f"s{self.step:06d}" if self.epoch is None else f"e{self.epoch:06d}"
        return f"{name}-{when}-{place:02d}.png"


def write_picture(image: Image.Image, path: Path, parameters: str, **texts: str) -> None:
    """Writes a PNG that carries how it was made, and further texts under their names."""
    info = PngInfo()
    for name, text in {"parameters": parameters, **texts}.items():
        info.add_text(name, text)
    image.save(path, pnginfo=info)


def write_sheet(pictures: Sequence[Picture], columns: Mapping[Moment, Sequence[Path]], path: Path) -> None:
    """Writes the sheet: a row for each prompt, a column for each moment in `columns`, both labelled.

    Of more than 16 columns those of steps within epochs are left out; of more than 16 epochs, 16 evenly spread ones
    are shown, the first and the last among them.

    Args:
        pictures: the prompts, one a row.
        columns: moment -> files of its pictures in the order of the prompts.
        path: where the PNG goes.
    """
    shown = _shown(sorted(columns, key=lambda moment: moment.step))
    cells = [_cell_size(picture) for picture in pictures]
    cell_width = max(width for width, _ in cells)
    font = ImageFont.load_default(12)
    texts = [_wrapped(picture, font) for picture in pictures]
    heights = [max(height, _height(text, font)) for (_, height), text in zip(cells, texts, strict=True)]
    tops = _running_tops(heights)
    size = (_PROMPT_WIDTH + _MARGIN + len(shown) * (cell_width + _MARGIN), tops[-1])
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for top, text in zip(tops, texts, strict=False):
        draw.multiline_text((_MARGIN, top), text, fill=_INK, font=font)
    for column, moment in enumerate(shown):
        left = _PROMPT_WIDTH + _MARGIN + column * (cell_width + _MARGIN)
        draw.text((left, _MARGIN), moment.label, fill=_INK, font=font)
        for row, file in enumerate(columns[moment]):
            with Image.open(file) as image:
                sheet.paste(image.convert("RGB").resize(cells[row], Image.Resampling.LANCZOS), (left, tops[row]))
    sheet.save(path)


def _shown(moments: Sequence[Moment]) -> list[Moment]:
    """As many as fit."""
    if len(moments) <= _MAX_COLUMNS:
        return list(moments)
    epochs = [moment for moment in moments if moment.epoch is not None]
    if len(epochs) <= _MAX_COLUMNS:
        return epochs
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


def _height(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    """Height of some lines in px."""
    lines = ImageDraw.Draw(Image.new("1", (1, 1)))
    return round(lines.multiline_textbbox((0, 0), text, font=font)[3])


def _wrapped(picture: Picture, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The prompt and what tells the picture from others of the same prompt, in lines that fit beside it."""
    lines = [""]
    for word in f"{picture.prompt} ({_told(picture)})".split():
        for part in _parts(word, font):
            longer = f"{lines[-1]} {part}".strip()
            if lines[-1] and font.getlength(longer) > _PROMPT_WIDTH - _MARGIN:
                lines.append(part)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def _parts(word: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Iterator[str]:
    """A word, or if it does not fit into a line, such as tags without blanks between them, parts that do."""
    while font.getlength(word) > _PROMPT_WIDTH - _MARGIN:
        fitting = max(n for n in range(1, len(word)) if n == 1 or font.getlength(word[:n]) <= _PROMPT_WIDTH - _MARGIN)
        yield word[:fitting]
        word = word[fitting:]
    yield word


def _told(picture: Picture) -> str:
    weight = f", weight {picture.weight:g}" if picture.weight != 1.0 else ""
    return f"{SAMPLER_NAMES[picture.sampler]}, seed {picture.seed}{weight}"
