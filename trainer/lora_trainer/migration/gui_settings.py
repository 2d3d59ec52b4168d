"""The settings file of the Kohya_ss GUI (JSON): its own words made the arguments that it would have passed on.

The GUI passes on neither empty texts nor zeros, and computes steps and warm-up; the epochs and the percentage that the
user typed are taken instead.
"""

import shlex
from collections.abc import Mapping
from typing import Any

from lora_trainer.migration.arguments import ARGUMENTS
from lora_trainer.migration.command_line import read_options
from lora_trainer.migration.draft import Leftover
from lora_trainer.migration.parallelism import parallelism_fields
from lora_trainer.migration.prompts import read_prompts
from lora_trainer.migration.source import Source
from lora_trainer.migration.unusable import UnusableSettings
from lora_trainer.migration.values import Kind, read_value

_RENAMED = {
    "max_resolution": "resolution",
    "optimizer": "optimizer_type",
    "lora_network_weights": "network_weights",
    "sdxl_no_half_vae": "no_half_vae",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
}
_DEFAULTS: Mapping[str, Any] = {
    "bucket_no_upscale": True, "cache_latents": True, "caption_extension": ".txt", "clip_skip": 1,
    "enable_bucket": True, "epoch": 1, "learning_rate": 0.0001, "lr_scheduler": "cosine", "lr_warmup": 10,
    "max_bucket_reso": 2048, "max_data_loader_n_workers": 0, "max_timestep": 1000, "max_token_length": 75,
    "max_train_steps": 1600, "mixed_precision": "fp16", "network_alpha": 1, "network_dim": 8,
    "optimizer": "AdamW8bit", "max_resolution": "512,512", "sample_sampler": "euler_a", "save_every_n_epochs": 1,
    "save_precision": "fp16", "text_encoder_lr": 0.0001, "unet_lr": 0.0001, "xformers": "xformers",
    "LoRA_type": "Standard",
}  # fmt: skip
"""What the GUI shows before anything is changed; counts for presets, which hold some settings only."""
_KOHYA, _LYCORIS = "networks.lora", "lycoris.kohya"
_TYPES = {
    "Standard": (_KOHYA, ""),
    "Kohya LoCon": (_KOHYA, ""),
    "LoRA-FA": ("networks.lora_fa", ""),
    "Kohya DyLoRA": ("networks.dylora", ""),
    "LoCon": (_LYCORIS, "locon"),
    "LyCORIS/LoCon": (_LYCORIS, "locon"),
    "LyCORIS/LoHa": (_LYCORIS, "loha"),
    "LyCORIS/LoKr": (_LYCORIS, "lokr"),
}
"""Kind of adapter -> module and algorithm; other kinds are LyCORIS algorithms that are not known here."""
_KOHYA_ARGUMENTS = ("block_alphas", "block_dims", "block_lr_zero_threshold", "conv_block_alphas", "conv_block_dims",
                    "down_lr_weight", "mid_lr_weight", "up_lr_weight", "rank_dropout", "module_dropout")  # fmt: skip
_LYCORIS_ARGUMENTS = ("bypass_mode", "decompose_both", "dora_wd", "factor", "module_dropout", "rank_dropout",
                      "rank_dropout_scale", "train_norm", "use_cp", "use_scalar", "use_tucker")  # fmt: skip
_PLUS_ARGUMENTS = ("loraplus_lr_ratio", "loraplus_text_encoder_lr_ratio", "loraplus_unet_lr_ratio")
_OTHER_ARGUMENTS = frozenset({"LoRA_type", "LyCORIS_preset", "conv_dim", "conv_alpha", "constrain", "rescaled", "unit",
                              "train_on_input", "conv_alphas", "conv_dims"})  # fmt: skip
_OTHER_FAMILIES = ("flux1_checkbox", "sd3_checkbox", "lumina_checkbox", "anima_checkbox")
_OF_THE_GUI = frozenset({
    "epoch", "lr_warmup", "lr_warmup_steps", "max_train_steps", "model_list", "noise_offset_type", "sdxl", "xformers",
    "sample_prompts", "num_processes", "num_machines", "no_token_padding", "save_as", "file_path", "unet_lr",
    "text_encoder_lr", "lr_scheduler_num_cycles", "train_data_dir_input", "additional_parameters",
})  # fmt: skip
"""Keys that are read here, or that only say how the GUI was used."""
_OFF = (None, "", False, 0, "0", 0.0)
_REASONS = {
    "stop_text_encoder_training": "the text encoder is trained to the end or, with network.textEncoder: false, not",
    "num_cpu_threads_per_process": "set pod.resources",
    "gpu_ids": "the cluster chooses the GPU",
    "multi_gpu": "one GPU trains",
    "main_process_port": "one process trains",
    "lowvram": "set training.lowMemory",
    "dynamo_mode": "set training.compile",
    "dynamo_use_fullgraph": "set training.compile",
    "dynamo_use_dynamic": "set training.compile",
    "extra_accelerate_launch_args": "accelerate is not used",
    "use_wandb": "figures are Prometheus metrics and evaluation/metrics.jsonl beside the adapters",
}


