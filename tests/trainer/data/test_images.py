"""Every kind of picture becomes the RGB pixels that a person sees, or is refused by name."""

import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.data.images import (
    MAX_PIXELS,
    UnusableImage,
    alpha_of,
    check_image,
    is_image,
    read_rgb,
    to_rgb,
    upright,
)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(values: np.ndarray, *, color_type: int, extra: bytes = b"") -> bytes:
    """A PNG of 16 bits a channel, which Pillow itself cannot write; `values` are (H, W, channels)."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, color_type, 0, 0, 0])
    parts = (chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def rgb_of(data: bytes) -> list[object]:
    rows: list[object] = np.asarray(to_rgb(upright(data))).tolist()
    return rows


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.Jpg", "a.jpeg", "a.WebP", "a.bmp", "a.Avif"])
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


def test_an_avif_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6

    assert check_image(encoded(Image.new("RGB", (30, 20)), "AVIF", exif=exif)) == (20, 30)


def test_pixels_are_turned_as_exif_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned right by a quarter: the top left corner becomes the top right one
    path = tmp_path / "a.png"
    path.write_bytes(encoded(image, exif=exif))

    turned = read_rgb(path)

    assert turned.size == (2, 4)
    assert turned.getpixel((1, 0)) == (255, 0, 0)


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


def test_transparency_may_be_dropped_and_colours_below_it_stay() -> None:
    image = Image.new("RGBA", (1, 1), (10, 20, 30, 0))

    assert to_rgb(image, drop_alpha=True).getpixel((0, 0)) == (10, 20, 30)


def test_16_bit_grey_keeps_its_shades() -> None:
    grey = np.array([[[0], [257 * 100], [65535]]])

    assert rgb_of(png_of(grey, color_type=0)) == [[[0, 0, 0], [100, 100, 100], [255, 255, 255]]]


def test_16_bit_grey_with_a_transparent_shade_lies_over_white() -> None:
    data = png_of(np.array([[[257 * 100], [500]]]), color_type=0, extra=chunk(b"tRNS", (500).to_bytes(2, "big")))

    assert rgb_of(data) == [[[100, 100, 100], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("color_type", "pixel", "rgb"),
    [
        (2, [0, 257 * 100, 65535], [0, 100, 255]),
        (6, [0, 257 * 100, 65535, 65535], [0, 100, 255]),
        (6, [0, 0, 0, 0], [255, 255, 255]),
        (4, [257 * 100, 65535], [100, 100, 100]),
    ],
    ids=["RGB", "RGBA", "transparent RGBA", "grey with alpha"],
)
def test_16_bits_a_channel_become_8(color_type: int, pixel: list[int], rgb: list[int]) -> None:
    assert rgb_of(png_of(np.array([[pixel]]), color_type=color_type)) == [[rgb]]


def test_cmyk_becomes_rgb() -> None:
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))

    assert to_rgb(ink).getpixel((4, 4)) == (255, 0, 0)


def test_inks_that_adobes_programs_store_inverted_become_rgb() -> None:
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)

    assert b"Adobe" in data
    assert np.asarray(to_rgb(upright(data)))[4, 4] == pytest.approx([255, 0, 0], abs=6)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_formats_without_transparency_have_no_alpha(mode: str) -> None:
    assert alpha_of(Image.new(mode, (2, 2))) is None


def test_alpha_says_how_opaque_each_pixel_is() -> None:
    image = Image.new("LA", (2, 1), (9, 40))
    image.putpixel((1, 0), (9, 255))

    alpha = alpha_of(image)

    assert alpha is not None
    assert (alpha.mode, np.asarray(alpha).tolist()) == ("L", [[40, 255]])


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "P"])
def test_every_mode_gives_three_channels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)))

    pixels = np.asarray(read_rgb(path))

    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.full((8, 8, 3), 255))


@pytest.mark.parametrize(
    "data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(UnusableImage):
        check_image(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "AVIF"])
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


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "GIF"])
def test_an_animation_is_refused(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), (value, 0, 0)) for value in (0, 255)]

    with pytest.raises(UnusableImage, match="is an animation"):
        check_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))


def test_a_photo_with_a_preview_inside_is_accepted() -> None:
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 255)]

    assert check_image(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])) == (8, 8)


def test_a_picture_with_the_wrong_extension_still_loads(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.new("RGB", (8, 8), (0, 0, 255)), "BMP"))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_rgb(path).getpixel((0, 0)) == (0, 0, 255)
