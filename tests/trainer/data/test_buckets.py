"""Placement of pictures, against the results of sd-scripts' own code."""

from collections.abc import Iterable
from random import Random

import pytest

from lora_api.dataset_spec import Buckets, CropPosition
from lora_trainer.data.buckets import Placement, TooSmall, bucket_sizes, letterbox, placing, side_limits
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
    (A, (700, 700), (768, 768), (768, 768), (0, 0), 0.0),
    (A, (640, 960), (512, 768), (512, 768), (0, 0), 0.0),
    (A, (1920, 1080), (768, 448), (796, 448), (14, 0), -0.0635),
    (A, (500, 333), (768, 512), (769, 512), (0, 0), -0.0015),
    (A, (333, 2000), (320, 768), (320, 1922), (0, 577), 0.2502),
    (A, (2000, 333), (768, 320), (1922, 320), (577, 0), -3.606),
    (A, (400, 400), (768, 768), (768, 768), (0, 0), 0.0),
    (A, (3000, 4000), (576, 768), (576, 768), (0, 0), 0.0),
    (B, (768, 768), (768, 768), (768, 768), (0, 0), 0.0),
    (B, (1024, 1024), (768, 768), (768, 768), (0, 0), 0.0),
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
    (C, (768, 768), (768, 768), (768, 768), (0, 0), 0.0),
    (C, (1024, 1024), (768, 768), (768, 768), (0, 0), 0.0),
    (C, (2000, 333), (1024, 512), (3075, 512), (1025, 0), None),
    (C, (400, 400), (768, 768), (768, 768), (0, 0), 0.0),
    (C, (700, 700), (768, 768), (768, 768), (0, 0), 0.0),
    (C, (640, 960), (640, 896), (640, 960), (0, 32), 0.0476),
    (C, (1920, 1080), (1024, 576), (1024, 576), (0, 0), 0.0),
    (C, (500, 333), (896, 640), (961, 640), (32, 0), -0.1015),
    (C, (333, 2000), (512, 1024), (512, 3075), (0, 1025), 0.3335),
    (C, (3000, 4000), (640, 896), (672, 896), (16, 0), None),
    (D, (768, 768), (512, 512), (512, 512), (0, 0), 0.0),
    (D, (1024, 1024), (512, 512), (512, 512), (0, 0), 0.0),
    (D, (2000, 333), (1024, 256), (1538, 256), (257, 0), None),
    (D, (400, 400), (512, 512), (512, 512), (0, 0), 0.0),
    (D, (700, 700), (512, 512), (512, 512), (0, 0), 0.0),
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


def test_with_limits_at_the_resolution_every_bucket_has_its_side() -> None:
    sides = [320, 384, 448, 512, 576, 640, 704, 768]

    assert bucket_sizes((768, 768), 320, 768, step=64) == tuple(
        sorted({(s, 768) for s in sides} | {(768, s) for s in sides})
    )


@pytest.mark.parametrize(
    ("position", "wide", "tall"),
    [
        ("Center", (14, 0), (0, 577)),
        ("Top", (14, 0), (0, 0)),
        ("Bottom", (14, 0), (0, 1154)),
        ("Left", (0, 0), (0, 577)),
        ("Right", (28, 0), (0, 577)),
    ],
)
def test_the_crop_position_names_the_side_that_is_kept(
    position: CropPosition, wide: tuple[int, int], tall: tuple[int, int]
) -> None:
    place = placing((768, 768), Buckets(min_px=320, max_px=768, crop_position=position))

    assert place(1920, 1080).crop == wide
    assert place(333, 2000).crop == tall


@pytest.mark.parametrize(
    ("picture", "bucket", "expected"),
    [
        ((1920, 1080), (768, 448), (0, 8, 768, 440)),
        ((333, 2000), (320, 768), (96, 0, 223.87, 768)),
        ((500, 333), (448, 320), (0, 10, 448, 308.37)),
    ],
)
def test_the_letterbox_is_the_crop_that_sd_scripts_records(
    picture: tuple[int, int], bucket: tuple[int, int], expected: tuple[float, ...]
) -> None:
    assert letterbox(picture, bucket) == pytest.approx(expected, abs=5e-3)


def test_the_crop_loss_is_the_share_of_the_scaled_area_that_is_cut_off() -> None:
    place = placing(*A)

    assert place(333, 2000).crop_loss == pytest.approx(1154 / 1922)
    assert place(3000, 4000).crop_loss == 0


