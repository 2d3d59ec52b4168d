"""Whether pictures are told apart, and how sharp they are."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lora_trainer.curation.look import look_of, same_looks, sharpness
from tests.support.curated import drawing


def recompressed(picture: Image.Image, quality: int) -> Image.Image:
    file = BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize(
    "copy",
    [
        lambda picture: recompressed(picture, 50),
        lambda picture: picture.resize((200, 150), Image.Resampling.LANCZOS),
        lambda picture: picture.resize((1000, 750), Image.Resampling.BICUBIC),
        lambda picture: picture.point(lambda level: level * 0.95),
    ],
    ids=["jpeg", "smaller", "larger", "darker"],
)
def test_a_copy_looks_the_same(copy: object) -> None:
    picture = drawing(3, (400, 300))

    assert list(same_looks([look_of(picture), look_of(copy(picture))])) == [(0, 1)]  # type: ignore[operator]


def test_different_pictures_and_shapes_look_different() -> None:
    plain = Image.new("RGB", (64, 64), (200, 0, 0))
    pictures = [drawing(seed) for seed in range(30)] + [plain, drawing(0).resize((96, 64))]

    assert list(same_looks([look_of(picture) for picture in pictures])) == []


def test_an_edge_that_moved_is_another_picture() -> None:
    pixels = np.zeros((128, 128, 3), np.uint8)
    pixels[:, 64:] = 255
    moved = np.roll(pixels, 6, axis=1)

    looks = [look_of(Image.fromarray(one)) for one in (pixels, moved)]

    assert list(same_looks(looks)) == []


def test_sharpness_is_the_variance_of_the_laplacian_of_the_sharpest_tile() -> None:
    grey = np.full((8, 8), 100, np.uint8)
    grey[0, 0] = 110
    # The first of 4x4 tiles is [[110, 100], [100, 100]]; beyond the edge the picture goes on as at the edge.
    expected = np.var([-20.0, 10.0, 10.0, 0.0])

    assert sharpness(Image.fromarray(grey).convert("RGB"), area_px=64) == pytest.approx(expected)


def test_one_sharp_part_makes_a_picture_sharp_and_blur_does_not() -> None:
    picture = drawing(5)
    blurred = picture.filter(ImageFilter.GaussianBlur(4))
    partly = blurred.copy()
    partly.paste(picture.crop((30, 30, 60, 60)), (30, 30))

    values = [sharpness(one, area_px=96 * 96) for one in (picture, partly, blurred)]

    assert values[0] > 100
    assert values[1] > 100
    assert values[2] < 25


def test_blur_that_shrinking_removes_does_not_count() -> None:
    blurred = drawing(5, (960, 960)).filter(ImageFilter.GaussianBlur(4))

    assert sharpness(blurred, area_px=960 * 960) < 25 < sharpness(blurred, area_px=96 * 96)


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 40)])
def test_tiny_pictures_have_a_look_and_no_sharpness(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (9, 9, 9))

    assert sharpness(picture, area_px=100) == 0
    assert look_of(picture).colors.shape == (768,)
