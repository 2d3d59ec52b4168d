"""Views are functions of the draw, and pixels functions of the view."""

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.augment import PixelDraw, Tint, View, render, render_mask, resampling, tinted, told_crop, view_of
from lora_trainer.data.placed import PlacedExample
from tests.support.placed import make_dataset, make_example, place

DRAWS = [PixelDraw(3, ("epoch", 1, 0, occurrence)) for occurrence in range(3000)]


def make_picture(size: tuple[int, int] = (128, 96), name: str = "a.png", **augmentation: Any) -> PlacedExample:
    """A picture that no file stands behind, of 64 px on the shorter side."""
    rules = make_dataset(augmentation=augmentation, latentCache="None").augmentation
    return place(make_dataset(), make_example(Path(name), size=size, augmentation=rules))[0]


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_without_augmentation_every_draw_shows_the_placement() -> None:
    picture = make_picture()

    views = {view_of(picture, draw, mirrored=False) for draw in DRAWS[:50]}

    assert views == {View(0, (64, 64), (85, 64), (10, 0))}


def test_a_view_depends_on_seed_epoch_picture_and_occurrence() -> None:
    picture = make_picture((640, 64), randomCrop=True, color=True)
    draws = [PixelDraw(3, ("epoch", 1, 0, 0)), PixelDraw(4, ("epoch", 1, 0, 0)), PixelDraw(3, ("epoch", 2, 0, 0))]

    views = [view_of(picture, draw, mirrored=False) for draw in draws]

    assert len(set(views)) == 3
    assert views[0] == view_of(picture, PixelDraw(3, ("epoch", 1, 0, 0)), mirrored=False)


def test_random_crops_reach_every_offset_equally_often() -> None:
    picture = make_picture(randomCrop=True)  # 85 px wide in a bucket of 64

    crops = [view_of(picture, draw, mirrored=False).crop for draw in DRAWS]

    assert {y for _, y in crops} == {0}
    counts = np.bincount([x for x, _ in crops], minlength=22)
    assert len(counts) == 22
    # 3000 draws over 22 offsets: 136 each with a standard deviation of 11.4; six of them are 68.
    assert abs(counts - 3000 / 22).max() < 68


def test_a_third_of_the_draws_is_tinted_half_in_hue_and_half_in_gamma() -> None:
    picture = make_picture(color=True)

    tints = [view_of(picture, draw, mirrored=False).tint for draw in DRAWS]

    hues = [tint.amount for tint in tints if tint is not None and tint.kind == "hue"]
    gammas = [tint.amount for tint in tints if tint is not None and tint.kind == "gamma"]
    # Binomial with n = 3000: five standard deviations are 129 of 1000, and 102 of 500.
    assert abs(len(hues) + len(gammas) - 1000) < 129
    assert abs(len(hues) - 500) < 102
    assert -8 <= min(hues) < -7.5
    assert 7.5 < max(hues) <= 8
    assert 0.95 <= min(gammas) < 0.955
    assert 1.045 < max(gammas) <= 1.05


def test_a_face_crop_is_between_the_smallest_and_the_largest_ratio_around_the_face() -> None:
    picture = make_picture((1000, 800), "a_500_400_60_60.png", faceCropRange={"minimum": 1.5, "maximum": 3.0})

    views = [view_of(picture, draw, mirrored=False) for draw in DRAWS]

    regions = np.array([view.region for view in views])
    ratios = (regions[:, 2] - regions[:, 0]) / 60
    assert {(view.resized, view.crop) for view in views} == {((64, 64), (0, 0))}
    assert 1.5 <= ratios.min() < 1.52
    assert 2.98 < ratios.max() <= 3.0
    assert abs(regions.mean(axis=0)[[0, 1]] + regions.mean(axis=0)[[2, 3]] - np.array([1000, 800])).max() < 2


def test_the_pixels_of_a_view_are_scaled_cropped_and_mirrored() -> None:
    image = noise(128, 96)
    view = View(0, (64, 64), (85, 64), (10, 0))

    pixels, mirrored = (
        render(image, view, "Auto"),
        render(image, View(0, (64, 64), (85, 64), (10, 0), mirrored=True), "Auto"),
    )

    expected = np.asarray(image.resize((85, 64), Image.Resampling.BOX))[:, 10:74]
    assert np.array_equal(pixels, expected)
    assert np.array_equal(mirrored, expected[:, ::-1])


