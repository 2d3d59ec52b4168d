"""Every kind of picture becomes the RGB pixels that a person sees, or is refused by name."""

import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.buckets import Placement
from lora_trainer.data.images import MAX_PIXELS, UnusableImage, check_image, is_image, load_pixels, to_rgb


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def whole(size: tuple[int, int]) -> Placement:
    return Placement(size, size, (0, 0), 0.0)


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.Jpg", "a.jpeg", "a.WebP", "a.bmp"])
def test_the_case_of_an_extension_does_not_matter(name: str) -> None:
    assert is_image(Path(name))


@pytest.mark.parametrize("name", ["a.txt", "a.gif", "png", "a.png.txt"])
def test_other_names_are_no_pictures(name: str) -> None:
    assert not is_image(Path(name))


@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 20)), (3, (30, 20)), (6, (20, 30)), (8, (20, 30))])
def test_the_size_is_that_after_the_exif_rotation(orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation

    assert check_image(encoded(Image.new("RGB", (30, 20)), "JPEG", exif=exif)) == size


def test_pixels_are_turned_as_exif_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned right by a quarter: the top left corner becomes the top right one
    path = tmp_path / "a.png"
    path.write_bytes(encoded(image, exif=exif))

    pixels = load_pixels(path, whole((2, 4)))

    assert pixels.shape == (4, 2, 3)
    assert pixels[0, 1].tolist() == [255, 0, 0]


def test_transparency_lies_over_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 128))

    rgb = np.asarray(to_rgb(image))

    assert rgb[0, 0].tolist() == [255, 255, 255]
    assert rgb[0, 1] == pytest.approx(np.array([200, 0, 0]) * 128 / 255 + 255 * 127 / 255, abs=1)


def test_a_palette_with_a_transparent_entry_lies_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 0

    assert np.asarray(to_rgb(image)).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_16_bit_grey_keeps_its_shades() -> None:
    deep = Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16))

    rgb = to_rgb(Image.open(BytesIO(encoded(deep))))

    assert np.asarray(rgb)[0, :, 0].tolist() == [0, 100, 255]


def test_cmyk_becomes_rgb() -> None:
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))

    rgb = np.asarray(to_rgb(Image.open(BytesIO(encoded(ink, "JPEG", quality=100)))))

    assert rgb[4, 4] == pytest.approx([255, 0, 0], abs=6)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "P"])
def test_every_mode_gives_three_channels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)))

    pixels = load_pixels(path, whole((8, 8)))

    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.full((8, 8, 3), 255))


def test_shrinking_averages_whole_areas(tmp_path: Path) -> None:
    stripes = np.zeros((8, 8, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(stripes)))

    pixels = load_pixels(path, Placement((4, 4), (4, 4), (0, 0), 0.0))

    assert np.array_equal(pixels, np.full((4, 4, 3), 100))


def test_the_bucket_is_cut_out_at_the_crop(tmp_path: Path) -> None:
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(ramp)))

    pixels = load_pixels(path, Placement((4, 2), (8, 8), (3, 5), 0.0))

    assert np.array_equal(pixels[..., 0], ramp[5:7, 3:7])


def test_enlarging_keeps_a_plain_picture_plain(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.new("RGB", (3, 3), (10, 120, 240))))

    pixels = load_pixels(path, Placement((64, 64), (64, 64), (0, 0), 0.0))

    assert np.array_equal(pixels, np.broadcast_to(np.uint8([10, 120, 240]), (64, 64, 3)))


@pytest.mark.parametrize(
    "data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(UnusableImage):
        check_image(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_truncated_picture_is_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)

    with pytest.raises(UnusableImage):
        check_image(data[: len(data) // 2])


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before_it_is_decoded() -> None:
    side = 60_000
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    tiny = encoded(Image.new("RGB", (1, 1)))

    bomb = tiny[:12] + header + zlib.crc32(header).to_bytes(4, "big") + tiny[33:]

    with pytest.raises(UnusableImage, match=f"more than {MAX_PIXELS:,} pixels; make it smaller"):
        check_image(bomb)


def test_an_animation_is_refused() -> None:
    frames = [Image.new("RGB", (4, 4), (value, 0, 0)) for value in (0, 255)]

    with pytest.raises(UnusableImage, match="is an animation"):
        check_image(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))


def test_a_photo_with_a_preview_inside_is_accepted() -> None:
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 255)]

    assert check_image(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])) == (8, 8)


def test_a_picture_with_the_wrong_extension_still_loads(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.new("RGB", (8, 8), (0, 0, 255)), "BMP"))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_pixels(path, whole((8, 8)))[0, 0].tolist() == [0, 0, 255]
