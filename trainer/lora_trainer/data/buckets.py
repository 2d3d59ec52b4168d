"""Aspect-ratio buckets: at which size a picture is trained, and how it is scaled and cropped to it. Pure.

Follows kohya's sd-scripts, so that the same pictures land in the same buckets. Used for the plan and by the
reading of pictures. Sizes are (width, height) in px, ratios width / height.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from lora_api.dataset_spec import Buckets
from lora_trainer.errors import InvalidConfiguration

Size = tuple[int, int]


@dataclass(frozen=True)
class Placement:
    """How one picture gets its training size: scale to `resized`, then cut `bucket` out at `crop`."""

    bucket: Size
    resized: Size
    crop: tuple[int, int]
    """Offset (x, y) in px of the bucket inside the resized picture."""
    ratio_error: float
    """Ratio of the bucket minus ratio of the picture."""


class TooSmall(ValueError):
    """A picture that would have to be enlarged, while enlarging is off."""


Place = Callable[[int, int], Placement]


def placing(resolution: Size, buckets: Buckets) -> Place:
    """The function `(width, height) -> Placement` of these settings.

    It raises TooSmall when `buckets.upscale` is off and a side of the picture is shorter than a step.

    Raises:
        InvalidConfiguration: the limits of the bucket sides do not fit the resolution.
    """
    if not buckets.enabled:
        return lambda width, height: _cover((width, height), resolution)
    smallest, largest = side_limits(resolution, buckets)
    _check_limits(resolution, smallest, largest, buckets.step_px)
    if not buckets.upscale:
        return lambda width, height: _without_enlarging((width, height), resolution, buckets.step_px)
    sizes = bucket_sizes(resolution, smallest, largest, step=buckets.step_px)
    return lambda width, height: _cover((width, height), _nearest((width, height), sizes))


def side_limits(resolution: Size, buckets: Buckets) -> tuple[int, int]:
    """(smallest, largest) side of a bucket in px: what is set, else half and double of the resolution."""
    step = buckets.step_px
    smallest = buckets.min_px
    if smallest is None:
        smallest = max(step, min(resolution) // 2 // step * step)
    largest = buckets.max_px
    if largest is None:
        largest = math.ceil(2 * max(resolution) / step) * step
    return smallest, largest


def _check_limits(resolution: Size, smallest: int, largest: int, step: int) -> None:
    shown = f"spec.dataset.resolution ({resolution[0]}x{resolution[1]})"
    problem = None
    if step > min(resolution):
        problem = f"spec.dataset.buckets.stepPx is {step}, but must be at most the smaller side of {shown}; lower it"
    elif smallest > min(resolution):
        problem = f"spec.dataset.buckets.minPx is {smallest}, but must be at most the smaller side of {shown}; lower it"
    elif largest < max(resolution):
        problem = f"spec.dataset.buckets.maxPx is {largest}, but must be at least the larger side of {shown}; raise it"
    if problem:
        raise InvalidConfiguration(problem)


def bucket_sizes(resolution: Size, smallest: int, largest: int, *, step: int) -> tuple[Size, ...]:
    """All bucket sizes of at most the resolution's area, ascending."""
    area = resolution[0] * resolution[1]
    square = math.isqrt(area) // step * step
    sizes = {(square, square)}
    for width in range(smallest, largest + 1, step):
        height = min(largest, area // width // step * step)
        if height >= smallest:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def _nearest(picture: Size, sizes: tuple[Size, ...]) -> Size:
    if picture in sizes:
        return picture
    ratio = picture[0] / picture[1]
    # The first of equals wins: min() keeps it, and sizes ascend.
    return min(sizes, key=lambda size: abs(size[0] / size[1] - ratio))


def _cover(picture: Size, bucket: Size) -> Placement:
    width, height = picture
    wider = width / height > bucket[0] / bucket[1]
    scale = bucket[1] / height if wider else bucket[0] / width
    return _cropped(picture, (_rounded(width * scale), _rounded(height * scale)), bucket)


def _without_enlarging(picture: Size, resolution: Size, step: int) -> Placement:
    area = resolution[0] * resolution[1]
    resized = _shrunk(picture, area, step) if picture[0] * picture[1] > area else picture
    bucket = (resized[0] // step * step, resized[1] // step * step)
    if 0 in bucket:
        raise TooSmall(
            f"is {picture[0]}x{picture[1]} px, but a side would be shorter than {step} px; "
            "use a larger picture or set spec.dataset.buckets.upscale to true"
        )
    return _cropped(picture, resized, bucket)


def _shrunk(picture: Size, area: int, step: int) -> Size:
    """The picture at about `area`, with the side on the grid that keeps the ratio better."""
    ratio = picture[0] / picture[1]
    ideal_width = math.sqrt(area * ratio)
    width = _on_grid(ideal_width, step)
    height = _on_grid(area / ideal_width, step)
    other_height, other_width = _on_grid(width / ratio, step), _on_grid(height * ratio, step)
    if _error(width, other_height, ratio) < _error(other_width, height, ratio):
        return width, _rounded(width / ratio)
    return _rounded(height * ratio), height


def _error(width: int, height: int, ratio: float) -> float:
    return abs(width / height - ratio) if height else math.inf


def _cropped(picture: Size, resized: Size, bucket: Size) -> Placement:
    crop = ((resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2)
    return Placement(bucket, resized, crop, bucket[0] / bucket[1] - picture[0] / picture[1])


def _rounded(value: float) -> int:
    return math.floor(value + 0.5)


def _on_grid(value: float, step: int) -> int:
    return _rounded(value) // step * step