def test_a_region_is_cut_out_before_it_is_scaled() -> None:
    image = noise(128, 96)

    pixels = render(image, View(0, (64, 64), (64, 64), (0, 0), region=(30, 20, 62, 52)), "Nearest")

    assert np.array_equal(pixels, np.asarray(image)[20:52, 30:62].repeat(2, axis=0).repeat(2, axis=1))


def test_a_mask_goes_the_same_way_as_its_picture_but_keeps_its_grey() -> None:
    image = noise(128, 96)
    grey = image.getchannel("R")
    view = View(0, (64, 64), (85, 64), (7, 0), tint=Tint("gamma", 1.05), mirrored=True)
    plain = View(0, (64, 64), (85, 64), (7, 0), mirrored=True)

    mask = render_mask(grey, view, "Auto")

    assert mask.shape == (64, 64)
    assert np.array_equal(mask, render(image, plain, "Auto")[..., 0])


def test_hue_is_turned_as_in_the_hsv_of_the_standard_library() -> None:
    pixels = np.asarray(noise(16, 16))
    expected = np.array(
        [
            [colorsys.hsv_to_rgb((h + 5 / 180) % 1, s, v) for h, s, v in (colorsys.rgb_to_hsv(*p) for p in row / 255)]
            for row in pixels
        ]
    )

    turned = tinted(pixels, Tint("hue", 5.0))

    assert abs(turned / 255 - expected).max() <= 0.5 / 255 + 1e-5


@pytest.mark.parametrize("kind", ["hue", "gamma"])
def test_a_tint_of_nothing_changes_nothing(kind: Any) -> None:
    pixels = np.asarray(noise(16, 16))

    assert np.array_equal(tinted(pixels, Tint(kind, 0.0 if kind == "hue" else 1.0)), pixels)


def test_grey_has_no_hue_to_turn() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)

    assert np.array_equal(tinted(grey, Tint("hue", 8.0)), grey)


def test_gamma_is_a_power_of_the_brightness() -> None:
    pixels = np.array([[[0, 64, 255]]], dtype=np.uint8)

    assert tinted(pixels, Tint("gamma", 1.05)).tolist() == [[[0, round(255 * (64 / 255) ** 1.05), 255]]]


def test_auto_averages_to_shrink_and_interpolates_to_enlarge() -> None:
    assert resampling("Auto", (128, 96), (64, 96)) is Image.Resampling.BOX
    assert resampling("Auto", (128, 96), (64, 97)) is Image.Resampling.LANCZOS


@pytest.mark.parametrize("name", ["Box", "Bilinear", "Bicubic", "Lanczos", "Nearest"])
def test_a_filter_that_is_named_is_used(name: Any) -> None:
    image, view = noise(100, 100), View(0, (64, 64), (64, 64), (0, 0))

    expected = image.resize((64, 64), Image.Resampling[name.upper()])

    assert np.array_equal(render(image, view, name), np.asarray(expected))


def test_of_a_fixed_crop_the_letterbox_is_told_and_mirrored_with_the_picture() -> None:
    picture = make_picture((333, 2000))  # 10.656 x 64 px inside 64 x 64, from 26 to 36.656

    views = [view_of(picture, DRAWS[0], mirrored=mirrored) for mirrored in (False, True)]

    assert told_crop(picture, views[0]) == (26, 0)
    assert told_crop(picture, views[1]) == pytest.approx((64 - 36.656, 0))


def test_of_a_random_crop_the_crop_that_was_made_is_told() -> None:
    picture = make_picture(randomCrop=True)
    view, mirrored = (view_of(picture, DRAWS[5], mirrored=mirrored) for mirrored in (False, True))

    assert told_crop(picture, view) == view.crop
    assert told_crop(picture, mirrored) == (85 - 64 - view.crop[0], 0)


def test_of_a_face_crop_the_offset_is_told_in_px_of_the_bucket() -> None:
    picture = make_picture((1000, 800), "a_500_400_60_60.png", faceCropRange={"minimum": 2.0, "maximum": 2.0})
    view, mirrored = (view_of(picture, DRAWS[0], mirrored=mirrored) for mirrored in (False, True))

    assert view.region == (440, 340, 560, 460)
    assert told_crop(picture, view) == pytest.approx((440 * 64 / 120, 340 * 64 / 120))
    assert told_crop(picture, mirrored) == pytest.approx(((1000 - 560) * 64 / 120, 340 * 64 / 120))
