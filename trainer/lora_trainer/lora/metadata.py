"""The metadata of an adapter file: every setting under the `ss_` key and in the text form of kohya's sd-scripts.

Used by `run` for each adapter. Values are what Python's `str()` gives, as sd-scripts writes them. No clock, URI
or path of a machine goes in, so that equal runs give equal files.
"""

import json
from dataclasses import dataclass
from typing import Any

from lora_api.model_spec import Family, Prediction
from lora_api.spec import LoraTraining

_MODULE = "networks.lora"


@dataclass(frozen=True)
class RunFacts:
    """What the metadata needs to know beside the spec."""

    base_name: str
    base_digest: str
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


def adapter_metadata(training: LoraTraining, facts: RunFacts, *, epoch: int, step: int) -> dict[str, str]:
    """The metadata of the adapter written after `epoch` at `step`, without the hashes of the content."""
    values: dict[str, Any] = {
        **_dataset(training, facts),
        **_training(training, facts),
        **_model(training, facts),
        **_not_yet_settable(),
        "ss_epoch": epoch,
        "ss_steps": step,
    }
    texts = {key: str(value) for key, value in values.items()}
    return dict(sorted((texts | _modelspec(training)).items()))


def _dataset(training: LoraTraining, facts: RunFacts) -> dict[str, Any]:
    dataset = training.spec.dataset
    captions, buckets = dataset.captions, dataset.buckets
    smallest, largest = facts.bucket_limits
    return {
        "ss_resolution": dataset.size_px,
        "ss_enable_bucket": buckets.enabled,
        "ss_min_bucket_reso": smallest if buckets.enabled else None,
        "ss_max_bucket_reso": largest if buckets.enabled else None,
        "ss_bucket_no_upscale": not buckets.upscale,
        "ss_bucket_info": _compact(facts.bucket_info) if buckets.enabled else "null",
        "ss_cache_latents": dataset.latent_cache != "None",
        "ss_flip_aug": dataset.augmentation.flip,
        "ss_color_aug": dataset.augmentation.color,
        "ss_random_crop": dataset.augmentation.random_crop,
        "ss_face_crop_aug_range": None,
        "ss_shuffle_caption": captions.shuffle,
        "ss_keep_tokens": captions.keep_tokens,
        "ss_caption_dropout_rate": captions.dropout_fraction,
        "ss_caption_dropout_every_n_epochs": captions.dropout_every_n_epochs,
        "ss_caption_tag_dropout_rate": captions.tag_dropout_fraction,
        "ss_max_token_length": captions.max_tokens,
        "ss_prior_loss_weight": dataset.regularization.loss_weight,
        "ss_num_train_images": facts.training_samples,
        "ss_num_reg_images": facts.regularization_samples,
        "ss_dataset_dirs": _compact(facts.dataset_dirs),
        "ss_reg_dataset_dirs": _compact(facts.regularization_dirs),
        "ss_tag_frequency": _compact(facts.tag_frequency),
    }


def _training(training: LoraTraining, facts: RunFacts) -> dict[str, Any]:
    spec, loop = training.spec, training.spec.training
    optimizer, schedule = spec.optimizer, spec.optimizer.schedule
    return {
        "ss_batch_size_per_device": loop.batch_size,
        "ss_total_batch_size": loop.batch_size * loop.gradient_accumulation_steps,
        "ss_gradient_accumulation_steps": loop.gradient_accumulation_steps,
        "ss_gradient_checkpointing": loop.gradient_checkpointing,
        "ss_num_epochs": facts.epochs,
        "ss_max_train_steps": facts.total_steps,
        "ss_num_batches_per_epoch": facts.batches_per_epoch,
        "ss_learning_rate": optimizer.learning_rate,
        "ss_unet_lr": optimizer.unet_learning_rate,
        "ss_text_encoder_lr": optimizer.text_encoder_learning_rate,
        "ss_lr_scheduler": schedule.name,
        "ss_lr_warmup_steps": schedule.warmup_steps,
        "ss_optimizer": facts.optimizer,
        "ss_max_grad_norm": optimizer.max_grad_norm,
        "ss_mixed_precision": "no" if loop.precision == "fp32" else loop.precision,
        "ss_full_fp16": loop.full_precision and loop.precision == "fp16",
        "ss_lowram": loop.low_memory,
        "ss_seed": loop.seed,
        "ss_loss_type": loop.loss.type,
        "ss_noise_offset": loop.loss.noise_offset,
        "ss_min_snr_gamma": loop.loss.min_snr_gamma,
        "ss_zero_terminal_snr": loop.loss.zero_terminal_snr,
        "ss_debiased_estimation": loop.loss.debiased_estimation,
    }


def _model(training: LoraTraining, facts: RunFacts) -> dict[str, Any]:
    spec = training.spec
    return {
        "ss_v2": False,
        "ss_base_model_version": "sd_v1",
        "ss_sd_model_name": facts.base_name,
        "ss_sd_model_hash": facts.base_digest[:8],
        "ss_new_sd_model_hash": facts.base_digest,
        "ss_clip_skip": spec.base_model.clip_skip,
        "ss_network_module": _MODULE,
        "ss_network_dim": spec.network.rank,
        "ss_network_alpha": spec.network.effective_alpha,
        "ss_network_dropout": spec.network.dropout or None,
        "ss_output_name": training.output_name,
        "ss_training_comment": spec.output.comment,
        "ss_session_id": facts.session_id,
        "ss_num_validation_images": 0,
    }


def _not_yet_settable() -> dict[str, Any]:
    """sd-scripts settings without a field of ours, at the value that describes what we do."""
    return {
        "ss_adaptive_noise_scale": None,
        "ss_fp8_base": False,
        "ss_fp8_base_unet": False,
        "ss_ip_noise_gamma": None,
        "ss_multires_noise_iterations": None,
        "ss_scale_weight_norms": None,
    }


def _modelspec(training: LoraTraining) -> dict[str, str]:
    width, height = training.spec.dataset.size_px
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": training.output_name,
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.prediction_type": "epsilon",
        "modelspec.encoder_layer": str(training.spec.base_model.clip_skip),
    }


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
