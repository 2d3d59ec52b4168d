"""The metadata says every setting in the words of sd-scripts."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.lora.metadata import RunFacts, adapter_metadata
from tests.support.tiny_run import make_training

FACTS = RunFacts(
    base_name="sd15-abcdef01",
    base_digest="abcdef01" * 8,
    session_id=7,
    optimizer="torch.optim.adamw.AdamW(weight_decay=0.01)",
    training_samples=6,
    regularization_samples=2,
    batches_per_epoch=6,
    epochs=2,
    total_steps=12,
    bucket_limits=(320, 1024),
    bucket_info={"buckets": {"0": {"resolution": [64, 64], "count": 12}}, "mean_img_ar_error": 0.0},
    dataset_dirs={"2_zwx": {"n_repeats": 2, "img_count": 3}},
    regularization_dirs={"1_shape": {"n_repeats": 1, "img_count": 2}},
    tag_frequency={"2_zwx": {"zwx ü": 3}},
)

USERS_KEYS = frozenset(
    """
    batch_size_per_device bucket_no_upscale cache_latents caption_dropout_every_n_epochs caption_dropout_rate
    caption_tag_dropout_rate clip_skip color_aug enable_bucket epoch face_crop_aug_range flip_aug full_fp16
    gradient_accumulation_steps gradient_checkpointing keep_tokens learning_rate lowram lr_scheduler lr_warmup_steps
    max_bucket_reso max_token_length min_bucket_reso mixed_precision network_alpha network_dim network_module
    noise_offset num_epochs optimizer output_name resolution sd_model_name seed shuffle_caption text_encoder_lr
    total_batch_size training_comment unet_lr v2
    """.split()  # noqa: SIM905  (readable as words)
)


def metadata(tmp_path: Path, *, epoch: int = 1, **changes: Any) -> dict[str, str]:
    training = make_training(tmp_path / "base", tmp_path / "data", tmp_path / "out", **changes)
    return adapter_metadata(training, FACTS, epoch=epoch, step=6 * epoch)


def test_every_key_that_users_know_is_there(tmp_path: Path) -> None:
    assert {f"ss_{key}" for key in USERS_KEYS} <= set(metadata(tmp_path))


@pytest.mark.parametrize(
    ("key", "changes", "value"),
    [
        ("ss_resolution", {"dataset": {"resolution": "768x512"}}, "(768, 512)"),
        ("ss_clip_skip", {"baseModel": {"clipSkip": 2}}, "2"),
        ("ss_flip_aug", {"dataset": {"augmentation": {"flip": True}}}, "True"),
        ("ss_unet_lr", {"optimizer": {"unetLearningRate": 1e-4}}, "0.0001"),
        ("ss_text_encoder_lr", {"optimizer": {"textEncoderLearningRate": 5e-5}}, "5e-05"),
        ("ss_unet_lr", {}, "None"),
        ("ss_network_alpha", {}, "2.0"),
        ("ss_mixed_precision", {"training": {"precision": "fp32"}}, "no"),
        ("ss_mixed_precision", {"training": {"precision": "bf16"}}, "bf16"),
        ("ss_total_batch_size", {"training": {"gradientAccumulationSteps": 3}}, "6"),
        ("ss_max_token_length", {"dataset": {"captions": {"maxTokens": 150}}}, "150"),
        ("ss_bucket_no_upscale", {"dataset": {"buckets": {"enabled": True, "upscale": False}}}, "True"),
        ("ss_min_bucket_reso", {"dataset": {"buckets": {"enabled": True}}}, "320"),
        ("ss_bucket_info", {}, "null"),
        ("ss_training_comment", {"output": {"comment": "hello"}}, "hello"),
        ("ss_training_comment", {}, "None"),
        ("ss_v2", {}, "False"),
        ("ss_network_module", {}, "networks.lora"),
        ("modelspec.architecture", {}, "stable-diffusion-v1/lora"),
        ("modelspec.resolution", {}, "64x64"),
        ("modelspec.title", {}, "tiny"),
    ],
)
def test_values_read_as_sd_scripts_writes_them(tmp_path: Path, key: str, changes: dict[str, Any], value: str) -> None:
    assert metadata(tmp_path, **changes)[key] == value


def test_tables_are_json(tmp_path: Path) -> None:
    values = metadata(tmp_path)

    assert json.loads(values["ss_tag_frequency"]) == {"2_zwx": {"zwx ü": 3}}
    assert json.loads(values["ss_dataset_dirs"]) == {"2_zwx": {"n_repeats": 2, "img_count": 3}}


def test_no_place_of_this_machine_is_told(tmp_path: Path) -> None:
    assert not any(str(tmp_path) in value or "file:" in value for value in metadata(tmp_path).values())


def test_epochs_differ_in_epoch_and_step_only(tmp_path: Path) -> None:
    first, second = metadata(tmp_path, epoch=1), metadata(tmp_path, epoch=2)

    assert {key for key in first if first[key] != second[key]} == {"ss_epoch", "ss_steps"}
