"""A dataset with nothing wrong, and the same with every fault that an audit knows."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

FOLDER = "10_hina woman"
CAPTIONS = 24
_TAGS = ("hina", "smile", "long hair", "looking at viewer", "earrings", "black jacket")


def drawing(seed: int, size: tuple[int, int] = (96, 96)) -> Image.Image:
    """Rectangles with sharp edges, others for each seed."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size[1], size[0], 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(12):
        (left, right), (top, bottom) = (np.sort(rng.integers(0, side, 2)) for side in size)
        pixels[top : bottom + 4, left : right + 4] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


def write_clean_dataset(root: Path) -> Path:
    """24 pictures for 96 px with captions of 6 tags, and 4 for regularisation; returns the concept folder."""
    folder, regularization = root / FOLDER, root / "reg" / "1_woman"
    folder.mkdir(parents=True)
    regularization.mkdir(parents=True)
    for number in range(CAPTIONS):
        drawing(number).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(", ".join(_TAGS) + "\n")
    for number in range(4):
        drawing(100 + number).save(regularization / f"{number}.png")
    return folder


def plant_faults(root: Path) -> set[tuple[str, tuple[str, ...]]]:
    """One fault of every kind in a clean dataset; the kind and the files of each finding that they must give."""
    return {*_plant_captions(root), *_plant_tags(root), *_plant_pictures(root)}


def _plant_captions(root: Path) -> set[tuple[str, tuple[str, ...]]]:
    folder, tags = root / FOLDER, ", ".join(_TAGS)
    (folder / "00.txt").unlink()
    (folder / "01.txt").write_text("")
    (folder / "02.txt").write_bytes(tags.encode("utf-16"))
    (folder / "gone.txt").write_text(tags)
    (folder / "03.txt").write_text(tags.removeprefix("hina, "))
    (folder / "04.txt").write_text(f"{tags}, a caption {'that never ends and goes on ' * 15}")
    (root / "reg" / "1_woman" / "0.txt").write_text("a woman, not hina")
    drawing(200).save(root / "loose.png")
    return {
        ("MissingCaption", (f"{FOLDER}/00.png",)),
        ("UnusableCaption", (f"{FOLDER}/01.txt",)),
        ("UnusableCaption", (f"{FOLDER}/02.txt",)),
        ("OrphanedCaption", (f"{FOLDER}/gone.txt",)),
        ("MissingTrigger", (f"{FOLDER}/03.txt",)),
        ("LongCaption", (f"{FOLDER}/04.txt",)),
        ("TriggerInRegularization", ("reg/1_woman/0.txt",)),
        ("Layout", ()),
    }


def _plant_tags(root: Path) -> set[tuple[str, tuple[str, ...]]]:
    folder, tags = root / FOLDER, ", ".join(_TAGS)
    (folder / "05.txt").write_text(tags.replace("long hair", "Long_hair"))
    (folder / "06.txt").write_text(tags.replace("looking at viewer", "looking at viwer"))
    (folder / "07.txt").write_text(tags.replace("earrings", "earring"))
    (folder / "08.txt").write_text(f"{tags}, smile")
    for name in ("09.txt", "10.txt"):
        (folder / name).write_text(f"{tags}, 1boy")
    return {
        *(("SimilarTags", (f"{FOLDER}/{name}",)) for name in ("05.txt", "06.txt", "07.txt")),
        ("RareTag", (f"{FOLDER}/09.txt", f"{FOLDER}/10.txt")),
        ("RepeatedTag", (f"{FOLDER}/08.txt",)),
    }


def _plant_pictures(root: Path) -> set[tuple[str, tuple[str, ...]]]:
    folder = root / FOLDER
    (folder / "11.png").write_bytes((folder / "12.png").read_bytes())
    drawing(14, (768, 768)).save(folder / "14.png")
    with Image.open(folder / "14.png") as original:
        original.resize((512, 512), Image.Resampling.BICUBIC).save(folder / "13.jpg", quality=60)
    (folder / "13.png").unlink()
    (folder / "15.png").write_bytes((folder / "15.png").read_bytes()[:200])
    drawing(16, (32, 32)).save(folder / "16.png")
    drawing(17, (96, 96)).filter(ImageFilter.GaussianBlur(4)).save(folder / "17.png")
    drawing(18, (400, 60)).save(folder / "18.png")
    (root / "reg" / "1_woman" / "1.png").write_bytes((folder / "19.png").read_bytes())
    return {
        ("SameFile", (f"{FOLDER}/11.png", f"{FOLDER}/12.png")),
        ("SameFile", (f"{FOLDER}/19.png", "reg/1_woman/1.png")),
        ("SamePicture", (f"{FOLDER}/13.jpg", f"{FOLDER}/14.png")),
        ("UnreadablePicture", (f"{FOLDER}/15.png",)),
        ("SmallPicture", (f"{FOLDER}/16.png",)),
        ("BlurredPicture", (f"{FOLDER}/17.png",)),
        ("CroppedPicture", (f"{FOLDER}/18.png",)),
    }
