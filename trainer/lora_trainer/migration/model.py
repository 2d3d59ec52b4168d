"""Section `baseModel`: which model, its family, and what is added to it."""

from lora_trainer.migration.arguments import Arguments
from lora_trainer.migration.draft import Draft
from lora_trainer.migration.locations import to_uri


def translate_model(arguments: Arguments, draft: Draft, *, is_sdxl: bool) -> None:
    """Everything of `baseModel` but its URI."""
    if is_sdxl or arguments["v2"]:
        draft.put("baseModel.family", "sdxl" if is_sdxl else "sd2")
    if arguments["v_parameterization"]:
        draft.put("baseModel.prediction", "v_prediction")
    elif arguments["v2"]:
        draft.put("baseModel.prediction", "epsilon")
    _translate_clip_skip(arguments, draft, is_sdxl=is_sdxl)
    put_place(draft, "vae", arguments["vae"], "baseModel.vaeUri")
    _translate_adapters(arguments, draft)


def put_place(draft: Draft, name: str, place: str | None, field: str) -> None:
    """Sets `field` to the URI of `place`, or notes that it has none."""
    if place is None:
        return
    uri = to_uri(place, may_be_hub=True)
    if uri is None:
        draft.leave(name, place, f"it does not lie here; upload it and set {field}")
    draft.put(field, uri)


def _translate_clip_skip(arguments: Arguments, draft: Draft, *, is_sdxl: bool) -> None:
    skip = arguments["clip_skip"]
    if is_sdxl and skip not in (None, 1):
        draft.leave("clip_skip", skip, "has no effect on SDXL, in sd-scripts neither")
    elif not is_sdxl and skip:
        draft.put("baseModel.clipSkip", skip)


def _translate_adapters(arguments: Arguments, draft: Draft) -> None:
    weights = arguments["base_weights_multiplier"] or ()
    adapters = []
    for index, place in enumerate(arguments["base_weights"] or ()):
        uri = to_uri(place)
        if uri is None:
            draft.leave("base_weights", place, "it does not lie here; upload it and set baseModel.adapters")
        else:
            adapters.append({"uri": uri, "weight": weights[index] if index < len(weights) else 1.0})
    draft.put("baseModel.adapters", adapters or None)
