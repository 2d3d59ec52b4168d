"""The drawings: same seed, same pixels; held-out combinations stay out; captions tell the truth."""

import numpy as np
import pytest

from lora_tinybase import drawings


def test_same_seed_draws_the_same_pictures() -> None:
    first, second = ([drawings.render(scene) for scene in drawings.scenes(5, seed=3)] for _ in range(2))

    assert np.array_equal(first, second)


def test_wild_pictures_repeat_with_their_generator() -> None:
    first, second = (drawings.wild(np.random.default_rng(8)) for _ in range(2))

    assert np.array_equal(first, second)


def test_scenes_never_show_a_held_out_combination() -> None:
    drawn = {(scene.shape, scene.colour, scene.background) for scene in drawings.scenes(2000, seed=1)}

    assert drawn == set(drawings.TRAINED)
    assert not drawn & set(drawings.HELD_OUT)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_every_word_of_a_held_out_combination_is_trained_elsewhere(part: int) -> None:
    assert {combo[part] for combo in drawings.HELD_OUT} <= {combo[part] for combo in drawings.TRAINED}


def test_circle_covers_pi_r_squared() -> None:
    scene = drawings.Scene("circle", "red", "white", False, 0, 0, 0.25, 0, (0, 0, 0))

    picture = drawings.render(scene, 128, 128)

    share = float((picture[..., 1] < 140).mean())
    assert share == pytest.approx(np.pi * 0.25**2, abs=0.002)


def test_glyph_keeps_its_proportions_in_a_wide_picture() -> None:
    scene = drawings.Scene("square", "blue", "white", False, 0, 0, 0.3, 0, (0, 0, 0))

    glyph = drawings.render(scene, 160, 112)[..., 0] < 150

    assert np.ptp(np.nonzero(glyph)[0]) == np.ptp(np.nonzero(glyph)[1])


def test_description_names_size_colour_shape_and_background() -> None:
    scene = drawings.Scene("heart", "green", "pink", True, 0, 0, 0.4, 0, (0, 0, 0))

    assert drawings.describe(scene) == "a big green heart on a pink background"


def test_captions_name_exactly_what_they_say_they_name() -> None:
    rng = np.random.default_rng(2)

    for scene in drawings.scenes(300, seed=2):
        text, named = drawings.caption(scene, rng)
        words = text.replace(",", " ").split()
        assert named == (
            scene.shape in words,
            f"{scene.colour} {scene.shape}" in text,
            f"{scene.background} background" in text,
        )


def test_one_caption_in_ten_is_empty() -> None:
    rng = np.random.default_rng(4)

    empty = [drawings.caption(scene, rng)[0] == "" for scene in drawings.scenes(2000, seed=4)]

    assert np.mean(empty) == pytest.approx(0.1, abs=0.025)
