"""Small pictures and datasets on disk for tests."""

from pathlib import Path

from PIL import Image


def write_picture(
    path: Path,
    size: tuple[int, int] = (64, 64),
    *,
    color: tuple[int, int, int] = (200, 30, 90),
    caption: str | None = None,
) -> Path:
    """Writes a plain picture in the format of its extension, and a caption beside it if one is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path
