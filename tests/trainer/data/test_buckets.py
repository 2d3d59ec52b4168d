"""Placement of pictures, against the results of sd-scripts' own code."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_api.dataset_spec import Buckets
from lora_trainer.data.buckets import Placement, TooSmall, bucket_sizes, placing, side_limits
from lora_trainer.errors import InvalidConfiguration

A = ((768, 768), Buckets(min_px=320, max_px=768))
B = ((768, 768), Buckets(min_px=320, max_px=768, upscale=False))
C = ((768, 768), Buckets(min_px=512, max_px=1024))
D = ((512, 512), Buckets(min_px=256, max_px=1024))
E = ((1024, 1024), Buckets(upscale=False))
SDXL = ((1024, 1024), Buckets(min_px=256, max_px=2048))

# (settings, picture, bucket, resized, crop, ratio error or None where the source gives none)
EXAMPLES = [
    (A, (768, 768), (768, 768), (768, 768), (0, 0), 0.0),
    (A, (1024, 1024), (768, 768), (768, 768), (0, 0), 0.0),
    (A, (640, 960), (512, 768), (512, 768), (0, 0), 0.0),
    (A, (1920, 1080), (768, 448), (796, 448), (14, 0), -0.0635),
    (A, (500, 333), (768, 512), (769, 512), (0, 0), -0.0015),
    (A, (333, 2000), (320, 768), (320, 1922), (0, 577), 0.2502),
    (A, (2000, 333), (768, 320), (1922, 320), (577, 0), -3.606),
    (A, (400, 400), (768, 768), (768, 768), (0, 0), 0.0),
    (A, (3000, 4000), (576, 768), (576, 768), (0, 0), 0.0),
    (B, (640, 960), (576, 896), (597, 896), (10, 0), -0.0238),
    (B, (1920, 1080), (1024, 576), (1024, 576), (0, 0), 0.0),
    (B, (500, 333), (448, 320), (500, 333), (26, 6), -0.1015),
    (B, (333, 2000), (256, 1536), (256, 1538), (0, 1), 0.0002),
    (B, (2000, 333), (1536, 256), (1538, 256), (1, 0), None),
    (B, (400, 400), (384, 384), (400, 400), (8, 8), 0.0),
    (B, (700, 700), (640, 640), (700, 700), (30, 30), 0.0),
    (B, (3000, 4000), (640, 832), (640, 853), (0, 10), None),
    (B, (100, 80), (64, 64), (100, 80), (18, 8), None),
    (E, (3072, 3000), (960, 960), None, None, None),
    (C, (640, 960), (640, 896), (640, 960), (0, 32), 0.0476),
    (C, (1920, 1080), (1024, 576), (1024, 576), (0, 0), 0.0),
    (C, (500, 333), (896, 640), (961, 640), (32, 0), -0.1015),
    (C, (333, 2000), (512, 1024), (512, 3075), (0, 1025), 0.3335),
    (C, (3000, 4000), (640, 896), (672, 896), (16, 0), None),
    (D, (640, 960), (384, 640), (427, 640), (21, 0), -0.0667),
    (D, (1920, 1080), (640, 384), (683, 384), (21, 0), -0.1111),
    (D, (500, 333), (640, 384), (640, 426), (0, 21), 0.1652),
    (D, (333, 2000), (256, 1024), (256, 1538), (0, 257), 0.0835),
    (D, (3000, 4000), (448, 576), (448, 597), (0, 10), None),
    (SDXL, (640, 960), (832, 1216), (832, 1248), (0, 16), None),
    (SDXL, (1920, 1080), (1344, 768), (1365, 768), (10, 0), None),
    (SDXL, (500, 333), (1216, 832), (1249, 832), (16, 0), None),
]


@pytest.mark.parametrize(("setting", "picture", "bucket", "resized", "crop", "error"), EXAMPLES)
def test_pictures_land_where_sd_scripts_puts_them(
    setting: tuple[tuple[int, int], Buckets],
    picture: tuple[int, int],
    bucket: tuple[int, int],
    resized: tuple[int, int] | None,
    crop: tuple[int, int] | None,
    error: float | None,
) -> None:
    placement = placing(*setting)(*picture)

    assert placement.bucket == bucket
    assert resized is None or placement.resized == resized
    assert crop is None or placement.crop == crop
    assert error is None or placement.ratio_error == pytest.approx(error, abs=1e-3)


@pytest.mark.parametrize(
    ("resolution", "smallest", "largest", "step", "count"),
    [
        ((768, 768), 320, 768, 64, 15),
        ((768, 768), 512, 1024, 64, 11),
        ((768, 768), 256, 1024, 64, 19),
        ((512, 512), 256, 1024, 64, 17),
        ((512, 768), 256, 1024, 64, 19),
        ((1024, 1024), 256, 2048, 64, 41),
        ((1024, 1024), 512, 2048, 32, 65),
    ],
)
def test_the_number_of_bucket_sizes_is_that_of_sd_scripts(
    resolution: tuple[int, int], smallest: int, largest: int, step: int, count: int
) -> None:
    assert len(bucket_sizes(resolution, smallest, largest, step=step)) == count


def test_the_sizes_of_768_from_512_to_1024() -> None:
    portrait = [(512, 1024), (576, 960), (576, 1024), (640, 896), (704, 832)]

    sizes = bucket_sizes((768, 768), 512, 1024, step=64)

    assert sizes == tuple(sorted([*portrait, (768, 768), *((h, w) for w, h in portrait)]))


def test_limits_default_to_half_and_double_of_the_resolution() -> None:
    assert side_limits((512, 512), Buckets()) == (256, 1024)
    assert side_limits((768, 512), Buckets()) == (256, 1536)
    assert side_limits((360, 360), Buckets(step_px=48)) == (144, 720)


def test_limits_do_not_apply_when_nothing_is_enlarged() -> None:
    assert placing(*B)(640, 960) == placing((768, 768), Buckets(min_px=512, max_px=1024, upscale=False))(640, 960)


def test_without_buckets_every_picture_covers_the_resolution() -> None:
    place = placing((512, 512), Buckets(enabled=False))

    assert place(1024, 512) == Placement((512, 512), (1024, 512), (256, 0), -1.0)
    assert place(100, 200) == Placement((512, 512), (512, 1024), (0, 256), 0.5)


def test_a_picture_narrower_than_a_step_is_refused_when_nothing_is_enlarged() -> None:
    with pytest.raises(TooSmall, match="is 40x300 px, but a side would be shorter than 64 px"):
        placing(*B)(40, 300)


@pytest.mark.parametrize(
    ("resolution", "buckets", "message"),
    [
        ((64, 64), Buckets(step_px=128), "stepPx is 128, but must be at most the smaller side"),
        ((768, 512), Buckets(min_px=640), "minPx is 640, but must be at most the smaller side"),
        ((512, 768), Buckets(max_px=640), "maxPx is 640, but must be at least the larger side"),
    ],
)
def test_limits_that_do_not_fit_the_resolution_are_refused(
    resolution: tuple[int, int], buckets: Buckets, message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        placing(resolution, buckets)


@settings(max_examples=300, deadline=None)
@given(width=st.integers(64, 5000), height=st.integers(64, 5000), upscale=st.booleans(), step=st.sampled_from([8, 64]))
def test_the_crop_lies_inside_the_scaled_picture_and_keeps_the_area(
    width: int, height: int, upscale: bool, step: int
) -> None:
    try:
        placement = placing((512, 512), Buckets(step_px=step, upscale=upscale))(width, height)
    except TooSmall:
        assert not upscale
        return

    (bw, bh), (rw, rh), (x, y) = placement.bucket, placement.resized, placement.crop
    assert bw % step == 0
    assert bh % step == 0
    # Rounding to the grid may exceed the area by one row when nothing is enlarged, never otherwise.
    assert bw * bh <= 512 * 512 + (0 if upscale else step * max(bw, bh))
    assert 0 <= x <= rw - bw
    assert 0 <= y <= rh - bh
