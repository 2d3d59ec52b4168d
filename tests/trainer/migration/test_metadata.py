"""Metadata of adapters gives back the settings that it was written from."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_api import LoraTraining, load_training
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.migration.metadata import read_metadata
from lora_trainer.migration.source import Choices
from tests.support.imports import bring_over, from_text, value_at

EXAMPLES = Path(__file__).parents[3] / "examples"
NOT_IN_METADATA = ("samples", "storage", "pod", "limits")
WRITTEN_TOO = {
    "ss_session_id": "615810830",
    "ss_training_started_at": "1795359773.1132884",
    "ss_training_finished_at": "1795359873.5",
    "ss_steps": "98000",
    "ss_max_train_steps": "98000",
    "ss_num_train_images": "4900",
    "ss_num_reg_images": "10400",
    "ss_num_validation_images": "0",
    "ss_num_batches_per_epoch": "9800",
    "ss_network_dropout": "None",
    "ss_base_model_version": "sd_v1",
    "ss_random_crop": "False",
    "ss_multires_noise_iterations": "None",
    "ss_multires_noise_discount": "0.3",
    "ss_adaptive_noise_scale": "None",
    "ss_zero_terminal_snr": "False",
    "ss_noise_offset_random_strength": "False",
    "ss_ip_noise_gamma": "None",
    "ss_ip_noise_gamma_random_strength": "False",
    "ss_max_grad_norm": "1.0",
    "ss_prior_loss_weight": "1.0",
    "ss_min_snr_gamma": "None",
    "ss_scale_weight_norms": "None",
    "ss_debiased_estimation": "False",
    "ss_loss_type": "l2",
    "ss_huber_schedule": "snr",
    "ss_huber_scale": "1.0",
    "ss_huber_c": "0.1",
    "ss_fp8_base": "False",
    "ss_fp8_base_unet": "False",
    "ss_validation_seed": "None",
    "ss_validation_split": "0.0",
    "ss_max_validation_steps": "None",
    "ss_validate_every_n_epochs": "None",
    "ss_validate_every_n_steps": "None",
    "ss_resize_interpolation": "None",
    "ss_sd_scripts_commit_hash": "48d368fa",
    "ss_dataset_dirs": '{"50_hina wife a woman": {"n_repeats": 50, "img_count": 98}}',
    "ss_reg_dataset_dirs": '{"20_a woman": {"n_repeats": 20, "img_count": 520}}',
    "ss_tag_frequency": '{"50_hina wife a woman": {"hina wife": 98}}',
    "ss_bucket_info": '{"buckets": {"0": {"resolution": [768, 768], "count": 9800}}, "mean_img_ar_error": 0.0}',
    "ss_sd_model_hash": "e3b0c442",
    "ss_new_sd_model_hash": "0" * 64,
    "sshs_model_hash": "0" * 64,
    "sshs_legacy_hash": "e3b0c442",
    "modelspec.architecture": "stable-diffusion-v1/lora",
    "modelspec.title": "hina_lora_v2",
    "modelspec.prediction_type": "epsilon",
}
"""The keys beside the 40 that users know."""
BASE = {"ss_network_module": "networks.lora", "ss_network_dim": "8", "ss_network_alpha": "4.0"}


def test_the_seed_case_comes_out_of_its_40_keys() -> None:
    metadata = json.loads((EXAMPLES / "hina-metadata.json").read_text())
    wanted = load_training((EXAMPLES / "hina.yaml").read_text())

    training, draft = bring_over(
        read_metadata(metadata), Choices(None, "s3://lora/hina/train", "s3://lora/hina/run-1", "hina")
    )

    assert len(metadata) == 40
    assert known_to_metadata(training) == known_to_metadata(wanted)
    assert draft.leftovers == []


def known_to_metadata(training: LoraTraining) -> dict[str, Any]:
    spec = training.spec.to_document()
    return {section: value for section, value in spec.items() if section not in NOT_IN_METADATA}


def test_nothing_that_sd_scripts_writes_is_unknown() -> None:
    written = json.loads((EXAMPLES / "hina-metadata.json").read_text()) | WRITTEN_TOO

    training, draft = bring_over(read_metadata(written))

    assert draft.leftovers == []
    assert (training.spec.training.epochs, training.spec.training.max_steps) == (10, None)


@pytest.mark.parametrize(
    ("metadata", "path", "value"),
    [
        ({"ss_network_args": '{"conv_dim": "4", "conv_alpha": "2", "dropout": null}'}, "network.convRank", 4),
        ({"ss_optimizer": "torch.optim.adamw.AdamW(weight_decay=0.1,betas=(0.9, 0.99))"}, "optimizer.name", "adamw"),
        (
            {"ss_optimizer": "torch.optim.adamw.AdamW(weight_decay=0.1,betas=(0.9, 0.99))"},
            "optimizer.arguments",
            {"weight_decay": "0.1", "betas": "(0.9, 0.99)"},
        ),
        ({"ss_optimizer": "torch.optim.sgd.SGD(momentum=0.9)"}, "optimizer.name", "sgdnesterov"),
        ({"ss_optimizer": "torch.optim.sgd.SGD(momentum=0.9)"}, "optimizer.arguments", {}),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "baseModel.family", "sdxl"),
        ({"ss_base_model_version": "sd_v2_v", "ss_v2": "True"}, "baseModel.prediction", "v_prediction"),
        ({"ss_lr_warmup_steps": "0.1"}, "optimizer.schedule.warmupFraction", 0.1),
        ({"ss_lr_scheduler": "constant_with_warmup", "ss_lr_warmup_steps": "9"}, "optimizer.schedule.warmupSteps", 9),
        ({"ss_resolution": "(768, 512)"}, "dataset.resolution", "768x512"),
        ({"ss_max_token_length": "None"}, "dataset.captions.maxTokens", 75),
        ({"modelspec.author": "me", "ss_output_name": "a", "modelspec.title": "b"}, "output.card.title", "b"),
        ({"modelspec.title": "a", "ss_output_name": "a"}, "output.card.title", None),
        ({"modelspec.timestep_range": "100,900"}, "training.loss.maxTimestep", 900),
        ({"ss_multires_noise_discount": "0.3"}, "training.loss.multiresNoiseDiscount", None),
        ({"ss_huber_c": "0.1", "ss_loss_type": "l2"}, "training.loss.huberC", None),
    ],
)
def test_values_are_read_as_sd_scripts_writes_them(metadata: dict[str, str], path: str, value: object) -> None:
    training, _ = bring_over(read_metadata(BASE | metadata))

    assert value_at(training, path) == value


@pytest.mark.parametrize(("steps", "limit"), [("20", None), ("15", 15)])
def test_steps_are_a_limit_only_where_they_cut_the_last_epoch(steps: str, limit: int | None) -> None:
    counted = {"ss_num_epochs": "2", "ss_num_batches_per_epoch": "19", "ss_gradient_accumulation_steps": "2"}

    training, _ = bring_over(read_metadata(BASE | counted | {"ss_max_train_steps": steps}))

    assert (training.spec.training.epochs, training.spec.training.max_steps) == (2, limit)


def test_our_own_bucket_limits_are_left_out() -> None:
    limits = {"ss_enable_bucket": "True", "ss_min_bucket_reso": "384", "ss_max_bucket_reso": "1536"}

    training, _ = bring_over(read_metadata(BASE | limits | {"ss_resolution": "(768, 768)"}))

    assert (training.spec.dataset.buckets.min_px, training.spec.dataset.buckets.max_px) == (None, None)


def test_tensors_tell_the_number_format_and_the_parts() -> None:
    tensors = {"lora_unet_mid.lora_up.weight": "BF16", "lora_unet_mid.alpha": "F32"}

    training, _ = bring_over(read_metadata(BASE | {"ss_text_encoder_lr": "5e-05"}, tensors=tensors))

    assert (training.spec.network.text_encoder, training.spec.output.precision) == (False, "bf16")


def test_datasets_of_a_definition_become_subsets() -> None:
    subset = {"image_dir": "hina", "num_repeats": 10, "is_reg": False, "class_tokens": "hina", "shuffle_caption": True}
    datasets = [{"is_dreambooth": True, "batch_size_per_device": 2, "resolution": [640, 640], "subsets": [subset]}]

    training, draft = bring_over(read_metadata(BASE | {"ss_datasets": json.dumps(datasets)}))

    (found,) = training.spec.dataset.subsets
    assert (found.uri, found.repeats, found.class_tokens) == ("s3://lora/data/hina", 10, "hina")
    assert (training.spec.dataset.resolution, training.spec.training.batch_size) == (640, 2)
    assert training.spec.dataset.captions.shuffle
    assert draft.leftovers == []


def test_a_resized_file_says_so() -> None:
    _, draft = from_text(json.dumps(BASE | {"ss_network_dim": "Dynamic", "ss_network_alpha": "Dynamic"}))

    assert [leftover.name for leftover in draft.leftovers] == ["network_dim", "network_alpha"]


def test_an_unknown_key_is_told() -> None:
    _, draft = bring_over(read_metadata(BASE | {"ss_new_thing": "5"}))

    assert [str(leftover) for leftover in draft.leftovers] == ["ss_new_thing = 5: metadata that is not known here"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ss_network_args", "[1]"),
        ("ss_network_args", "5"),
        ("ss_face_crop_aug_range", "wide"),
        ("ss_text_encoder_lr", "fast"),
        ("ss_datasets", "[5]"),
        ("ss_datasets", '[{"subsets": [5]}]'),
        ("ss_datasets", '[{"subsets": [{"image_dir": "a", "num_repeats": "often"}]}]'),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(key: str, value: str) -> None:
    with pytest.raises(InvalidConfiguration):
        bring_over(read_metadata(BASE | {key: value}))


def test_a_file_without_metadata_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="no training metadata"):
        read_metadata({"format": "pt"})
