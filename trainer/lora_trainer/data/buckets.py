"""Aspect-ratio buckets: at which size a picture is trained, and how it is scaled and cropped to it. Pure.

Follows kohya's sd-scripts, so that the same pictures land in the same buckets. Used for the plan and by the
reading of pictures. Sizes are (width, height) in px, ratios width / height.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from lora_api.dataset_spec import Buckets, CropPosition
from lora_trainer.errors import InvalidConfiguration

Size = tuple[int, int]

_MOST_AREA = 50
"""A picture scaled to more than this many times its bucket's area is refused: next to nothing of it would be left."""


@dataclass(frozen=True)
class Placement:
    """How one picture gets its training size: scale to `resized`, then cut `bucket` out at `crop`."""

    bucket: Size
    resized: Size
    crop: tuple[int, int]
    """Offset (x, y) in px of the bucket inside the resized picture."""
    ratio_error: float
    """Ratio of the bucket minus ratio of the picture."""

    @property
    def crop_loss(self) -> float:
        """Share of the scaled picture's area that is cut off, 0 to 1."""
        return 1 - self.bucket[0] * self.bucket[1] / (self.resized[0] * self.resized[1])


class TooSmall(ValueError):
    """A picture too small for a bucket while enlarging is off, or too narrow for any."""


Place = Callable[[int, int], Placement]


def placing(resolution: Size, buckets: Buckets) -> Place:
    """The function `(width, height) -> Placement` of these settings.

    It raises TooSmall when `buckets.upscale` is off and a side of the picture is shorter than a step, where
    sd-scripts divides by zero or makes an empty bucket; and when cropping would leave less than 2 % of it.

    Raises:
        InvalidConfiguration: the limits of the bucket sides do not fit the resolution.
    """
    to_bucket = _to_bucket(resolution, buckets)

    def place(width: int, height: int) -> Placement:
        placement = to_bucket((width, height))
        crop = _crop_at(buckets.crop_position, placement.resized, placement.bucket)
        return replace(placement, crop=crop)

    return place


def _to_bucket(resolution: Size, buckets: Buckets) -> Callable[[Size], Placement]:
    if not buckets.enabled:
        return lambda picture: _cover(picture, resolution)
    smallest, largest = side_limits(resolution, buckets)
    _check_limits(resolution, smallest, largest, buckets.step_px)
    if not buckets.upscale:
        return lambda picture: _without_enlarging(picture, resolution, buckets.step_px)
    sizes = bucket_sizes(resolution, smallest, largest, step=buckets.step_px)
    return lambda picture: _cover(picture, _nearest(picture, sizes))


def letterbox(picture: Size, bucket: Size) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in px of the whole picture laid into its bucket without cropping, centred.

    SDXL gets left and top of this as the offset of the crop, as in sd-scripts (its `crop_ltrb`): it is not the
    crop that was made, but adapters trained there learnt these numbers.
    """
    ratio = picture[0] / picture[1]
    width, height = float(bucket[0]), float(bucket[1])
    if width / height > ratio:
        width = height * ratio
    else:
        height = width / ratio
    left, top = (bucket[0] - width) // 2, (bucket[1] - height) // 2
    return left, top, left + width, top + height


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
    resized = (_rounded(width * scale), _rounded(height * scale))
    if resized[0] * resized[1] > _MOST_AREA * bucket[0] * bucket[1]:
        raise TooSmall(
            f"is {width}x{height} px, so narrow that less than {100 // _MOST_AREA} % of it would be left in a bucket "
            f"of {bucket[0]}x{bucket[1]} px; crop it yourself"
        )
    return _cropped(picture, resized, bucket)


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
    crop = _crop_at("Center", resized, bucket)
    return Placement(bucket, resized, crop, bucket[0] / bucket[1] - picture[0] / picture[1])


def _crop_at(position: CropPosition, resized: Size, bucket: Size) -> tuple[int, int]:
    """Offset of the bucket: at the side that `position` names, in the middle of the other axis."""
    over_x, over_y = resized[0] - bucket[0], resized[1] - bucket[1]
    x = {"Left": 0, "Right": over_x}.get(position, over_x // 2)
    y = {"Top": 0, "Bottom": over_y}.get(position, over_y // 2)
    return x, y


def _rounded(value: float) -> int:
    return math.floor(value + 0.5)


def _on_grid(value: float, step: int) -> int:
    return _rounded(value) // step * step
