"""Section `optimizer`: name, rates, arguments, and the schedule."""

from typing import Any

from lora_api.optimizer_spec import ADAPTIVE, SCHEDULE_FREE
from lora_trainer.migration.arguments import Arguments
from lora_trainer.migration.draft import Draft
from lora_trainer.migration.unusable import UnusableSettings
from lora_trainer.migration.values import read_literal, read_pairs

_NAMES = {
    **{name: name for name in (
        "adamw", "adamw8bit", "pagedadamw", "pagedadamw8bit", "pagedadamw32bit", "lion", "lion8bit", "pagedlion8bit",
        "sgdnesterov", "sgdnesterov8bit", "adafactor", "prodigy", "dadaptation", "dadaptadagrad", "dadaptadam",
        "dadaptadan", "dadaptadanip", "dadaptlion", "dadaptsgd",
    )},
    "dadaptadampreprint": "dadaptation",
    "adamwschedulefree": "schedulefree",
    "radamschedulefree": "radamschedulefree",
    "sgdschedulefree": "sgdschedulefree",
}  # fmt: skip
_PRESET = {
    "adafactor": {"scale_parameter": "False", "relative_step": "False", "warmup_init": "False"},
    "sgdnesterov": {"momentum": "0.9"},
    "sgdnesterov8bit": {"momentum": "0.9"},
}
"""Arguments that are so without being written."""
_SCHEDULES = {
    name: name for name in (
        "constant", "linear", "cosine", "cosine_with_restarts", "cosine_with_min_lr", "polynomial", "inverse_sqrt",
        "warmup_stable_decay", "piecewise_constant",
    )
} | {"constant_with_warmup": "constant", "adafactor": "constant"}  # fmt: skip


def translate_optimizer(arguments: Arguments, draft: Draft) -> None:
    """`optimizer` but LoRA+, and `network.unet` and `network.textEncoder`, which a rate of 0 switches off."""
    name = _optimizer_name(arguments, draft)
    draft.put("optimizer.name", name)
    _translate_arguments(name, arguments, draft)
    _translate_rates(name, arguments, draft)
    _translate_schedule(name, arguments, draft)


def _optimizer_name(arguments: Arguments, draft: Draft) -> str | None:
    if arguments["use_8bit_adam"] or arguments["use_lion_optimizer"]:
        return "adamw8bit" if arguments["use_8bit_adam"] else "lion"
    given = arguments["optimizer_type"]
    if given is None:
        return "adamw" if arguments.complete else None
    name = _NAMES.get(given.lower())
    if name is None:
        draft.leave("optimizer_type", given, "no such optimizer here; adamw is used instead")
    return name or "adamw"


def _translate_arguments(name: str | None, arguments: Arguments, draft: Draft) -> None:
    try:
        pairs = read_pairs(arguments["optimizer_args"] or ())
    except ValueError as error:
        raise UnusableSettings(f"optimizer_args holds '{error}', but must hold name=value; change it") from error
    texts = {key: read_literal(value) for key, value in pairs.items()}
    if name == "adafactor" and texts.get("relative_step", "True") != "False" and arguments.complete:
        reason = "Adafactor would find its own rate; here optimizer.learningRate is used: set it to about 1e-4"
        draft.leave("optimizer_args relative_step", True, reason)
        texts = {key: value for key, value in texts.items() if key not in _PRESET["adafactor"]}
    preset = _PRESET.get(name or "", {})
    texts = {key: value for key, value in texts.items() if preset.get(key) != value}
    draft.put("optimizer.arguments", texts or None)


def _translate_rates(name: str | None, arguments: Arguments, draft: Draft) -> None:
    rate, unet = arguments["learning_rate"], arguments["unet_lr"]
    encoders = arguments["text_encoder_lr"] or ()
    encoder = encoders[0] if encoders else None
    trains_unet = not arguments["network_train_text_encoder_only"] and unet != 0
    trains_encoder = not arguments["network_train_unet_only"] and encoder != 0
    trains_unet &= draft.fields.get("network.unet", True)
    trains_encoder &= draft.fields.get("network.textEncoder", True)
    draft.put("network.unet", None if trains_unet else False)
    draft.put("network.textEncoder", None if trains_encoder else False)
    if len(set(encoders)) > 1:
        reason = "sd-scripts uses the first rate for both text encoders; set optimizer.textEncoder2LearningRate"
        draft.leave("text_encoder_lr", encoders[1:], reason)
    parts = {"unetLearningRate": unet if trains_unet else None, "textEncoderLearningRate": encoder}
    if not trains_encoder:
        del parts["textEncoderLearningRate"]
    if name in ADAPTIVE:
        _translate_one_rate(rate, parts, draft)
        _drop_block_factors(draft)
        return
    if "learning_rate" in arguments.given or None in parts.values():
        draft.put("optimizer.learningRate", rate)
    for field, value in parts.items():
        draft.put(f"optimizer.{field}", value)


