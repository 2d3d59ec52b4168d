"""Block weights as the WebUI's LoRA Block Weight extension counts them: vectors, presets, the weight of each module.

Used by `lora.strength`, and through it by the grid and by `lora bake`. The numbers are those of
https://github.com/hako-mikan/sd-webui-lora-block-weight, whose shorter vectors are 26 with zeros in between.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_api.model_spec import BlockName, Family
from lora_trainer.errors import InvalidConfiguration

if TYPE_CHECKING:
    # Only the name of a type: this module does without torch.
    from lora_trainer.conditioning import Part

logger = logging.getLogger(__name__)

BASE = "BASE"
"""Place of the text encoders."""
PLACES: tuple[str, ...] = (
    BASE,
    "IN00", "IN01", "IN02", "IN03", "IN04", "IN05", "IN06", "IN07", "IN08", "IN09", "IN10", "IN11",
    "M00",
    "OUT00", "OUT01", "OUT02", "OUT03", "OUT04", "OUT05", "OUT06", "OUT07", "OUT08", "OUT09", "OUT10", "OUT11",
)  # fmt: skip
"""What the 26 numbers of a whole vector belong to."""

_MIDDLE = ("M00", "M01", "M02")
_WITHOUT_ATTENTION = {"IN00", "IN03", "IN06", "IN09", "IN10", "IN11", "OUT00", "OUT01", "OUT02"}
_NOT_IN_SDXL = {"IN09", "IN10", "IN11", "OUT09", "OUT10", "OUT11"}
_PLACES_OF: Mapping[int, tuple[str, ...]] = {
    12: (BASE, "IN04", "IN05", "IN07", "IN08", "M00", "OUT00", "OUT01", "OUT02", "OUT03", "OUT04", "OUT05"),
    17: tuple(place for place in PLACES if place not in _WITHOUT_ATTENTION),
    20: tuple(place for place in PLACES if place not in _NOT_IN_SDXL),
    26: PLACES,
}
"""Length of a vector -> what its numbers belong to."""

_SD_LENGTHS = "17 (BASE, IN01, IN02, IN04, IN05, IN07, IN08, M00, OUT03 to OUT11) or 26 (BASE, IN00 to IN11, M00, \
OUT00 to OUT11)"
_SDXL_LENGTHS = "12 (BASE, IN04, IN05, IN07, IN08, M00, OUT00 to OUT05) or 20 (BASE, IN00 to IN08, M00, \
OUT00 to OUT08)"

_SWITCHES: Mapping[str, str] = {
    "NONE": "00000000000000000",
    "ALL": "11111111111111111",
    "INS": "11110000000000000",
    "IND": "10001110000000000",
    "INALL": "11111110000000000",
    "MIDD": "10001111111100000",
    "OUTD": "10000000111100000",
    "OUTS": "10000000000011111",
    "OUTALL": "10000000111111111",
}
"""Presets that leave each of the 17 places on or off."""


@dataclass(frozen=True)
class BlockVector:
    """A weight for each block of the UNet and for the text encoders."""

    name: str
    """What labels call it."""
    values: tuple[float, ...]
    """26 numbers, in the order of `PLACES`."""

    def of(self, part: "Part", block: BlockName | None) -> float:
        """The weight of a module in a block of a part.

        What lies in the UNet but in no block (`conv_out`, the embeddings of time and size) keeps the weight 1, and
        the whole middle of SDXL is M00, as in the extension.
        """
        if part != "unet":
            return self.values[0]
        if block is None:
            return 1.0
        return self.values[PLACES.index("M00" if block in _MIDDLE else block)]

    def by_place(self, family: Family) -> dict[str, float]:
        """The weights by name, those that the family has."""
        known = _PLACES_OF[20] if family == "sdxl" else PLACES
        return {place: weight for place, weight in zip(PLACES, self.values, strict=True) if place in known}


def preset_values(name: str) -> tuple[float, ...] | None:
    """The 17 numbers of a preset that the extension brings along; None if it has no such preset."""
    if name == "ALL0.5":
        return (0.5,) * 17
    switches = _SWITCHES.get(name)
    return None if switches is None else tuple(map(float, switches))


def block_vector(
    name: str, values: Sequence[float] | None, family: Family, *, field: str = "block weights"
) -> BlockVector:
    """The vector of some numbers, or of the extension's preset `name`.

    Args:
        name: what labels call it; without `values` a preset.
        values: 17 or 26 numbers, for SDXL 12 or 20; None: those of the preset.
        family: what the adapter is for.
        field: where the setting stands, for messages.

    Raises:
        InvalidConfiguration: no such preset, another length, or a number that is none or endless.
    """
    if values is None:
        numbers: Sequence[float] = _preset(name, family, field)
    else:
        numbers = values
        lengths, described = ((12, 20), _SDXL_LENGTHS) if family == "sdxl" else ((17, 26), _SD_LENGTHS)
        if len(numbers) not in lengths:
            raise InvalidConfiguration(
                f"{field}: {name} has {len(numbers)} numbers, but {family} takes {described}; write as many", hint=""
            )
    if not all(map(math.isfinite, numbers)):
        raise InvalidConfiguration(f"{field}: {name} has a number that is not finite; write one such as 0.5", hint="")
    given = dict(zip(_PLACES_OF[len(numbers)], numbers, strict=True))
    return BlockVector(name, tuple(float(given.get(place, 0.0)) for place in PLACES))


def _preset(name: str, family: Family, field: str) -> tuple[float, ...]:
    numbers = preset_values(name)
    if numbers is None:
        known = ", ".join((*_SWITCHES, "ALL0.5"))
        raise InvalidConfiguration(
            f"{field}: {name} is no preset; known are {known}, or write the numbers themselves", hint=""
        )
    if family == "sdxl" and name != "NONE":
        logger.warning(
            "%s: the preset %s has 17 numbers, made for SD 1.5; as in the extension, OUT00 to OUT02 of SDXL get 0. "
            "Write 12 or 20 numbers to choose them",
            field, name,
        )  # fmt: skip
    return numbers


def parse_presets(text: str) -> dict[str, str]:
    """The presets of a file in the extension's form, one `NAME:1,0,…` a line: names and the text of their numbers.

    As in the extension, lines with `#` or without a colon are comments, and of two with one name the last counts.
    """
    lines = [line for line in text.splitlines() if ":" in line and "#" not in line]
    pairs = (line.split(":", 1) for line in lines)
    return {name.strip(): numbers.strip() for name, numbers in pairs}


def parse_block_weights(
    text: str, family: Family, *, presets: Mapping[str, str] | None = None, field: str = "block weights"
) -> BlockVector:
    """The vector that a text asks for: the name of a preset, `1,0,…`, or `HINA4:0.25,…` with a name for labels.

    Args:
        text: what was written.
        family: what the adapter is for.
        presets: what `parse_presets` read; goes before the extension's own.
        field: where the text stands, for messages.

    Raises:
        InvalidConfiguration: as `block_vector`, and for R, U and X, which stand for numbers that are not known yet.
    """
    name, colon, numbers = text.partition(":")
    if not colon:
        name, numbers = (text, (presets or {}).get(text, "")) if "," not in text else ("own", text)
    name = name.strip()
    if not numbers:
        return block_vector(name, None, family, field=field)
    values = _parse_numbers(numbers, name, field)
    # The file that the extension ships repeats its own presets.
    return block_vector(name, None if values == preset_values(name) else values, family, field=field)


def _parse_numbers(text: str, name: str, field: str) -> tuple[float, ...]:
    words = [word.strip() for word in text.split(",")]
    places = _PLACES_OF.get(len(words), [f"number {index}" for index in range(1, len(words) + 1)])
    return tuple(_number(word, f"{field}: {name}: {place}") for word, place in zip(words, places, strict=True))


def _number(word: str, where: str) -> float:
    if word in ("R", "U"):
        raise InvalidConfiguration(
            f"{where} is {word}, for which the extension draws a number; write the number", hint=""
        )
    if word.startswith("X"):
        raise InvalidConfiguration(
            f"{where} is {word}, which the extension takes from the prompt; write the number", hint=""
        )
    try:
        return float(word)
    except ValueError as error:
        raise InvalidConfiguration(f"{where} is {word!r}; write a number such as 0.5", hint="") from error
