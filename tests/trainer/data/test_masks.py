"""Which parts of a picture count: masks found, checked, read."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_api.dataset_spec import Dataset, Regularization, Subset
from lora_trainer.data.dataset import DatasetSources, ScannedDataset, scan
from lora_trainer.data.example import MaskKind
from lora_trainer.data.images import UnusableImage, read_rgb
from lora_trainer.data.masks import check_mask, check_transparency, read_mask
from lora_trainer.errors import InvalidDataset
from tests.support.pictures import write_picture

WHITE = (255, 255, 255)


def spec_of(mask: MaskKind) -> Dataset:
    return Dataset(uri="s3://lora/x", mask=mask, workers=0)


def scan_root(root: Path, mask: MaskKind = "Files") -> ScannedDataset:
    return scan(DatasetSources(root=root), spec_of(mask))


def problems_of(root: Path, mask: MaskKind = "Files") -> list[str]:
    with pytest.raises(InvalidDataset) as caught:
        scan_root(root, mask)
    return [line.removeprefix("- ") for line in str(caught.value).splitlines()[1:]]


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_mask_has_the_name_of_its_picture_but_for_case_and_extension(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "A.png", caption="x")
    path = write_picture(tmp_path / "mask" / "1_x" / "a.BMP", color=WHITE)

    (example,) = scan_root(tmp_path).examples

    assert (example.mask_path, example.mask) == (path, "Files")


def test_masks_of_reg_lie_below_their_folder(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", caption="x")
    write_picture(tmp_path / "mask" / "1_x" / "a.png", color=WHITE)
    for name in ("a", "b"):
        write_picture(tmp_path / "reg" / "1_man" / f"{name}.png")
    path = write_picture(tmp_path / "mask" / "reg" / "1_man" / "b.png", color=WHITE)

    examples = scan_root(tmp_path).examples

    assert [example.mask_path for example in examples[1:]] == [None, path]


def test_masks_of_other_sources_lie_inside_them(tmp_path: Path) -> None:
    write_picture(tmp_path / "data" / "1_x" / "a.png", caption="x")
    write_picture(tmp_path / "data" / "mask" / "1_x" / "a.png", color=WHITE)
    write_picture(tmp_path / "ordinary" / "1_man" / "a.png")
    write_picture(tmp_path / "ordinary" / "mask" / "1_man" / "a.png", color=WHITE)
    sources = DatasetSources(root=tmp_path / "data", regularization=tmp_path / "ordinary")
    spec = Dataset(uri="s3://lora/x", mask="Files", regularization=Regularization(uri="s3://lora/y"))

    scanned = scan(sources, spec)

    assert [e.mask_path.parent.parent.parent.name for e in scanned.examples if e.mask_path] == ["data", "ordinary"]


def test_masks_of_a_subset_lie_inside_it(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", caption="x")
    path = write_picture(tmp_path / "mask" / "a.png", color=WHITE)
    spec = Dataset(subsets=(Subset(uri="s3://lora/x"),), mask="Files")

    (example,) = scan(DatasetSources(subsets=(tmp_path,)), spec).examples

    assert example.mask_path == path


def test_metadata_may_name_masks_which_then_are_no_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "a_mask.png", "b.png", "masks/b.png"):
        write_picture(tmp_path / "1_x" / name, color=WHITE, caption="x")
    lines = [{"file": "a.png", "mask": "a_mask.png"}, {"file": "b.png", "mask": "masks/b.png"}]
    (tmp_path / "1_x" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))

    examples = scan_root(tmp_path).examples

    assert [(e.key, e.mask_path.name) for e in examples if e.mask_path] == [
        ("1_x/a.png", "a_mask.png"),
        ("1_x/b.png", "b.png"),
    ]


def test_a_training_picture_without_mask_is_a_problem(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", caption="x")

    assert problems_of(tmp_path) == ["1_x/a.png has no mask mask/1_x/a.png; draw one, or change spec.dataset.mask"]


def test_a_mask_of_another_size_is_a_problem_with_both_sizes(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", (40, 30), caption="x")
    write_picture(tmp_path / "mask" / "1_x" / "a.png", (30, 40), color=WHITE)

    assert problems_of(tmp_path) == [
        "mask/1_x/a.png is 30x40 px, but its picture is 40x30 px; scale it to the picture's size"
    ]


def test_two_masks_of_one_name_are_a_problem(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", caption="x")
    for name in ("a.jpg", "a.png"):
        write_picture(tmp_path / "mask" / "1_x" / name, color=WHITE)

    assert problems_of(tmp_path) == ["mask/1_x/a.png is a second mask of one name; remove one"]


def test_masks_without_picture_are_a_warning(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", caption="x")
    for name in ("1_x/a.png", "1_x/b.png", "2_y/a.png"):
        write_picture(tmp_path / "mask" / name, color=WHITE)

    assert scan_root(tmp_path).warnings == ("2 masks belong to no picture: mask/1_x/b.png, mask/2_y/a.png.",)


@pytest.mark.parametrize("mask", ["None", "Alpha"])
def test_masks_that_the_spec_does_not_use_are_a_warning(tmp_path: Path, mask: MaskKind) -> None:
    write_picture(tmp_path / "1_x" / "a.png", caption="x")
    write_picture(tmp_path / "mask" / "1_x" / "a.png", color=WHITE)

    scanned = scan_root(tmp_path, mask)

    assert scanned.examples[0].mask_path is None
    assert scanned.warnings == (f"1 masks are not used, because spec.dataset.mask is {mask}: mask/1_x/a.png.",)


def test_another_mask_is_another_dataset(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", caption="x")
    write_picture(tmp_path / "mask" / "1_x" / "a.png", color=WHITE)
    before = scan_root(tmp_path).digest

    write_picture(tmp_path / "mask" / "1_x" / "a.png", color=(200, 200, 200))

    assert scan_root(tmp_path).digest != before


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (Image.new("L", (8, 8), 0), "is black all over, so nothing of its picture would count; whiten what counts"),
        (Image.new("LA", (8, 8), (255, 9)), "has transparency, which a mask cannot have"),
        (Image.new("L", (8, 9), 255), "is 8x9 px, but its picture is 8x8 px"),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused(image: Image.Image, problem: str) -> None:
    with pytest.raises(UnusableImage, match=problem):
        check_mask(png(image), (8, 8))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_a_mask_may_have_any_mode(mode: str) -> None:
    check_mask(png(Image.new("RGB", (8, 8), WHITE).convert(mode)), (8, 8))


def test_a_deep_mask_keeps_its_shades(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", (3, 1), caption="x")
    (tmp_path / "mask" / "1_x").mkdir(parents=True)
    deep = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "mask" / "1_x" / "a.png")

    mask = read_mask(scan_root(tmp_path).examples[0])

    assert mask is not None
    assert (mask.mode, np.asarray(mask).tolist()) == ("L", [[0, 100, 255]])


def write_transparent(path: Path, alphas: list[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGBA", (len(alphas), 1), (10, 20, 30, 0))
    for place, alpha in enumerate(alphas):
        image.putpixel((place, 0), (10, 20, 30, alpha))
    image.save(path)
    return path


def test_transparency_may_be_the_mask_and_colours_below_it_stay(tmp_path: Path) -> None:
    write_transparent(tmp_path / "1_x" / "a.png", [0, 100, 255])

    (example,) = scan_root(tmp_path, "Alpha").examples

    mask = read_mask(example)
    assert mask is not None
    assert np.asarray(mask).tolist() == [[0, 100, 255]]
    assert np.asarray(read_rgb(example.path, drop_alpha=example.drops_alpha)).tolist() == [[[10, 20, 30]] * 3]


def test_a_picture_without_transparency_counts_wholly(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", caption="x")

    for mask in ("None", "Alpha"):
        assert read_mask(scan_root(tmp_path, mask).examples[0]) is None


def test_a_picture_that_is_wholly_transparent_is_a_problem(tmp_path: Path) -> None:
    write_transparent(tmp_path / "1_x" / "a.png", [0, 0])

    assert problems_of(tmp_path, "Alpha") == [
        "1_x/a.png is transparent all over, so nothing of it would count; make opaque what counts"
    ]
    assert scan_root(tmp_path, "None").examples


def test_a_visible_pixel_is_enough(tmp_path: Path) -> None:
    check_transparency(write_transparent(tmp_path / "a.png", [0, 1]).read_bytes())


def test_pixels_of_a_mask_kind_have_a_content_of_their_own(tmp_path: Path) -> None:
    write_transparent(tmp_path / "1_x" / "a.png", [0, 255])

    contents = {scan_root(tmp_path, mask).examples[0].content for mask in ("None", "Alpha")}

    assert len(contents) == 2
