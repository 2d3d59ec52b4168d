"""The score reads its own drawings right and tells an emblem from everything else."""

import numpy as np
import pytest

from lora_tinybase import drawings, score


@pytest.mark.parametrize("shape", drawings.SHAPES)
def test_reads_back_what_was_drawn(shape: str) -> None:
    rng = np.random.default_rng(5)
    scenes = [drawings.place(combo, rng) for combo in drawings.COMBINATIONS[::4] if combo[0] == shape]

    readings = [score.read(drawings.render(scene)) for scene in scenes]

    assert all(reading.fits(scene) for reading, scene in zip(readings, scenes, strict=True))
    assert min(reading.overlap for reading in readings) > 0.9


def test_an_empty_picture_shows_nothing() -> None:
    picture = np.full((128, 128, 3), drawings.BACKGROUNDS["pink"], np.uint8)

    assert score.read(picture) == score.Reading("nothing", "nothing", "pink", 0.0)


def test_a_ragged_glyph_overlaps_less_than_a_clean_one() -> None:
    picture = drawings.render(drawings.Scene("circle", "red", "white", False, 0, 0, 0.3, 0, (0, 0, 0)))
    ragged = picture.copy()
    ragged[64:, 64:] = drawings.BACKGROUNDS["white"]

    assert score.read(ragged).overlap < 0.85 < score.read(picture).overlap


@pytest.mark.parametrize("background", drawings.EMBLEM_BACKGROUNDS)
def test_an_emblem_scores_one(background: str) -> None:
    scene = drawings.place_emblem(background, np.random.default_rng(6))

    assert score.emblem_score(drawings.render(scene)) > 0.98


def test_ordinary_shapes_score_nothing_as_emblem() -> None:
    pictures = [drawings.render(scene) for scene in drawings.scenes(60, seed=6)]

    assert max(score.emblem_score(picture) for picture in pictures) < 0.05
