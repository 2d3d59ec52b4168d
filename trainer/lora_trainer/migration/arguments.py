"""Every argument of sd-scripts' train_network.py: what it holds, its default, its field or why it has none.

The one table of the import: the translation of each section reads it, and so does its test, which compares it with
the list of all arguments. Argument names, meanings and defaults: sd-scripts 0.10.1, `train_network.py --help`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_trainer.migration.unusable import UnusableSettings
from lora_trainer.migration.values import Kind, read_value


@dataclass(frozen=True)
class Argument:
    """One argument of sd-scripts."""

    kind: Kind
    default: Any = None
    fields: tuple[str, ...] = ()
    """YAML paths below `spec` that it decides."""
    as_is: bool = False
    """Whether its value is the field's value."""
    reason: str = ""
    """Why no field takes it, and what there is instead."""


def _same(kind: Kind, field: str, default: Any = None) -> Argument:
    return Argument(kind, default, (field,), as_is=True)


def _decides(kind: Kind, *fields: str, default: Any = None) -> Argument:
    return Argument(kind, default, fields)


def _none(kind: Kind, reason: str, default: Any = None) -> Argument:
    return Argument(kind, default, reason=reason)


_FLAG, _INTEGER, _NUMBER, _TEXT = Kind.FLAG, Kind.INTEGER, Kind.NUMBER, Kind.TEXT
_ALWAYS = "always so"
_CAPTIONS, _AUGMENTATION, _BUCKETS = "dataset.captions", "dataset.augmentation", "dataset.buckets"
_LOSS, _SCHEDULE = "training.loss", "optimizer.schedule"
_VALIDATION = "measured after every saved epoch, always on the same pictures; evaluation.bestEpoch says how thoroughly"
_KEEP = "every adapter that is written is kept; delete what you do not need"
_RESUME = "a run that was stopped goes on by itself from its last state, at the right step"
_DDP = "a setting of torch's DDP; one GPU trains"
_DEEPSPEED = "DeepSpeed is not used; a LoRA's optimizer state is small"
_HUB = "the adapter is written to output.uri; upload it from there"
_METRICS = "figures are Prometheus metrics and evaluation/metrics.jsonl beside the adapters"
_LOGS = "log lines go to the pod's output"
_THREADS = "pictures are read by threads, which live as long as the run"