def test_our_own_limits_cut_off_less_and_keep_more_pixels_than_those_of_kohyas_example() -> None:
    ratios = [0.3, 0.4, 0.5, 9 / 16, 2 / 3, 3 / 4, 1, 4 / 3, 3 / 2, 16 / 9, 2, 2.5, 3.3]
    sizes = [(round(1000 * ratio**0.5), round(1000 / ratio**0.5)) for ratio in ratios]
    ours, kohyas = ([place(*size) for size in sizes] for place in (placing((768, 768), Buckets()), placing(*A)))

    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(sizes)

    assert mean(p.crop_loss for p in ours) < 0.05 < mean(p.crop_loss for p in kohyas)
    assert max(p.crop_loss for p in ours) < 0.08
    assert max(p.crop_loss for p in kohyas) > 0.25
    assert mean(p.bucket[0] * p.bucket[1] for p in ours) > 0.95 * 768 * 768
    assert mean(p.bucket[0] * p.bucket[1] for p in kohyas) < 0.60 * 768 * 768


def test_our_own_limits_keep_more_pixels_of_a_2_to_3_picture_than_kohyas_example() -> None:
    ours, kohyas = placing((768, 768), Buckets())(640, 960), placing(*A)(640, 960)

    assert kohyas.bucket[0] * kohyas.bucket[1] == 393_216
    assert ours.bucket[0] * ours.bucket[1] > 0.97 * 768 * 768


@pytest.mark.parametrize("picture", [(1, 5000), (5000, 1), (16, 4000)])
def test_a_picture_of_which_next_to_nothing_would_be_left_is_refused(picture: tuple[int, int]) -> None:
    with pytest.raises(TooSmall, match=r"so narrow that less than 2 % of it would be left in a bucket of"):
        placing((768, 768), Buckets())(*picture)


@pytest.mark.parametrize("picture", [(63, 63), (1, 100_000), (100_000, 1), (40, 20_000), (63, 9500)])
def test_where_sd_scripts_divides_by_zero_or_makes_an_empty_bucket_the_picture_is_refused(
    picture: tuple[int, int],
) -> None:
    with pytest.raises(TooSmall, match=r"a side would be shorter than 64 px"):
        placing(*B)(*picture)


def _check_covered(picture: tuple[int, int], setting: tuple[tuple[int, int], Buckets]) -> bool:
    """Whether the picture is placed; its placement is checked against the definition, term by term."""
    (resolution, buckets), (width, height) = setting, picture
    try:
        placement = placing(resolution, buckets)(width, height)
    except TooSmall:
        return False
    (bw, bh), (rw, rh), (x, y) = placement.bucket, placement.resized, placement.crop
    assert min(bw, bh) >= buckets.step_px
    assert bw % buckets.step_px == bh % buckets.step_px == 0
    assert rw >= bw
    assert rh >= bh
    assert (x, y) == ((rw - bw) // 2, (rh - bh) // 2)
    if buckets.upscale:
        # Scaled by one factor, rounded to whole pixels, and exactly as large as the bucket on one axis at least.
        assert rw == bw or rh == bh
        scale = max(bw / width, bh / height)
        assert abs(rw - width * scale) <= 0.5 + 1e-6
        assert abs(rh - height * scale) <= 0.5 + 1e-6
        assert bw * bh <= resolution[0] * resolution[1]
    else:
        assert (bw, bh) == (rw // buckets.step_px * buckets.step_px, rh // buckets.step_px * buckets.step_px)
        assert rw <= width
        assert rh <= height
        assert width * height > resolution[0] * resolution[1] or (rw, rh) == picture
    return True


@pytest.mark.parametrize("setting", [A, B, C, D, SDXL, ((512, 512), Buckets()), ((512, 512), Buckets(step_px=8))])
def test_ten_thousand_random_pictures_are_covered_and_cropped_as_defined(
    setting: tuple[tuple[int, int], Buckets],
) -> None:
    random = Random(7)
    sizes = [(int(2 ** random.uniform(4, 13)), int(2 ** random.uniform(4, 13))) for _ in range(10_000 // 7 + 1)]

    placed = sum(_check_covered(size, setting) for size in sizes)

    assert placed > len(sizes) / 2
