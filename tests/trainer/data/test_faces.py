"""Faces in file names, and the parts of pictures around them."""

from pathlib import PurePath
from random import Random

import pytest

from lora_trainer.data.faces import Face, NoFace, face_in_name, region_around

PICTURE = (1000, 800)


def test_the_last_four_numbers_of_the_stem_are_centre_and_size() -> None:
    assert face_in_name(PurePath("my_pic_2_320_240_100_120.png"), PICTURE) == Face(320, 240, 100, 120)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.png", "does not name its face; rename it to `name_<x>_<y>_<width>_<height>`"),
        ("320_240_100_120.png", "does not name its face"),
        ("a_320_240_100_1x.png", "does not name its face"),
        ("a_320_240_0_120.png", "names a face of 0x120 px"),
        ("a_1000_240_10_10.png", r"names a face at \(1000, 240\), outside of the picture of 1000x800 px"),
    ],
)
def test_a_name_without_a_face_says_how_to_name_it(name: str, message: str) -> None:
    with pytest.raises(NoFace, match=message):
        face_in_name(PurePath(name), PICTURE)


def test_the_region_is_the_face_times_the_ratio_around_its_centre() -> None:
    assert region_around(Face(500, 400, 80, 100), PICTURE, bucket=(512, 512), ratio=2.0) == (400, 300, 600, 500)


def test_the_region_has_the_shape_of_its_bucket_and_the_ratio_counts_for_its_shorter_side() -> None:
    assert region_around(Face(500, 400, 100, 50), PICTURE, bucket=(512, 768), ratio=2.0) == (400, 250, 600, 550)


def test_a_region_at_the_border_is_moved_into_the_picture() -> None:
    assert region_around(Face(20, 790, 100, 100), PICTURE, bucket=(512, 512), ratio=3.0) == (0, 500, 300, 800)


def test_a_region_larger_than_the_picture_is_made_as_large_as_it_allows() -> None:
    assert region_around(Face(500, 400, 300, 300), PICTURE, bucket=(512, 512), ratio=5.0) == (100, 0, 900, 800)


def test_regions_lie_in_the_picture_and_have_the_ratio_of_the_bucket() -> None:
    random = Random(1)
    for _ in range(2000):
        picture = (random.randint(64, 3000), random.randint(64, 3000))
        bucket = (64 * random.randint(4, 16), 64 * random.randint(4, 16))
        face = Face(random.randrange(picture[0]), random.randrange(picture[1]), 1 + random.randrange(400), 40)

        left, top, right, bottom = region_around(face, picture, bucket=bucket, ratio=random.uniform(1, 8))

        assert 0 <= left < right <= picture[0]
        assert 0 <= top < bottom <= picture[1]
        # Each side is rounded to whole pixels.
        width, height = right - left, bottom - top
        assert abs(width * bucket[1] - height * bucket[0]) <= max(bucket)