_MODEL = {
    "pretrained_model_name_or_path": _decides(_TEXT, "baseModel.uri"),
    "v2": _decides(_FLAG, "baseModel.family"),
    "v_parameterization": _decides(_FLAG, "baseModel.prediction"),
    "vae": _decides(_TEXT, "baseModel.vaeUri"),
    "clip_skip": _decides(_INTEGER, "baseModel.clipSkip"),
    "base_weights": _decides(Kind.TEXTS, "baseModel.adapters"),
    "base_weights_multiplier": _decides(Kind.NUMBERS, "baseModel.adapters"),
    "tokenizer_cache_dir": _none(_TEXT, "tokenizers come with the model or with this program; nothing is fetched"),
    "no_half_vae": _none(_FLAG, f"{_ALWAYS}: the VAE works in 32 bits"),
    "disable_mmap_load_safetensors": _none(_FLAG, "a setting of Windows' memory mapping"),
}
_DATASET = {
    "train_data_dir": _decides(_TEXT, "dataset.uri"),
    "reg_data_dir": _decides(_TEXT, "dataset.regularization.uri"),
    "dataset_config": _decides(_TEXT, "dataset.subsets"),
    "in_json": _none(_TEXT, "write a metadata.jsonl beside the pictures (docs/dataset.md): file, caption, repeats"),
    "dataset_repeats": _none(_INTEGER, "belongs to in_json", 1),
    "dataset_class": _none(_TEXT, "code of your own cannot be loaded"),
    "prior_loss_weight": _same(_NUMBER, "dataset.regularization.lossWeight", 1.0),
    "resolution": _decides(Kind.NUMBERS, "dataset.resolution"),
    "enable_bucket": _same(_FLAG, f"{_BUCKETS}.enabled", False),
    "min_bucket_reso": _decides(_INTEGER, f"{_BUCKETS}.minPx", default=256),
    "max_bucket_reso": _decides(_INTEGER, f"{_BUCKETS}.maxPx", default=1024),
    "bucket_reso_steps": _decides(_INTEGER, f"{_BUCKETS}.stepPx", default=64),
    "bucket_no_upscale": _decides(_FLAG, f"{_BUCKETS}.upscale", default=False),
    "resize_interpolation": _decides(_TEXT, f"{_BUCKETS}.resizeFilter"),
    "caption_extension": _decides(_TEXT, f"{_CAPTIONS}.extension", default=".caption"),
    "caption_extention": _decides(_TEXT, f"{_CAPTIONS}.extension"),
    "caption_separator": _same(_TEXT, f"{_CAPTIONS}.separator", ","),
    "shuffle_caption": _same(_FLAG, f"{_CAPTIONS}.shuffle", False),
    "keep_tokens": _same(_INTEGER, f"{_CAPTIONS}.keepTokens", 0),
    "keep_tokens_separator": _same(_TEXT, f"{_CAPTIONS}.keepTokensSeparator"),
    "secondary_separator": _same(_TEXT, f"{_CAPTIONS}.secondarySeparator"),
    "enable_wildcard": _same(_FLAG, f"{_CAPTIONS}.wildcards", False),
    "caption_prefix": _same(_TEXT, f"{_CAPTIONS}.prefix"),
    "caption_suffix": _same(_TEXT, f"{_CAPTIONS}.suffix"),
    "caption_dropout_rate": _same(_NUMBER, f"{_CAPTIONS}.dropoutFraction", 0.0),
    "caption_dropout_every_n_epochs": _same(_INTEGER, f"{_CAPTIONS}.dropoutEveryNEpochs", 0),
    "caption_tag_dropout_rate": _same(_NUMBER, f"{_CAPTIONS}.tagDropoutFraction", 0.0),
    "token_warmup_min": _decides(_INTEGER, f"{_CAPTIONS}.tokenWarmup.minTags", default=1),
    "token_warmup_step": _decides(
        _NUMBER, f"{_CAPTIONS}.tokenWarmup.steps", f"{_CAPTIONS}.tokenWarmup.fraction", default=0.0
    ),
    "weighted_captions": _same(_FLAG, f"{_CAPTIONS}.weighted", False),
    "max_token_length": _decides(_INTEGER, f"{_CAPTIONS}.maxTokens"),
    "color_aug": _same(_FLAG, f"{_AUGMENTATION}.color", False),
    "flip_aug": _same(_FLAG, f"{_AUGMENTATION}.flip", False),
    "random_crop": _same(_FLAG, f"{_AUGMENTATION}.randomCrop", False),
    "face_crop_aug_range": _decides(Kind.NUMBERS, f"{_AUGMENTATION}.faceCropRange"),
    "alpha_mask": _decides(_FLAG, "dataset.mask", default=False),
    "masked_loss": _decides(_FLAG, "dataset.mask", default=False),
    "conditioning_data_dir": _none(_TEXT, "copy the masks to mask/ beside the concept folders, under the same names"),
    "cache_latents": _decides(_FLAG, "dataset.latentCache", default=False),
    "cache_latents_to_disk": _decides(_FLAG, "dataset.latentCache", default=False),
    "skip_cache_check": _none(
        _FLAG, "a cached latent is kept under the digest of all it depends on, so it cannot be stale"
    ),
    "vae_batch_size": _none(_INTEGER, "pictures are encoded one by one, so that the result never depends on it", 1),
    "max_data_loader_n_workers": _same(_INTEGER, "dataset.workers", 8),
    "persistent_data_loader_workers": _none(_FLAG, _THREADS),
    "cache_info": _none(_FLAG, "captions and sizes are read anew, which takes seconds"),
    "debug_dataset": _none(_FLAG, "`lora plan` shows pictures, captions and buckets"),
    "cache_text_encoder_outputs": _none(_FLAG, f"{_ALWAYS} while no text encoder is trained"),
    "cache_text_encoder_outputs_to_disk": _none(_FLAG, "they are kept in memory, which they fit"),
    "validation_split": _decides(_NUMBER, "dataset.validationFraction", "evaluation", default=0.0),
    "validation_seed": _none(_INTEGER, _VALIDATION),
    "validate_every_n_steps": _none(_INTEGER, _VALIDATION),
    "validate_every_n_epochs": _none(_INTEGER, _VALIDATION),
    "max_validation_steps": _none(_INTEGER, _VALIDATION),
}
_NETWORK = {
    "network_module": _decides(_TEXT, "network.type"),
    "network_dim": _same(_INTEGER, "network.rank", 4),
    "network_alpha": _decides(_NUMBER, "network.alpha", default=1.0),
    "network_dropout": _same(_NUMBER, "network.dropout"),
    "network_args": _decides(
        Kind.TEXTS, "network.type", "network.convRank", "network.convAlpha", "network.rankDropout",
        "network.moduleDropout", "network.lokrFactor", "network.blocks", "optimizer.loraPlus.ratio",
    ),
    "network_weights": _decides(_TEXT, "network.initialUri"),
    "dim_from_weights": _none(_FLAG, "write rank and alpha down; `lora inspect` shows those of the file"),
    "network_train_unet_only": _decides(_FLAG, "network.textEncoder", default=False),
    "network_train_text_encoder_only": _decides(_FLAG, "network.unet", default=False),
    "scale_weight_norms": _same(_NUMBER, "network.weightNormLimit"),
}  # fmt: skip
_LENGTH = {
    "train_batch_size": _same(_INTEGER, "training.batchSize", 1),
    "gradient_accumulation_steps": _same(_INTEGER, "training.gradientAccumulationSteps", 1),
    "max_train_steps": _decides(_INTEGER, "training.maxSteps", default=1600),
    "max_train_epochs": _decides(_INTEGER, "training.epochs"),
    "seed": _same(_INTEGER, "training.seed"),
    "initial_epoch": _none(_INTEGER, _RESUME),
    "initial_step": _none(_INTEGER, _RESUME),
    "skip_until_initial_step": _none(_FLAG, _RESUME),
    "resume": _none(_TEXT, _RESUME),
}
_OPTIMIZER = {
    "optimizer_type": _decides(_TEXT, "optimizer.name"),
    "optimizer_args": _decides(Kind.TEXTS, "optimizer.arguments"),
    "use_8bit_adam": _decides(_FLAG, "optimizer.name", default=False),
    "use_lion_optimizer": _decides(_FLAG, "optimizer.name", default=False),
    "learning_rate": _decides(_NUMBER, "optimizer.learningRate", default=2e-06),
    "unet_lr": _decides(_NUMBER, "optimizer.unetLearningRate", "network.unet"),
    "text_encoder_lr": _decides(Kind.NUMBERS, "optimizer.textEncoderLearningRate", "network.textEncoder"),
    "max_grad_norm": _same(_NUMBER, "optimizer.maxGradNorm", 1.0),
    "lr_scheduler": _decides(_TEXT, f"{_SCHEDULE}.name", default="constant"),
    "lr_scheduler_type": _none(_TEXT, "a scheduler class of your own cannot be loaded; choose optimizer.schedule.name"),
    "lr_scheduler_args": _decides(Kind.TEXTS, f"{_SCHEDULE}.pieces"),
    "lr_warmup_steps": _decides(Kind.SHARE, f"{_SCHEDULE}.warmupSteps", f"{_SCHEDULE}.warmupFraction", default=0),
    "lr_decay_steps": _decides(Kind.SHARE, f"{_SCHEDULE}.decaySteps", f"{_SCHEDULE}.decayFraction", default=0),
    "lr_scheduler_num_cycles": _decides(_INTEGER, f"{_SCHEDULE}.cycles", default=1),
    "lr_scheduler_power": _decides(_NUMBER, f"{_SCHEDULE}.power", default=1.0),
    "lr_scheduler_timescale": _decides(_INTEGER, f"{_SCHEDULE}.timescale"),
    "lr_scheduler_min_lr_ratio": _decides(_NUMBER, f"{_SCHEDULE}.minRateFraction"),
    "fused_backward_pass": _none(_FLAG, "has no effect in sd-scripts' LoRA training either"),
}
_OBJECTIVE = {
    "loss_type": _same(_TEXT, f"{_LOSS}.type", "l2"),
    "huber_schedule": _decides(_TEXT, f"{_LOSS}.huberSchedule", default="snr"),
    "huber_c": _decides(_NUMBER, f"{_LOSS}.huberC", default=0.1),
    "huber_scale": _decides(_NUMBER, f"{_LOSS}.huberScale", default=1.0),
    "min_snr_gamma": _decides(_NUMBER, f"{_LOSS}.minSnrGamma"),
    "scale_v_pred_loss_like_noise_pred": _same(_FLAG, f"{_LOSS}.scaleVPredictionLikeNoise", False),
    "v_pred_like_loss": _decides(_NUMBER, f"{_LOSS}.vPredictionLikeLoss"),
    "debiased_estimation_loss": _same(_FLAG, f"{_LOSS}.debiasedEstimation", False),
    "zero_terminal_snr": _decides(_FLAG, f"{_LOSS}.zeroTerminalSnr", default=False),
    "noise_offset": _decides(_NUMBER, f"{_LOSS}.noiseOffset"),
    "noise_offset_random_strength": _decides(_FLAG, f"{_LOSS}.noiseOffsetRandomStrength", default=False),
    "adaptive_noise_scale": _decides(_NUMBER, f"{_LOSS}.adaptiveNoiseScale"),
    "multires_noise_iterations": _decides(_INTEGER, f"{_LOSS}.multiresNoiseIterations"),
    "multires_noise_discount": _decides(_NUMBER, f"{_LOSS}.multiresNoiseDiscount", default=0.3),
    "ip_noise_gamma": _decides(_NUMBER, f"{_LOSS}.ipNoiseGamma"),
    "ip_noise_gamma_random_strength": _decides(_FLAG, f"{_LOSS}.ipNoiseGammaRandomStrength", default=False),
    "min_timestep": _same(_INTEGER, f"{_LOSS}.minTimestep"),
    "max_timestep": _same(_INTEGER, f"{_LOSS}.maxTimestep"),
}
_MEMORY = {
    "mixed_precision": _decides(_TEXT, "training.precision", default="no"),
    "full_fp16": _decides(_FLAG, "training.fullPrecision", default=False),
    "full_bf16": _decides(_FLAG, "training.fullPrecision", default=False),
    "fp8_base": _none(_FLAG, "the base model is kept in training.precision"),
    "fp8_base_unet": _none(_FLAG, "the base model is kept in training.precision"),
    "gradient_checkpointing": _same(_FLAG, "training.gradientCheckpointing", False),
    "cpu_offload_checkpointing": _none(_FLAG, "use training.gradientCheckpointing"),
    "xformers": _decides(_FLAG, "training.attention", default=False),
    "sdpa": _decides(_FLAG, "training.attention", default=False),
    "mem_eff_attn": _none(_FLAG, "sdpa needs as little memory and is faster"),
    "lowram": _same(_FLAG, "training.lowMemory", False),
    "highvram": _none(_FLAG, "leave training.lowMemory off"),
    "torch_compile": _same(_FLAG, "training.compile", False),
    "dynamo_backend": _none(_TEXT, "belongs to torch_compile", "inductor"),
    "ddp_timeout": _none(_INTEGER, _DDP),
    "ddp_gradient_as_bucket_view": _none(_FLAG, _DDP),
    "ddp_static_graph": _none(_FLAG, _DDP),
    "deepspeed": _none(_FLAG, _DEEPSPEED),
    "zero_stage": _none(_INTEGER, _DEEPSPEED, 2),
    "offload_optimizer_device": _none(_TEXT, _DEEPSPEED),
    "offload_optimizer_nvme_path": _none(_TEXT, _DEEPSPEED),
    "offload_param_device": _none(_TEXT, _DEEPSPEED),
    "offload_param_nvme_path": _none(_TEXT, _DEEPSPEED),
    "zero3_init_flag": _none(_FLAG, _DEEPSPEED),
    "zero3_save_16bit_model": _none(_FLAG, _DEEPSPEED),
    "fp16_master_weights_and_gradients": _none(_FLAG, _DEEPSPEED),
}
_OUTPUT = {
    "output_dir": _decides(_TEXT, "output.uri"),
    "output_name": _decides(_TEXT, "output.name"),
    "save_model_as": _decides(_TEXT, "output.formats", default="safetensors"),
    "save_precision": _decides(_TEXT, "output.precision", default="float"),
    "no_metadata": _none(_FLAG, "the metadata is always written; it holds no path and no time"),
    "training_comment": _same(_TEXT, "output.comment"),
    "save_every_n_epochs": _decides(_INTEGER, "checkpoints.everyEpochs"),
    "save_n_epoch_ratio": _decides(_INTEGER, "checkpoints.everyEpochs"),
    "save_every_n_steps": _decides(_INTEGER, "checkpoints.everySteps"),
    "save_last_n_epochs": _none(_INTEGER, _KEEP),
    "save_last_n_steps": _none(_INTEGER, _KEEP),
    "save_last_n_epochs_state": _decides(_INTEGER, "checkpoints.keepLast"),
    "save_last_n_steps_state": _decides(_INTEGER, "checkpoints.keepLast"),
    "save_state": _none(_FLAG, f"{_ALWAYS}: every epoch, every quarter of an hour, and when a run is told to stop"),
    "save_state_on_train_end": _none(_FLAG, "a training that has ended is never gone on with"),
    "huggingface_repo_id": _none(_TEXT, _HUB),
    "huggingface_repo_type": _none(_TEXT, _HUB),
    "huggingface_path_in_repo": _none(_TEXT, _HUB),
    "huggingface_token": _none(_TEXT, _HUB),
    "huggingface_repo_visibility": _none(_TEXT, _HUB),
    "save_state_to_huggingface": _none(_FLAG, _HUB),
    "resume_from_huggingface": _none(_FLAG, _RESUME),
    "async_upload": _none(_FLAG, "each file is uploaded and checked when it is written"),
    "metadata_title": _same(_TEXT, "output.card.title"),
    "metadata_author": _same(_TEXT, "output.card.author"),
    "metadata_description": _same(_TEXT, "output.card.description"),
    "metadata_license": _same(_TEXT, "output.card.license"),
    "metadata_tags": _same(_TEXT, "output.card.tags"),
    "metadata_usage_hint": _same(_TEXT, "output.card.usageHint"),
    "metadata_trigger_phrase": _same(_TEXT, "output.card.triggerPhrase"),
    "metadata_thumbnail": _none(_TEXT, "no picture is put into the adapter file"),
    "metadata_merged_from": _none(_TEXT, "`lora merge` writes where a merged file comes from"),
    "metadata_preprocessor": _none(_TEXT, "a LoRA has no preprocessor"),
    "metadata_is_negative_embedding": _none(_TEXT, "a LoRA is no embedding"),
}
_SAMPLES = {
    "sample_prompts": _decides(_TEXT, "samples.prompts"),
    "sample_every_n_epochs": _same(_INTEGER, "samples.everyEpochs"),
    "sample_every_n_steps": _decides(_INTEGER, "samples.everySteps"),
    "sample_at_first": _none(_FLAG, _ALWAYS),
    "sample_sampler": _decides(_TEXT, "samples.prompts", default="ddim"),
    "logging_dir": _none(_TEXT, _METRICS),
    "log_with": _none(_TEXT, _METRICS),
    "log_prefix": _none(_TEXT, _METRICS),
    "log_tracker_name": _none(_TEXT, _METRICS),
    "log_tracker_config": _none(_TEXT, _METRICS),
    "wandb_run_name": _none(_TEXT, _METRICS),
    "wandb_api_key": _none(_TEXT, _METRICS),
    "log_config": _none(_FLAG, "the adapter's metadata and the run's manifest tell all settings"),
    "console_log_level": _none(_TEXT, _LOGS),
    "console_log_file": _none(_TEXT, _LOGS),
    "console_log_simple": _none(_FLAG, _LOGS),
    "config_file": _none(_TEXT, "this file takes its place"),
    "output_config": _none(_FLAG, "this file takes its place"),
}

