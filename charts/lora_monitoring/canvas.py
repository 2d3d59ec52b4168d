"""A picture that is drawn on in pixels, from its upper left corner. Used by `preview`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

INK, PALE, RULE, PAPER, UNFILLED, LINK = "#24292e", "#6e7681", "#e3e5e8", "#f4f5f5", "#eceff2", "#1f60c4"
_DPI = 100
_POINTS = 72 / _DPI
"""Of a pixel."""


@dataclass(frozen=True)
class Place:
    """A rectangle of the picture, in pixels."""

    left: float
    top: float
    width: float
    height: float

    def inside(self, left: float, top: float, right: float, bottom: float) -> "Place":
        """What is left of it within these margins."""
        return Place(self.left + left, self.top + top, self.width - left - right, self.height - top - bottom)

    def share(self, of_width: float) -> "Place":
        """Its left part."""
        return Place(self.left, self.top, self.width * of_width, self.height)


class Canvas:
    """Words, rectangles and graphs on one sheet."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=PAPER)

    def text(self, left: float, top: float, words: str, *, size: float = 12, **style: Any) -> None:
        """Words from there on, `size` pixels high; `style` as matplotlib's Text takes it."""
        look = {"color": INK, "va": "top", "fontsize": size * _POINTS, "parse_math": False, **style}
        self.figure.text(left / self.width, 1 - top / self.height, words, **look)

    def fill(self, place: Place, color: str, **style: Any) -> None:
        """A rectangle, below all graphs."""
        *corner, width, height = self._share(place)
        transform = self.figure.transFigure
        self.figure.add_artist(
            Rectangle((corner[0], corner[1]), width, height, facecolor=color, transform=transform, zorder=-1, **style)
        )

    def axes(self, place: Place) -> Axes:
        """Axes without a frame."""
        made = self.figure.add_axes(self._share(place))
        made.set_facecolor("none")
        made.spines[:].set_visible(False)
        made.tick_params(length=0, labelsize=11 * _POINTS, labelcolor=PALE)
        return made

    def write(self, path: Path) -> None:
        """Writes the picture; its name tells the format."""
        self.figure.savefig(path, pil_kwargs={"quality": 82, "method": 6} if path.suffix == ".webp" else {})

    def _share(self, place: Place) -> tuple[float, float, float, float]:
        left, bottom = place.left / self.width, 1 - (place.top + place.height) / self.height
        return left, bottom, place.width / self.width, place.height / self.height
