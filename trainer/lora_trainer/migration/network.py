"""Section `network`: kind of adapter, ranks, dropouts, which parts, from network_module and network_args."""

from lora_trainer.migration.arguments import Arguments
from lora_trainer.migration.blocks import block_entries, take_block_lists
from lora_trainer.migration.draft import Draft
from lora_trainer.migration.model import put_place
from lora_trainer.migration.unusable import UnusableSettings
from lora_trainer.migration.values import Kind, read_pairs, read_value

_KOHYA, _LYCORIS = "networks.lora", "lycoris.kohya"
_ALGORITHMS = {"lora": "locon", "locon": "locon", "loha": "loha", "lokr": "lokr"}
_LINEAR_PRESETS = {"attn-mlp", "unet-transformer-only"}
BLOCKS_PRESET = "blocks"
"""What our own files call `full`: all of it but the layers outside of blocks."""
_NOT_ADAPTED = "conv_in, conv_out and the time embedding"
_OFF = {"", "false", "0", "0.0", "none"}
_PLUS = {
    "loraplus_lr_ratio": "ratio",
    "loraplus_unet_lr_ratio": "unetRatio",
    "loraplus_text_encoder_lr_ratio": "textEncoderRatio",
}


def translate_network(arguments: Arguments, draft: Draft, *, is_sdxl: bool) -> None:
    """`network`, and `optimizer.loraPlus`, which sd-scripts counts among the network's arguments."""
    module = arguments["network_module"]
    options = _read_options(arguments)
    blockwise, unread = take_block_lists(options)
    for name, value in unread.items():
        draft.leave(f"network_args {name}", value, "is not read without ranks of blocks, in sd-scripts neither")
    if module == _LYCORIS:
        _translate_lycoris(arguments, options, draft)
    elif module is not None or arguments.complete:
        _translate_kohya(module or _KOHYA, options, draft, has_block_ranks="conv_block_dims" in blockwise)
    draft.put("network.alpha", _alpha(arguments))
    _put_number(options, "rank_dropout", "network.rankDropout", draft)
    _put_number(options, "module_dropout", "network.moduleDropout", draft)
    _put_number(options, "dropout", "network.dropout", draft)
    draft.put("network.blocks", block_entries(blockwise, draft.fields, is_sdxl=is_sdxl) or None)
    _translate_lora_plus(options, draft)
    put_place(draft, "network_weights", arguments["network_weights"], "network.initialUri")
    for name, value in options.items():
        if value.lower() not in _OFF:
            draft.leave(f"network_args {name}", value, "no option of an adapter that is known here")


def _read_options(arguments: Arguments) -> dict[str, str]:
    texts = arguments["network_args"] or ()
    try:
        pairs = read_pairs(texts)
    except ValueError as error:
        raise UnusableSettings(f"network_args holds '{error}', but must hold name=value; change it") from error
    return {name: value for name, value in pairs.items() if value not in {"", "None", "null"}}


def _alpha(arguments: Arguments) -> float | None:
    """0 means the rank, as in sd-scripts."""
    alpha = arguments["network_alpha"]
    return float(arguments["network_dim"] or 4) if alpha == 0 else alpha


def _translate_kohya(module: str, options: dict[str, str], draft: Draft, *, has_block_ranks: bool) -> None:
    """Convolutions are adapted with a rank of their own, or with ranks of theirs in blocks."""
    if module != _KOHYA:
        reason = "no such adapter here; lora, or with conv_dim locon, is used instead"
        draft.leave("network_module", module, reason)
    convolutions = _take(options, "conv_dim")
    alpha = _take(options, "conv_alpha")
    if not convolutions and not has_block_ranks:
        draft.put("network.type", "lora")
        return
    draft.put("network.type", "locon")
    draft.put("network.convRank", convolutions and int(convolutions))
    draft.put("network.convAlpha", 1.0 if alpha is None else alpha or convolutions)


def _translate_lycoris(arguments: Arguments, options: dict[str, str], draft: Draft) -> None:
    algorithm = options.pop("algo", "lora").lower()
    if algorithm not in _ALGORITHMS:
        draft.leave("network_args algo", algorithm, "no such adapter here; locon is used instead")
    kind = _ALGORITHMS.get(algorithm, "locon")
    preset = options.pop("preset", "full")
    decomposed = options.pop("dora_wd", "false").lower() not in _OFF
    if decomposed and kind == "locon":
        kind = "dora"
    elif decomposed:
        draft.leave("network_args dora_wd", True, f"weight decomposition of {kind} is not known here")
    options.pop("wd_on_output", None)  # DoRA normalises by output here, as LyCORIS recommends
    _translate_preset(preset, draft)
    _translate_lycoris_ranks(kind, preset, arguments, options, draft)
    if options.get("rank_dropout", "0") not in _OFF and options.pop("rank_dropout_scale", "false").lower() in _OFF:
        draft.leave("network_args rank_dropout_scale", False, "the ranks that stay are always scaled up")
    factor = _take(options, "factor")
    draft.put("network.lokrFactor", int(factor) if factor and factor > 1 and kind == "lokr" else None)


def _translate_preset(preset: str, draft: Draft) -> None:
    if preset == "unet-transformer-only":
        draft.put("network.textEncoder", False)
    elif preset == "full":
        draft.leave("network_args preset", preset, f"all is adapted but {_NOT_ADAPTED}")
    elif preset not in _LINEAR_PRESETS | {BLOCKS_PRESET}:
        draft.leave("network_args preset", preset, f"known are full and attn-mlp; all is adapted but {_NOT_ADAPTED}")


def _translate_lycoris_ranks(
    kind: str, preset: str, arguments: Arguments, options: dict[str, str], draft: Draft
) -> None:
    """Without conv_dim, LyCORIS adapts convolutions at the rank and alpha of the other layers."""
    rank, alpha = _take(options, "conv_dim"), _take(options, "conv_alpha")
    if preset in _LINEAR_PRESETS:
        draft.put("network.type", "lora" if kind == "locon" else kind)
        return
    draft.put("network.type", kind)
    draft.put("network.convRank", int(rank or arguments["network_dim"] or 4))
    draft.put("network.convAlpha", alpha or _alpha(arguments))


def _translate_lora_plus(options: dict[str, str], draft: Draft) -> None:
    ratios = {field: _take(options, name) for name, field in _PLUS.items()}
    if not any(ratios.values()):
        return
    ratios["ratio"] = ratios["ratio"] or 1.0
    for field, ratio in ratios.items():
        draft.put(f"optimizer.loraPlus.{field}", ratio or None)


def _put_number(options: dict[str, str], name: str, field: str, draft: Draft) -> None:
    draft.put(field, _take(options, name))


def _take(options: dict[str, str], name: str) -> float | None:
    """Removes an option and reads it as a number."""
    text = options.pop(name, None)
    try:
        number: float | None = read_value(Kind.NUMBER, text)
    except ValueError as error:
        raise UnusableSettings(f"network_args {name} is '{text}', but must be a number; change it") from error
    return number
