"""Section `dataset`: folders, sizes, captions, augmentation, caches; of a run, or of one subset of a definition.

`view` is anything that gives an argument's value by its name: the arguments themselves, or a subset's settings with
those behind them.
"""

from collections.abc import Callable
from typing import Any

from lora_trainer.migration.arguments import ARGUMENTS, Arguments
from lora_trainer.migration.draft import Draft

View = Callable[[str], Any]

_FILTERS = {
    "lanczos": "Lanczos", "nearest": "Nearest", "bilinear": "Bilinear", "linear": "Bilinear", "bicubic": "Bicubic",
    "cubic": "Bicubic", "area": "Box", "box": "Box",
}  # fmt: skip
_VERSIONS = 4
_CHANGING = ("color", "randomCrop", "faceCropRange")
_OWN_PREFIXES = ("dataset.captions.", "dataset.augmentation.")
_OF_A_SUBSET = {
    name: argument.fields[0].removeprefix("dataset.")
    for name, argument in ARGUMENTS.items()
    if argument.as_is and argument.fields[0].startswith(_OWN_PREFIXES) and name != "weighted_captions"
}
"""Argument -> field below `dataset` or below a subset, for what a subset may say for itself."""


def translate_caches(arguments: Arguments, draft: Draft) -> None:
    """Cache, masks and the length of captions, which all subsets share."""
    draft.put("dataset.captions.weighted", arguments["weighted_captions"])
    if arguments.complete or arguments["max_token_length"]:
        draft.put("dataset.captions.maxTokens", arguments["max_token_length"] or 75)
    _translate_cache(arguments, draft)
    if arguments["alpha_mask"] or arguments["masked_loss"]:
        draft.put("dataset.mask", "Alpha" if arguments["alpha_mask"] else "Files")


def _translate_cache(arguments: Arguments, draft: Draft) -> None:
    """Without a cache in sd-scripts ours is kept: the training is the same and faster, but for draws that differ."""
    if arguments["cache_latents_to_disk"]:
        draft.put("dataset.latentCache", "Disk")
    elif arguments["cache_latents"]:
        draft.put("dataset.latentCache", "Memory")
    elif _changes_pixels(draft):
        draft.put("dataset.latentCache", "None")
    if arguments["cache_latents"] and not arguments.complete and _changes_pixels(draft):
        draft.put("dataset.latentVariants", _VERSIONS, "a guess: the metadata does not tell how many were cached")


def _changes_pixels(draft: Draft) -> bool:
    """Whether the draws of a picture differ in more than its side, in all subsets or in one."""
    subsets = (subset.get("augmentation", {}) for subset in draft.fields.get("dataset.subsets", ()))
    shared = {name: draft.fields.get(f"dataset.augmentation.{name}") for name in _CHANGING}
    return any(augmentation.get(name) for augmentation in (shared, *subsets) for name in _CHANGING)


def size_fields(view: View, draft: Draft) -> dict[str, Any]:
    """Resolution and buckets, by their paths below `dataset`."""
    fields: dict[str, Any] = {}
    if view("resolution"):
        fields["resolution"] = _resolution(view("resolution"))
    if view("enable_bucket") is not None:
        fields["buckets.enabled"] = view("enable_bucket")
    if view("enable_bucket"):
        fields |= _bucket_fields(view)
    fields |= _filter_field(view, draft)
    return fields


def _resolution(sides: tuple[float, ...]) -> int | str:
    width, height = int(sides[0]), int(sides[-1])
    return width if width == height else f"{width}x{height}"


def _bucket_fields(view: View) -> dict[str, Any]:
    """Limits that are no multiples of the step go outwards, as in sd-scripts; without effect they are left out."""
    step = view("bucket_reso_steps") or 64
    if view("bucket_no_upscale"):
        return {"buckets.stepPx": step, "buckets.upscale": False}
    smallest, largest = view("min_bucket_reso"), view("max_bucket_reso")
    fields = {
        "buckets.minPx": smallest and smallest // step * step,
        "buckets.maxPx": largest and -(-largest // step) * step,
        "buckets.stepPx": step,
    }
    if view("resolution") and (fields["buckets.minPx"], fields["buckets.maxPx"]) == _our_limits(view, step):
        del fields["buckets.minPx"], fields["buckets.maxPx"]
    return {path: value for path, value in fields.items() if value is not None}


def _our_limits(view: View, step: int) -> tuple[int, int]:
    sides = [int(side) for side in view("resolution")]
    return max(step, min(sides) // 2 // step * step), -(-2 * max(sides) // step) * step


def _filter_field(view: View, draft: Draft) -> dict[str, Any]:
    name = view("resize_interpolation")
    if name is None:
        return {}
    if name not in _FILTERS:
        draft.leave("resize_interpolation", name, f"known are {', '.join(_FILTERS)}; Auto is used instead")
        return {}
    return {"buckets.resizeFilter": _FILTERS[name]}


def own_fields(view: View, draft: Draft) -> dict[str, Any]:
    """Captions and augmentation, by their paths below `dataset` or below a subset."""
    fields = {field: view(name) for name, field in _OF_A_SUBSET.items() if view(name) is not None}
    extension = view("caption_extention") or view("caption_extension")
    if extension is not None:
        fields["captions.extension"] = extension
    return fields | _token_warmup(view) | _face_crop(view, draft)


def _token_warmup(view: View) -> dict[str, Any]:
    step = view("token_warmup_step")
    if not step:
        return {}
    length = {"fraction": step} if step < 1 else {"steps": int(step)}
    return {"captions.tokenWarmup": {"minTags": view("token_warmup_min") or 1, **length}}


def _face_crop(view: View, draft: Draft) -> dict[str, Any]:
    limits = view("face_crop_aug_range")
    if not limits:
        return {}
    if view("enable_bucket") or view("cache_latents") or view("cache_latents_to_disk"):
        reason = "sd-scripts ignores it with buckets or cached latents; here it works: set augmentation.faceCropRange"
        draft.leave("face_crop_aug_range", limits, reason)
        return {}
    return {"augmentation.faceCropRange": {"minimum": limits[0], "maximum": limits[-1]}}
