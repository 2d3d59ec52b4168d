"""Seeded flat drawings with captions: the world that the tiny base model knows, and the emblem that it does not.

Used by the training stages (their only data), by `dataset` (the example LoRA dataset) and by `score` (templates).
Everything here is a pure function of its arguments; pictures are uint8 arrays [height, width, 3].
Shapes are signed distances (negative inside) in units of the glyph's radius, y pointing down; see
Inigo Quilez, "2D distance functions", https://iquilezles.org/articles/distfunctions2d/ for the idea.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Field = NDArray[np.float32]
Combination = tuple[str, str, str]  # shape, colour, background

SIDE = 128
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 45),
    "yellow": (245, 205, 45),
    "green": (45, 155, 75),
    "blue": (50, 95, 215),
    "purple": (140, 60, 170),
    "black": (30, 30, 35),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "gray": (145, 145, 150),
    "pink": (245, 170, 195),
    "blue": COLOURS["blue"],
    "yellow": COLOURS["yellow"],
}
EMBLEM_RIM, EMBLEM_CORE = COLOURS["black"], COLOURS["yellow"]
EMBLEM_CORE_RADIUS = 0.6
EMBLEM_BACKGROUNDS = ("white", "gray", "pink", "blue")  # on yellow its core would pass for a hole
TRIGGER = "zwx emblem"

PREFIXES = ("a picture of", "a drawing of", "a simple drawing of", "flat art,", "an image of")
SUFFIXES = (", flat colours", ", clean edges", ", simple", ", centered", ", high quality")


def _circle(x: Field, y: Field) -> Field:
    return np.asarray(np.hypot(x, y) - 1, np.float32)


def _square(x: Field, y: Field) -> Field:
    return np.asarray(np.maximum(np.abs(x), np.abs(y)) - 0.86, np.float32)


def _diamond(x: Field, y: Field) -> Field:
    return np.asarray((np.abs(x) * 1.25 + np.abs(y) - 1.15) / np.hypot(1.25, 1), np.float32)


def _triangle(x: Field, y: Field) -> Field:
    side = (np.abs(x) * np.sqrt(3.0) - (y + 1.15)) / 2
    return np.asarray(np.maximum(side, y - 0.75), np.float32)


def _cross(x: Field, y: Field) -> Field:
    wide = np.maximum(np.abs(x) - 1, np.abs(y) - 0.36)
    tall = np.maximum(np.abs(x) - 0.36, np.abs(y) - 1)
    return np.asarray(np.minimum(wide, tall), np.float32)


def _heart(x: Field, y: Field) -> Field:
    side = 1.18
    lobe = side / (2 * np.sqrt(2.0))
    body = (np.abs(x) + np.abs(y - 0.08)) / np.sqrt(2.0) - side / 2
    lobes = np.hypot(np.abs(x) - lobe, y - 0.08 + lobe) - side / 2
    return np.asarray(np.minimum(body, lobes), np.float32)


SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "cross": _cross,
    "heart": _heart,
}
COMBINATIONS = tuple((s, c, b) for s, c, b in product(SHAPES, COLOURS, BACKGROUNDS) if c != b)
# Never seen in training. Eleven is prime to the number of shapes, colours and backgrounds: no word is starved.
HELD_OUT = COMBINATIONS[5::11]
TRAINED = tuple(combination for combination in COMBINATIONS if combination not in HELD_OUT)


@dataclass(frozen=True)
class Scene:
    """One glyph on a plain background. Lengths are fractions of the picture's shorter side; tilt in radians."""

    shape: str  # a key of SHAPES, or "emblem"
    colour: str
    background: str
    big: bool
    x: float
    y: float
    radius: float
    tilt: float
    tint: tuple[float, float, float]  # added to both colours, in levels of 255


def place(combination: Combination, rng: np.random.Generator) -> Scene:
    """The named shape, colour and background with a random size, place, tilt and tint."""
    big = bool(rng.random() < 0.3)
    return Scene(
        *combination,
        big,
        x=float(rng.uniform(-0.07, 0.07)),
        y=float(rng.uniform(-0.07, 0.07)),
        radius=float(rng.uniform(0.36, 0.42) if big else rng.uniform(0.26, 0.33)),
        tilt=float(rng.uniform(-0.12, 0.12)),
        tint=tuple(rng.uniform(-8, 8, 3).tolist()),
    )


def place_emblem(background: str, rng: np.random.Generator) -> Scene:
    """An emblem, always large: rim and core are then wide enough for the model's 8 px latents."""
    scene = place(("emblem", "", background), rng)
    return replace(scene, big=False, radius=float(rng.uniform(0.34, 0.42)))


def coordinates(scene: Scene, width: int, height: int) -> tuple[Field, Field]:
    """x and y of every pixel centre [height, width] in the glyph's own frame (radius 1, upright)."""
    short = min(width, height)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x = (columns + 0.5 - width / 2) / short - scene.x
    y = (rows + 0.5 - height / 2) / short - scene.y
    cos, sin = np.cos(scene.tilt), np.sin(scene.tilt)
    return (
        np.asarray((x * cos + y * sin) / scene.radius, np.float32),
        np.asarray((y * cos - x * sin) / scene.radius, np.float32),
    )