def read_gui_settings(document: Mapping[str, Any]) -> Source:
    """The arguments that the GUI stands for.

    Raises:
        UnusableSettings: the settings train a model that is not known here, or a number is none.
    """
    other = [name for name in _OTHER_FAMILIES if document.get(name)]
    if other:
        raise UnusableSettings(f"{other[0]} is on, but only Stable Diffusion 1, 2 and XL can be trained here")
    # Files older than the box for steps count in epochs.
    steps = {"max_train_steps": 0} if "epoch" in document else {}
    settings = {**_DEFAULTS, **steps, **document}
    raw = {name: value for name, value in settings.items() if value not in _OFF and name in ARGUMENTS}
    for name, argument in _RENAMED.items():
        if settings.get(name) not in _OFF:
            raw[argument] = settings[name]
    raw = {name: value for name, value in raw.items() if name not in _OF_THE_GUI} | _computed(settings)
    more, more_leftovers = _additional(str(settings.get("additional_parameters") or ""))
    prompts, prompt_leftovers = read_prompts(
        str(settings.get("sample_prompts") or ""), sampler=settings["sample_sampler"]
    )
    return Source(
        "Kohya_ss settings",
        raw | more,
        is_sdxl=bool(settings.get("sdxl")),
        prompts=prompts,
        fields=_parallelism(settings),
        leftovers=(*prompt_leftovers, *more_leftovers, *_unused(settings)),
    )


def _additional(text: str) -> tuple[dict[str, Any], list[Leftover]]:
    """Arguments that were typed as for a command line; they win over the buttons."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UnusableSettings(f"additional_parameters is '{text}', but: {error}; mend its quotes") from error
    if words and not words[0].startswith("--"):
        return {}, [Leftover("additional_parameters", text, "does not begin with --name")]
    return read_options(words)


def _computed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the GUI derives from its own fields."""
    raw: dict[str, Any] = {**_network(settings), **_noise(settings), **_rates(settings), **_length(settings)}
    kernel = settings["xformers"]
    raw["xformers"] = kernel in (True, "xformers")
    raw["sdpa"] = kernel == "sdpa"
    return raw


def _network(settings: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(settings["LoRA_type"])
    module, algorithm = _TYPES.get(kind, (_LYCORIS, kind))
    names = _LYCORIS_ARGUMENTS if algorithm else _KOHYA_ARGUMENTS
    pairs = {name: settings.get(name) for name in (*names, *_PLUS_ARGUMENTS)}
    if algorithm:
        pairs |= {"algo": algorithm, "preset": settings.get("LyCORIS_preset")}
    given = tuple(f"{name}={value}" for name, value in pairs.items() if value not in _OFF)
    if kind not in ("Standard", "LoRA-FA"):
        # Passed on as they are: an alpha of 0 means the rank.
        sizes = {name: settings.get(name) for name in ("conv_dim", "conv_alpha")}
        given += tuple(f"{name}={value}" for name, value in sizes.items() if value not in (None, ""))
    return {"network_module": module, "network_args": given}


def _noise(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the two kinds of noise the chosen one."""
    is_pyramid = settings.get("noise_offset_type", "Original") == "Multires"
    off = ("noise_offset", "adaptive_noise_scale", "noise_offset_random_strength")
    return dict.fromkeys(off if is_pyramid else ("multires_noise_iterations", "multires_noise_discount"))


def _rates(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A rate of 0 switches its part off, both at 0 mean that the one rate counts for both."""
    rates = {name: _number(settings, name) for name in ("unet_lr", "text_encoder_lr")}
    return dict(rates) if any(rates.values()) else dict.fromkeys(rates)


def _length(settings: Mapping[str, Any]) -> dict[str, Any]:
    epochs = int(_number(settings, "epoch"))
    steps, limit = int(_number(settings, "max_train_steps")), int(_number(settings, "max_train_epochs"))
    warmup_steps = int(_number(settings, "lr_warmup_steps"))
    return {
        "max_train_epochs": limit or (None if steps else epochs),
        "max_train_steps": steps or None,
        "lr_warmup_steps": warmup_steps or _number(settings, "lr_warmup") / 100,
        "lr_scheduler_num_cycles": int(_number(settings, "lr_scheduler_num_cycles")) or epochs,
        "max_data_loader_n_workers": int(_number(settings, "max_data_loader_n_workers")),
    }


def _number(settings: Mapping[str, Any], name: str) -> float:
    value = settings.get(name)
    try:
        number: float = 0.0 if value is None or value in _OFF else read_value(Kind.NUMBER, value) or 0.0
        return number
    except (TypeError, ValueError) as error:
        raise UnusableSettings(f"{name} is '{value}', but must be a number; change it") from error


def _parallelism(settings: Mapping[str, Any]) -> dict[str, int]:
    return parallelism_fields(*(int(_number(settings, name)) for name in ("num_processes", "num_machines")))


def _unused(settings: Mapping[str, Any]) -> list[Leftover]:
    """What the GUI knows and no argument takes."""
    read = {*ARGUMENTS, *_RENAMED, *_OF_THE_GUI, *_KOHYA_ARGUMENTS, *_LYCORIS_ARGUMENTS, *_PLUS_ARGUMENTS}
    return [
        Leftover(name, str(value), _REASONS.get(name, "a setting of the GUI that is not known here"))
        for name, value in settings.items()
        if name not in read | _OTHER_ARGUMENTS and value not in _OFF and (name, value) != ("dynamo_mode", "default")
    ]
