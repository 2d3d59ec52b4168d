"""Section `training`: length, precision and objective; `checkpoints`, which depend on the length; `evaluation`."""

from typing import Any

from lora_trainer.migration.arguments import ARGUMENTS, Arguments
from lora_trainer.migration.draft import Draft

_MOST_EPOCHS = 10000
_LONGEST_PERIOD = 1000
_MOST_STATES = 100
_PRECISIONS = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}
_HUBER = {"huber_schedule": "huberSchedule", "huber_c": "huberC", "huber_scale": "huberScale"}
_OFFSETS = {"noise_offset_random_strength": "noiseOffsetRandomStrength", "adaptive_noise_scale": "adaptiveNoiseScale"}


def translate_training(arguments: Arguments, draft: Draft) -> None:
    """Everything of `training` that is not taken over as it is, how often an adapter is written, and its measuring."""
    _translate_length(arguments, draft)
    _translate_precision(arguments, draft)
    if arguments["xformers"]:
        draft.put("training.attention", "xformers")
    if arguments["validation_split"]:
        draft.put("dataset.validationFraction", arguments["validation_split"])
        draft.put("evaluation.bestEpoch.by", "ValidationLoss")
    _translate_noise(arguments, draft)
    _translate_weights(arguments, draft)


def _translate_length(arguments: Arguments, draft: Draft) -> None:
    """Steps alone say nothing of epochs, so as many are allowed as there can be."""
    epochs, steps = arguments["max_train_epochs"], arguments["max_train_steps"]
    if epochs:
        draft.put("training.epochs", epochs)
    elif steps:
        draft.put("training.epochs", _MOST_EPOCHS, "no limit: maxSteps ends the training; `lora plan` shows the epochs")
        draft.put("training.maxSteps", steps)
    _translate_saving(arguments, epochs, draft)
    _translate_states(arguments, draft)


def _translate_saving(arguments: Arguments, epochs: int | None, draft: Draft) -> None:
    period, ratio = arguments["save_every_n_epochs"], arguments["save_n_epoch_ratio"]
    if period:
        draft.put("checkpoints.everyEpochs", period)
    elif ratio and epochs:
        draft.put("checkpoints.everyEpochs", max(1, epochs // ratio))
    elif ratio:
        draft.leave("save_n_epoch_ratio", ratio, "set checkpoints.everyEpochs; the number of epochs is not known here")
    elif arguments.complete:
        rarest = min(epochs or _LONGEST_PERIOD, _LONGEST_PERIOD)
        draft.put("checkpoints.everyEpochs", rarest, "only at the end, as sd-scripts does unless told otherwise")


def _translate_states(arguments: Arguments, draft: Draft) -> None:
    """States every n steps and how many are kept: a number of them for epochs, a stretch of steps for steps."""
    every, stretch = arguments["save_every_n_steps"], arguments["save_last_n_steps_state"]
    draft.put("checkpoints.everySteps", every, "states to go on from; adapters are written after epochs")
    kept = [arguments["save_last_n_epochs_state"] or 0, stretch // every + 1 if stretch and every else 0]
    if max(kept) > 0:
        draft.put("checkpoints.keepLast", min(max(kept), _MOST_STATES))
    elif stretch:
        draft.leave("save_last_n_steps_state", stretch, "has no effect without save_every_n_steps")


def _translate_precision(arguments: Arguments, draft: Draft) -> None:
    mixed = arguments["mixed_precision"]
    full = arguments["full_fp16"] or arguments["full_bf16"]
    if mixed is not None:
        draft.put("training.precision", _PRECISIONS.get(mixed.lower(), mixed))
    if full and (mixed or "no").lower() != "no":
        draft.put("training.fullPrecision", True)
    elif full:
        draft.leave("full_fp16", True, "has no effect without mixed_precision")


def _translate_noise(arguments: Arguments, draft: Draft) -> None:
    """Kinds of noise that are off are left out with everything that belongs to them."""
    if arguments["noise_offset"]:
        draft.put("training.loss.noiseOffset", arguments["noise_offset"])
        for name, field in _OFFSETS.items():
            draft.put(f"training.loss.{field}", arguments[name] or None)
    elif arguments["adaptive_noise_scale"]:
        draft.leave("adaptive_noise_scale", arguments["adaptive_noise_scale"], "has no effect without noise_offset")
    if arguments["multires_noise_iterations"]:
        draft.put("training.loss.multiresNoiseIterations", arguments["multires_noise_iterations"])
        draft.put("training.loss.multiresNoiseDiscount", _unless_default("multires_noise_discount", arguments))
    if arguments["ip_noise_gamma"]:
        draft.put("training.loss.ipNoiseGamma", arguments["ip_noise_gamma"])
        draft.put("training.loss.ipNoiseGammaRandomStrength", arguments["ip_noise_gamma_random_strength"])


def _translate_weights(arguments: Arguments, draft: Draft) -> None:
    draft.put("training.loss.minSnrGamma", arguments["min_snr_gamma"] or None)
    draft.put("training.loss.vPredictionLikeLoss", arguments["v_pred_like_loss"] or None)
    if arguments["zero_terminal_snr"] and not arguments["v_parameterization"]:
        reason = "belongs to v-prediction: without it the last step's noise cannot be predicted"
        draft.leave("zero_terminal_snr", True, reason)
    elif arguments["zero_terminal_snr"]:
        draft.put("training.loss.zeroTerminalSnr", True)
    if arguments["loss_type"] in ("huber", "smooth_l1"):
        for name, field in _HUBER.items():
            if name != "huber_scale" or arguments["huber_schedule"] not in (None, "snr"):
                draft.put(f"training.loss.{field}", _unless_default(name, arguments))


def _unless_default(name: str, arguments: Arguments) -> Any:
    """The value, or None where it is the default of sd-scripts, which is ours as well."""
    return None if arguments[name] == ARGUMENTS[name].default else arguments[name]