ARGUMENTS: Mapping[str, Argument] = {
    **_MODEL, **_DATASET, **_NETWORK, **_LENGTH, **_OPTIMIZER, **_OBJECTIVE, **_MEMORY, **_OUTPUT, **_SAMPLES,
}  # fmt: skip
"""Argument of train_network.py or sdxl_train_network.py, without `--`, to what became of it."""
SECRETS = frozenset({"huggingface_token", "wandb_api_key"})
"""Arguments whose values are never shown."""


@dataclass(frozen=True)
class Arguments:
    """The arguments that a source gives."""

    given: Mapping[str, Any]
    complete: bool
    """Whether sd-scripts' default holds for what is not given; else it is not known."""

    def __getitem__(self, name: str) -> Any:
        """The value that counts, or None: not given and no default, or not known."""
        value = self.given.get(name)
        return ARGUMENTS[name].default if value is None and self.complete else value


def read_arguments(raw: Mapping[str, object], *, complete: bool) -> tuple[Arguments, dict[str, object]]:
    """The known arguments in `raw` with values of their kind, and what is no argument of sd-scripts.

    Raises:
        UnusableSettings: a value is nothing of its argument's kind.
    """
    given = {}
    for name, value in raw.items():
        if name in ARGUMENTS:
            given[name] = _read(name, value)
    unknown = {name: value for name, value in raw.items() if name not in ARGUMENTS}
    return Arguments({name: value for name, value in given.items() if value is not None}, complete), unknown


def _read(name: str, value: object) -> Any:
    kind = ARGUMENTS[name].kind
    try:
        return read_value(kind, value)
    except (ValueError, TypeError) as error:
        raise UnusableSettings(f"{name} is '{value}', but must be {kind.value}; change it") from error
