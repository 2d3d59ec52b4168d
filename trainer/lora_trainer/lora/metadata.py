"""The metadata of an adapter file: every setting under the `ss_` key and in the text form of kohya's sd-scripts.

Used by `run` for each adapter; `lora import` reads it back. Values are what Python's `str()` gives, as sd-scripts
writes them. No clock, URI or path of a machine goes in, so that equal runs give equal files.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lora_api.model_spec import Family, Prediction
from lora_api.spec import LoraTraining
from lora_trainer.lora.network_arguments import network_arguments, network_module

_FILTERS = {"Auto": None, "Box": "area"}
"""Names of sd-scripts for the resize filters, where they are not ours in lower case."""


@dataclass(frozen=True)
class RunFacts:
    """What the metadata needs to know beside the spec."""

    base_name: str
    base_digest: str
    """SHA-256 of its file, or over the files of its folder."""
    family: Family
    prediction: Prediction
    session_id: int
    """Names the run: the same for the same spec, pictures and base."""
    optimizer: str
    """Full class path with arguments."""
    training_samples: int
    """Training pictures times repeats."""
    regularization_samples: int
    """Regularisation pictures times repeats; an epoch may draw fewer."""
    batches_per_epoch: int
    epochs: int
    total_steps: int
    bucket_limits: tuple[int, int]
    """Smallest and largest side of a bucket in px."""
    bucket_info: dict[str, Any]
    dataset_dirs: dict[str, Any]
    regularization_dirs: dict[str, Any]
    tag_frequency: dict[str, Any]
    subsets: Sequence[dict[str, Any]] = ()
    """What `ss_datasets` says of each subset."""
    vae_name: str | None = None
    """The VAE that replaces the model's own, and its digest."""
    vae_digest: str | None = None
    base_old_hash: str | None = None
    """The 8 hex digits by which web UIs first told models; None: the first of the digest."""
    vae_old_hash: str | None = None
    held_out_images: int = 0
    """Pictures that are measured and never trained on; each counts once."""


def adapter_metadata(training: LoraTraining, facts: RunFacts, *, epoch: int, step: int) -> dict[str, str]:
    """The metadata of the adapter written after `epoch` at `step`, without the hashes of the content."""
    values: dict[str, Any] = {
        **_pictures(training, facts),
        **_captions(training),
        **_statistics(training, facts),
        **_training(training, facts),
        **_optimizer(training, facts),
        **_loss(training),
        **_model(training, facts),
        **_network(training, facts),
        **_unrecorded_by_sd_scripts(training),
        **_not_settable(),
        "ss_epoch": epoch,
        "ss_steps": step,
    }
    texts = {key: str(value) for key, value in values.items()}
    return dict(sorted((texts | _modelspec(training, facts)).items()))


def _pictures(training: LoraTraining, facts: RunFacts) -> dict[str, Any]:
    dataset = training.spec.dataset
    buckets, faces = dataset.buckets, dataset.augmentation.face_crop_range
    smallest, largest = facts.bucket_limits
    return {
        "ss_resolution": dataset.size_px,
        "ss_enable_bucket": buckets.enabled,
        "ss_min_bucket_reso": smallest if buckets.enabled else None,
        "ss_max_bucket_reso": largest if buckets.enabled else None,
        "ss_bucket_no_upscale": not buckets.upscale,
        "ss_resize_interpolation": _FILTERS.get(buckets.resize_filter, buckets.resize_filter.lower()),
        "ss_cache_latents": dataset.latent_cache != "None",
        "ss_flip_aug": dataset.augmentation.flip,
        "ss_color_aug": dataset.augmentation.color,
        "ss_random_crop": dataset.augmentation.random_crop,
        "ss_face_crop_aug_range": None if faces is None else (faces.minimum, faces.maximum),
        "ss_prior_loss_weight": dataset.regularization.loss_weight,
    }


def _captions(training: LoraTraining) -> dict[str, Any]:
    captions = training.spec.dataset.captions
    return {
        "ss_shuffle_caption": captions.shuffle,
        "ss_keep_tokens": captions.keep_tokens,
        "ss_caption_dropout_rate": captions.dropout_fraction,
        "ss_caption_dropout_every_n_epochs": captions.dropout_every_n_epochs,
        "ss_caption_tag_dropout_rate": captions.tag_dropout_fraction,
        "ss_max_token_length": captions.max_tokens,
    }


def _statistics(training: LoraTraining, facts: RunFacts) -> dict[str, Any]:
    values = {
        "ss_num_train_images": facts.training_samples,
        "ss_num_reg_images": facts.regularization_samples,
        "ss_num_validation_images": facts.held_out_images,
        "ss_validation_split": training.spec.dataset.validation_fraction or 0.0,
        "ss_bucket_info": _compact(facts.bucket_info) if training.spec.dataset.buckets.enabled else "null",
        "ss_dataset_dirs": _compact(facts.dataset_dirs),
        "ss_reg_dataset_dirs": _compact(facts.regularization_dirs),
        "ss_tag_frequency": _compact(facts.tag_frequency),
    }
    if training.spec.dataset.subsets:
        values["ss_datasets"] = _compact([_dataset(training, facts)])
    return values


