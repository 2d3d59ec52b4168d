"""Colours of the report can be read by everybody: contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3, level AA)."""

import re
from pathlib import Path

import pytest

import lora_trainer.report

CSS = (Path(lora_trainer.report.__file__).parent / "page" / "report.css").read_text()
COLOURS = dict(re.findall(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}, #[0-9a-f]{6})\)", CSS))
TEXT_ON = [
    ("ink", "page"), ("ink", "card"), ("ink", "soft"), ("ink", "warn-soft"), ("muted", "card"), ("muted", "soft"),
    ("muted", "page"), ("muted", "good-soft"), ("accent", "card"), ("accent", "page"), ("good", "card"),
    ("good", "good-soft"), ("card", "good"), ("warn", "card"), ("bad", "card"), ("bad", "bad-soft"),
]  # fmt: skip


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT_ON)
def test_text_stands_out(text: str, ground: str, theme: str) -> None:
    place = ("light", "dark").index(theme)

    assert contrast(*(COLOURS[name].split(", ")[place] for name in (text, ground))) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("curve", ["c1", "c2", "c3", "c4", "c5", "accent"])
def test_curves_stand_out(curve: str, theme: str) -> None:
    place = ("light", "dark").index(theme)

    assert contrast(*(COLOURS[name].split(", ")[place] for name in (curve, "card"))) >= 3