def _translate_one_rate(rate: float | None, parts: dict[str, Any], draft: Draft) -> None:
    """Prodigy and D-Adaptation use the rate of the first group, which is the text encoder's if it is trained."""
    rates = [value for value in (parts.get("textEncoderLearningRate"), parts["unetLearningRate"]) if value]
    draft.put("optimizer.learningRate", rates[0] if rates else rate)
    for value in rates[1:]:
        if value != rates[0]:
            draft.leave("unet_lr", value, "this optimizer knows one rate; sd-scripts uses the text encoder's too")


def _drop_block_factors(draft: Draft) -> None:
    """With one rate a block learns at that or, at 0, has no adapter."""
    kept = []
    for block in draft.fields.pop("network.blocks", ()):
        if block.get("learningRateFactor", 0) not in (0, 1):
            reason = "this optimizer knows one learning rate"
            draft.leave(f"network.blocks {block['name']}", f"learningRateFactor {block['learningRateFactor']}", reason)
            block = {name: value for name, value in block.items() if name != "learningRateFactor"}
        if len(block) > 1:
            kept.append(block)
    draft.put("network.blocks", kept or None)


def _translate_schedule(optimizer: str | None, arguments: Arguments, draft: Draft) -> None:
    given = arguments["lr_scheduler"] or "constant"
    name = _SCHEDULES.get(given.lower().partition(":")[0])
    if name is None:
        draft.leave("lr_scheduler", given, "no such schedule here; constant is used instead")
    if optimizer in SCHEDULE_FREE:
        _leave_schedule(name, arguments, draft)
        return
    name = name or "constant"
    draft.put("optimizer.schedule.name", name)
    _put_length(arguments["lr_warmup_steps"], "optimizer.schedule.warmup", draft)
    if name == "warmup_stable_decay":
        _put_length(arguments["lr_decay_steps"], "optimizer.schedule.decay", draft)
    elif arguments["lr_decay_steps"]:
        draft.leave("lr_decay_steps", arguments["lr_decay_steps"], f"has no effect on {name}")
    _translate_shape(name, arguments, draft)


def _leave_schedule(name: str | None, arguments: Arguments, draft: Draft) -> None:
    if name != "constant":
        draft.leave("lr_scheduler", arguments["lr_scheduler"], "a schedule-free optimizer follows none")
    if arguments["lr_warmup_steps"]:
        reason = 'a schedule-free optimizer warms up by itself: optimizer.arguments: {warmup_steps: "100"}'
        draft.leave("lr_warmup_steps", arguments["lr_warmup_steps"], reason)


def _put_length(length: float | None, field: str, draft: Draft) -> None:
    if length:
        draft.put(f"{field}Fraction" if length < 1 else f"{field}Steps", length if length < 1 else int(length))


def _translate_shape(name: str, arguments: Arguments, draft: Draft) -> None:
    """What bends the curve, only for the curves that it belongs to."""
    cycles = arguments["lr_scheduler_num_cycles"]
    if name == "cosine_with_restarts":
        draft.put("optimizer.schedule.cycles", cycles)
    elif name == "cosine_with_min_lr" and cycles not in (None, 1):
        draft.leave("lr_scheduler_num_cycles", cycles, "cosine_with_min_lr is half a wave here")
    if name == "polynomial":
        draft.put("optimizer.schedule.power", arguments["lr_scheduler_power"])
    if name == "inverse_sqrt":
        draft.put("optimizer.schedule.timescale", arguments["lr_scheduler_timescale"])
    if name in ("cosine_with_min_lr", "warmup_stable_decay"):
        draft.put("optimizer.schedule.minRateFraction", arguments["lr_scheduler_min_lr_ratio"])
    options = arguments["lr_scheduler_args"] or ()
    if name == "piecewise_constant":
        draft.put("optimizer.schedule.pieces", _pieces(options))
    elif options:
        draft.leave("lr_scheduler_args", options, f"{name} takes none")


def _pieces(options: tuple[str, ...]) -> list[dict[str, float]]:
    """`step_rules=1:100,0.1:200,0.01`: factor 1, which needs no piece, up to step 100, 0.1 up to 200, then 0.01."""
    try:
        *rules, last = read_pairs(options)["step_rules"].split(",")
        pieces, begin = [], 0
        for rule in rules:
            factor, _, end = rule.partition(":")
            pieces.append({"fromStep": begin, "factor": float(factor)})
            begin = int(end)
        pieces = [*pieces, {"fromStep": begin, "factor": float(last)}]
        return pieces[1:] if pieces[0] == {"fromStep": 0, "factor": 1.0} and len(pieces) > 1 else pieces
    except (ValueError, KeyError) as error:
        raise UnusableSettings(
            f"lr_scheduler_args is '{' '.join(options)}', but piecewise_constant needs step_rules=1:100,0.1; change it"
        ) from error