def _dataset(training: LoraTraining, facts: RunFacts) -> dict[str, Any]:
    """What sd-scripts says of a dataset whose folders are listed."""
    pictures = _pictures(training, facts)
    same = ("resolution", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "resize_interpolation")
    return {
        "is_dreambooth": True,
        "batch_size_per_device": training.spec.training.batch_size,
        "num_train_images": facts.training_samples,
        "num_reg_images": facts.regularization_samples,
        **{name: pictures[f"ss_{name}"] for name in same},
        "tag_frequency": facts.tag_frequency,
        "bucket_info": facts.bucket_info,
        "subsets": list(facts.subsets),
    }


def _training(training: LoraTraining, facts: RunFacts) -> dict[str, Any]:
    loop, parallelism = training.spec.training, training.spec.parallelism
    return {
        "ss_batch_size_per_device": loop.batch_size,
        "ss_total_batch_size": loop.batch_size * loop.gradient_accumulation_steps * parallelism.processes,
        "ss_gradient_accumulation_steps": loop.gradient_accumulation_steps,
        "ss_gradient_checkpointing": loop.gradient_checkpointing,
        "ss_num_epochs": facts.epochs,
        "ss_max_train_steps": facts.total_steps,
        "ss_num_batches_per_epoch": facts.batches_per_epoch,
        "ss_mixed_precision": "no" if loop.precision == "fp32" else loop.precision,
        "ss_full_fp16": loop.full_precision and loop.precision == "fp16",
        "ss_lowram": loop.low_memory,
        "ss_seed": loop.seed,
        "ss_session_id": facts.session_id,
        "ss_output_name": training.output_name,
        "ss_training_comment": training.spec.output.comment,
    }


def _optimizer(training: LoraTraining, facts: RunFacts) -> dict[str, Any]:
    optimizer, schedule = training.spec.optimizer, training.spec.optimizer.schedule
    warms_up = bool(schedule.warmup_steps or schedule.warmup_fraction)
    text_rate: Any = optimizer.text_encoder_learning_rate
    if optimizer.text_encoder2_learning_rate is not None:
        first = optimizer.learning_rate if text_rate is None else text_rate
        text_rate = [first, optimizer.text_encoder2_learning_rate]
    return {
        "ss_learning_rate": optimizer.learning_rate,
        "ss_unet_lr": optimizer.unet_learning_rate,
        "ss_text_encoder_lr": text_rate,
        "ss_lr_scheduler": "constant_with_warmup" if warms_up and schedule.name == "constant" else schedule.name,
        "ss_lr_warmup_steps": schedule.warmup_fraction or schedule.warmup_steps,
        "ss_optimizer": facts.optimizer,
        "ss_max_grad_norm": optimizer.max_grad_norm,
    }


def _loss(training: LoraTraining) -> dict[str, Any]:
    loss = training.spec.training.loss
    return {
        "ss_loss_type": loss.type,
        "ss_huber_schedule": loss.huber_schedule or "snr",
        "ss_huber_scale": loss.huber_scale or 1.0,
        "ss_huber_c": loss.huber_c or 0.1,
        "ss_noise_offset": loss.noise_offset,
        "ss_noise_offset_random_strength": loss.noise_offset_random_strength,
        "ss_adaptive_noise_scale": loss.adaptive_noise_scale,
        "ss_multires_noise_iterations": loss.multires_noise_iterations,
        "ss_multires_noise_discount": loss.multires_noise_discount or 0.3,
        "ss_ip_noise_gamma": loss.ip_noise_gamma,
        "ss_ip_noise_gamma_random_strength": loss.ip_noise_gamma_random_strength,
        "ss_min_snr_gamma": loss.min_snr_gamma,
        "ss_debiased_estimation": loss.debiased_estimation,
        "ss_zero_terminal_snr": loss.zero_terminal_snr,
    }


def _model(training: LoraTraining, facts: RunFacts) -> dict[str, Any]:
    values = {
        "ss_v2": facts.family == "sd2",
        "ss_base_model_version": _base_version(facts),
        "ss_sd_model_name": facts.base_name,
        "ss_sd_model_hash": facts.base_old_hash or facts.base_digest[:8],
        "ss_new_sd_model_hash": facts.base_digest,
        "ss_clip_skip": training.spec.base_model.clip_skip,
    }
    if facts.vae_name is not None:
        digest = facts.vae_digest or ""
        values |= {
            "ss_vae_name": facts.vae_name,
            "ss_vae_hash": facts.vae_old_hash or digest[:8],
            "ss_new_vae_hash": digest,
        }
    return values


def _base_version(facts: RunFacts) -> str:
    if facts.family == "sdxl":
        return "sdxl_base_v1-0"
    version = "sd_v2" if facts.family == "sd2" else "sd_v1"
    return f"{version}_v" if facts.prediction == "v_prediction" else version