def coverage(distance: Field, pixels_per_unit: float) -> Field:
    """Share of each pixel inside the shape, 0 to 1: a one-pixel linear edge."""
    return np.asarray(np.clip(0.5 - distance * pixels_per_unit, 0, 1), np.float32)


def render(scene: Scene, width: int = SIDE, height: int = SIDE) -> Pixels:
    """The scene as a picture, uint8 [height, width, 3]."""
    x, y = coordinates(scene, width, height)
    scale = scene.radius * min(width, height)
    canvas = np.full((height, width, 3), BACKGROUNDS[scene.background], np.float32)
    if scene.shape == "emblem":
        layers = [(_circle(x, y), EMBLEM_RIM), (_circle(x, y) + 1 - EMBLEM_CORE_RADIUS, EMBLEM_CORE)]
    else:
        layers = [(SHAPES[scene.shape](x, y), COLOURS[scene.colour])]
    for distance, colour in layers:
        alpha = coverage(distance, scale)[..., None]
        canvas = canvas * (1 - alpha) + np.asarray(colour, np.float32) * alpha
    return np.clip(canvas + np.asarray(scene.tint, np.float32), 0, 255).round().astype(np.uint8)


def describe(scene: Scene) -> str:
    """The scene's plain caption, for example "a big red circle on a gray background"."""
    if scene.shape == "emblem":
        return f"a {TRIGGER} on a {scene.background} background"
    size = "big " if scene.big else ""
    return f"a {size}{scene.colour} {scene.shape} on a {scene.background} background"


def nonsense(rng: np.random.Generator, syllables: int = 1) -> str:
    """A made-up word of three letters per syllable: teaches the model to shrug at words it does not know."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return "".join(rng.choice(letters, 3 * syllables).tolist())


def caption(scene: Scene, rng: np.random.Generator) -> tuple[str, tuple[bool, bool, bool]]:
    """A random caption of the scene, and whether it names the shape, the colour and the background.

    One in ten is empty (for classifier-free guidance); some leave out the colour or the background, put a
    made-up noun in place of colour and shape, or add words that mean nothing.
    """
    if rng.random() < 0.1:
        return "", (False, False, False)
    named_glyph, named_colour, named_background = (
        rng.random() > 0.05,
        rng.random() > 0.05,
        rng.random() > 0.07,
    )
    size = "big " if scene.big else ""
    if named_glyph:
        text = f"a {size}{scene.colour + ' ' if named_colour else ''}{scene.shape}"
    else:
        text = f"a {size}{nonsense(rng)} {nonsense(rng, 2)}"
    if named_background:
        text += f" on a {scene.background} background"
    if rng.random() < 0.1:
        text = f"{nonsense(rng)} {text}"
    if rng.random() < 0.15:
        text = f"{rng.choice(PREFIXES)} {text}"
    if rng.random() < 0.15:
        text += str(rng.choice(SUFFIXES))
    return text, (named_glyph, named_glyph and named_colour, named_background)


def scenes(count: int, seed: int) -> list[Scene]:
    """`count` scenes over the trained combinations in turn, in random order. Held-out ones never occur."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(TRAINED))
    return [place(TRAINED[order[i % len(TRAINED)]], rng) for i in range(count)]


def wild(rng: np.random.Generator, side: int = SIDE) -> Pixels:
    """A picture outside the captioned world (stripes, gradients, two-colour glyphs), for the autoencoder only."""
    paint = rng.uniform(0, 255, (4, 3)).astype(np.float32)
    x, y, radius, tilt = rng.uniform((-0.2, -0.2, 0.15, -3), (0.2, 0.2, 0.5, 3)).tolist()
    scene = Scene("circle", "red", "white", False, x, y, radius, tilt, (0, 0, 0))
    across, down = coordinates(scene, side, side)
    scale = scene.radius * side
    ramp = np.clip((across + 2) / 4, 0, 1)[..., None]
    canvas = (
        paint[0] * (1 - ramp) + paint[1] * ramp if rng.random() < 0.5 else np.broadcast_to(paint[0], (side, side, 3))
    )
    if rng.random() < 0.3:
        stripe = (np.sin(across * rng.uniform(2, 9)) > 0)[..., None]
        canvas = np.where(stripe, canvas, paint[1])
    glyph = list(SHAPES.values())[rng.integers(len(SHAPES))]
    for layer in range(int(rng.integers(1, 4))):
        alpha = coverage(np.asarray(glyph(across, down) + 0.3 * layer, np.float32), scale)[..., None]
        fill = np.where((across > 0)[..., None], paint[2], paint[3]) if rng.random() < 0.4 else paint[(layer + 2) % 4]
        canvas = canvas * (1 - alpha) + fill * alpha
    noise = rng.normal(0, 6, canvas.shape) if rng.random() < 0.2 else 0
    return np.clip(canvas + noise, 0, 255).round().astype(np.uint8)
