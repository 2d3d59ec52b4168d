"""Loss masks: which parts of a picture count. White counts, black does not.

A mask is the transparency of the picture itself, or a grey picture of the same size: in the folder `mask/`, or named
in `metadata.jsonl`. Used by the scan, which checks them, and by the loader, which reads them.
"""

from pathlib import Path

from PIL import Image

from lora_trainer.data.example import Example
from lora_trainer.data.folders import MASKS, pictures_below
from lora_trainer.data.images import UnusableImage, alpha_of, to_rgb, upright


def read_mask(example: Example) -> Image.Image | None:
    """How much each pixel counts, 0 to 255 (mode L), at the picture's size; None: all count.

    Raises:
        UnusableImage: the mask, or the picture whose transparency it is, does not decode.
    """
    if example.drops_alpha:
        return alpha_of(upright(example.path.read_bytes()))
    return None if example.mask_path is None else _grey(example.mask_path.read_bytes())


def check_mask(data: bytes, size: tuple[int, int]) -> None:
    """Refuses a mask that does not fit a picture of `size` (width, height) in px.

    Raises:
        UnusableImage: it does not decode, has transparency or another size, or is black all over.
    """
    grey = _grey(data)
    if grey.size != size:
        shown = f"{grey.width}x{grey.height} px, but its picture is {size[0]}x{size[1]} px"
        raise UnusableImage(f"is {shown}; scale it to the picture's size")
    if grey.getextrema()[1] == 0:
        raise UnusableImage("is black all over, so nothing of its picture would count; whiten what counts")


def check_transparency(data: bytes) -> None:
    """Refuses a picture that is wholly transparent, as a mask. Raises UnusableImage."""
    alpha = alpha_of(upright(data))
    if alpha is not None and alpha.getextrema()[1] == 0:
        raise UnusableImage("is transparent all over, so nothing of it would count; make opaque what counts")


def find_masks(source: Path) -> tuple[dict[str, Path], list[str]]:
    """The pictures in `mask/` of a source by `name_in_source` of their pictures; and names that occur twice."""
    found: dict[str, Path] = {}
    problems = []
    folder = source / MASKS
    for path in pictures_below(folder) if folder.is_dir() else ():
        name = name_in_source(path, folder)
        if name in found:
            problems.append(f"{MASKS}/{path.relative_to(folder).as_posix()} is a second mask of one name; remove one")
        found[name] = path
    return found, problems


def name_in_source(path: Path, source: Path) -> str:
    """Path of a file relative to its source, without extension; upper and lower case are alike."""
    return path.relative_to(source).with_suffix("").as_posix().casefold()


def _grey(data: bytes) -> Image.Image:
    image = upright(data)
    alpha = alpha_of(image)
    if alpha is not None and alpha.getextrema()[0] != 255:
        raise UnusableImage("has transparency, which a mask cannot have; flatten it to black, grey and white")
    return to_rgb(image, drop_alpha=True).convert("L")