def _network(training: LoraTraining, facts: RunFacts) -> dict[str, Any]:
    network = training.spec.network
    values = {
        "ss_network_module": network_module(network),
        "ss_network_dim": network.rank,
        "ss_network_alpha": network.effective_alpha,
        "ss_network_dropout": network.dropout or None,
        "ss_scale_weight_norms": network.weight_norm_limit,
    }
    arguments = network_arguments(training.spec, facts.family)
    return values | ({"ss_network_args": _compact(arguments)} if arguments else {})


def _unrecorded_by_sd_scripts(training: LoraTraining) -> dict[str, Any]:
    """Settings that sd-scripts has but does not record: under its argument's name, and only those in use."""
    dataset, loop = training.spec.dataset, training.spec.training
    captions, schedule = dataset.captions, training.spec.optimizer.schedule
    warmup = captions.token_warmup
    values = {
        "caption_extension": captions.extension if captions.extension != ".txt" else None,
        "caption_prefix": captions.prefix or None,
        "caption_suffix": captions.suffix or None,
        "caption_separator": captions.separator if captions.separator != "," else None,
        "secondary_separator": captions.secondary_separator,
        "keep_tokens_separator": captions.keep_tokens_separator,
        "enable_wildcard": captions.wildcards or None,
        "weighted_captions": captions.weighted or None,
        "token_warmup_min": warmup and warmup.min_tags,
        "token_warmup_step": warmup and (warmup.fraction or warmup.steps),
        "bucket_reso_steps": dataset.buckets.step_px if dataset.buckets.step_px != 64 else None,
        "alpha_mask": dataset.mask == "Alpha" or None,
        "masked_loss": dataset.mask == "Files" or None,
        "full_bf16": (loop.full_precision and loop.precision == "bf16") or None,
        "scale_v_pred_loss_like_noise_pred": loop.loss.scale_v_prediction_like_noise or None,
        "v_pred_like_loss": loop.loss.v_prediction_like_loss,
        "lr_scheduler_num_cycles": schedule.cycles,
        "lr_scheduler_power": schedule.power,
        "lr_scheduler_timescale": schedule.timescale,
        "lr_scheduler_min_lr_ratio": schedule.min_rate_fraction,
        "lr_decay_steps": schedule.decay_fraction or schedule.decay_steps,
        "lr_scheduler_args": _step_rules(training),
    }
    return {f"ss_{name}": value for name, value in values.items() if value is not None}


def _step_rules(training: LoraTraining) -> str | None:
    """The pieces of a piecewise constant rate as `step_rules=1.0:100,0.1`: each factor up to a step, then the last."""
    pieces = training.spec.optimizer.schedule.pieces
    if not pieces:
        return None
    ends = [piece.from_step for piece in pieces]
    factors = [1.0, *(piece.factor for piece in pieces)]
    rules = [f"{factor:g}:{end}" for factor, end in zip(factors, ends, strict=False) if end > 0]
    return "step_rules=" + ",".join([*rules, f"{factors[-1]:g}"])


def _not_settable() -> dict[str, Any]:
    """sd-scripts settings without a field of ours, at the value that describes what we do."""
    return {
        "ss_fp8_base": False,
        "ss_fp8_base_unet": False,
        "ss_validation_seed": None,
        "ss_validate_every_n_epochs": None,
        "ss_validate_every_n_steps": None,
        "ss_max_validation_steps": None,
    }


def _modelspec(training: LoraTraining, facts: RunFacts) -> dict[str, str]:
    width, height = training.spec.dataset.size_px
    loss, card = training.spec.training.loss, training.spec.output.card
    is_sdxl, limits = facts.family == "sdxl", (loss.min_timestep, loss.max_timestep)
    values = {
        "sai_model_spec": "1.0.1",
        "architecture": _architecture(facts),
        "implementation": "https://github.com/Stability-AI/generative-models" if is_sdxl else "diffusers",
        "title": card.title or training.output_name,
        "resolution": f"{width}x{height}",
        "prediction_type": "v" if facts.prediction == "v_prediction" else "epsilon",
        "encoder_layer": None if is_sdxl else str(training.spec.base_model.clip_skip),
        "timestep_range": f"{limits[0]},{limits[1]}" if limits != (0, 1000) else None,
        "author": card.author,
        "description": card.description,
        "license": card.license,
        "tags": card.tags,
        "usage_hint": card.usage_hint,
        "trigger_phrase": card.trigger_phrase,
    }
    return {f"modelspec.{name}": value for name, value in values.items() if value is not None}


def _architecture(facts: RunFacts) -> str:
    if facts.family == "sdxl":
        return "stable-diffusion-xl-v1-base/lora"
    if facts.family == "sd15":
        return "stable-diffusion-v1/lora"
    return f"stable-diffusion-v2-{'768-v' if facts.prediction == 'v_prediction' else '512'}/lora"


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
