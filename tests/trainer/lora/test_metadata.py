"""The metadata says every setting in the words of sd-scripts."""

import json
from dataclasses import replace
from typing import Any

import pytest

from lora_trainer.lora.metadata import RunFacts, adapter_metadata
from tests.support.documents import make_training

FACTS = RunFacts(
    base_name="sd15-abcdef01",
    base_digest="abcdef01" * 8,
    family="sd15",
    prediction="epsilon",
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


def metadata(*changes: tuple[str, Any], epoch: int = 1, **facts: Any) -> dict[str, str]:
    """Metadata of a training with `(path, value)` changes to its spec and changes to the facts."""
    training = make_training(("output.name", "tiny"), *changes)
    return adapter_metadata(training, replace(FACTS, **facts), epoch=epoch, step=6 * epoch)


def arguments(*changes: tuple[str, Any], **facts: Any) -> dict[str, str]:
    """What `ss_network_args` holds."""
    found: dict[str, str] = json.loads(metadata(*changes, **facts)["ss_network_args"])
    return found


def test_pictures_that_are_held_out_are_counted_as_validation_images() -> None:
    assert metadata()["ss_num_validation_images"] == "0"
    assert metadata(held_out_images=3)["ss_num_validation_images"] == "3"


def test_every_key_that_users_know_is_there() -> None:
    assert {f"ss_{key}" for key in USERS_KEYS} <= set(metadata())
    assert len(USERS_KEYS) == 40


@pytest.mark.parametrize(
    ("key", "changes", "value"),
    [
        ("ss_resolution", [("dataset.resolution", "768x512")], "(768, 512)"),
        ("ss_clip_skip", [("baseModel.clipSkip", 2)], "2"),
        ("ss_validation_split", [("dataset.validationFraction", 0.2)], "0.2"),
        ("ss_validation_split", [], "0.0"),
        ("ss_flip_aug", [("dataset.augmentation.flip", True)], "True"),
        ("ss_face_crop_aug_range", [], "None"),
        ("ss_unet_lr", [("optimizer.unetLearningRate", 1e-4)], "0.0001"),
        ("ss_text_encoder_lr", [("optimizer.textEncoderLearningRate", 5e-5)], "5e-05"),
        ("ss_unet_lr", [], "None"),
        ("ss_network_alpha", [("network.alpha", 2)], "2.0"),
        ("ss_network_alpha", [("network.rank", 8)], "8.0"),
        ("ss_mixed_precision", [("training.precision", "fp32")], "no"),
        ("ss_mixed_precision", [("training.precision", "bf16")], "bf16"),
        ("ss_total_batch_size", [("training.gradientAccumulationSteps", 3), ("training.batchSize", 2)], "6"),
        ("ss_max_token_length", [("dataset.captions.maxTokens", 150)], "150"),
        ("ss_bucket_no_upscale", [("dataset.buckets.upscale", False)], "True"),
        ("ss_min_bucket_reso", [], "320"),
        ("ss_max_bucket_reso", [], "1024"),
        ("ss_min_bucket_reso", [("dataset.buckets.enabled", False)], "None"),
        ("ss_bucket_info", [("dataset.buckets.enabled", False)], "null"),
        ("ss_resize_interpolation", [], "None"),
        ("ss_resize_interpolation", [("dataset.buckets.resizeFilter", "Box")], "area"),
        ("ss_resize_interpolation", [("dataset.buckets.resizeFilter", "Lanczos")], "lanczos"),
        ("ss_lr_scheduler", [], "constant"),
        ("ss_lr_scheduler", [("optimizer.schedule", {"warmupSteps": 5})], "constant_with_warmup"),
        ("ss_lr_scheduler", [("optimizer.schedule", {"name": "cosine", "warmupSteps": 5})], "cosine"),
        ("ss_lr_warmup_steps", [("optimizer.schedule", {"warmupFraction": 0.1})], "0.1"),
        ("ss_lr_warmup_steps", [], "0"),
        ("ss_training_comment", [("output.comment", "hello")], "hello"),
        ("ss_training_comment", [], "None"),
        ("ss_noise_offset", [("training.loss.noiseOffset", 0.05)], "0.05"),
        ("ss_huber_schedule", [], "snr"),
        ("ss_huber_c", [("training.loss", {"type": "huber", "huberC": 0.2})], "0.2"),
        ("ss_multires_noise_discount", [], "0.3"),
        ("ss_ip_noise_gamma", [("training.loss.ipNoiseGamma", 0.1)], "0.1"),
        ("ss_scale_weight_norms", [("network.weightNormLimit", 1.0)], "1.0"),
        ("ss_network_module", [], "networks.lora"),
        ("ss_network_module", [("network.type", "locon")], "networks.lora"),
        ("ss_network_module", [("network.type", "loha")], "lycoris.kohya"),
        ("ss_network_module", [("network.type", "dora")], "lycoris.kohya"),
        ("modelspec.architecture", [], "stable-diffusion-v1/lora"),
        ("modelspec.implementation", [], "diffusers"),
        ("modelspec.resolution", [("dataset.resolution", 768)], "768x768"),
        ("modelspec.title", [], "tiny"),
        ("modelspec.title", [("output.card", {"title": "Hina"})], "Hina"),
        ("modelspec.trigger_phrase", [("output.card", {"triggerPhrase": "hina"})], "hina"),
        ("modelspec.timestep_range", [("training.loss.maxTimestep", 600)], "0,600"),
    ],
)
def test_values_read_as_sd_scripts_writes_them(key: str, changes: list[tuple[str, Any]], value: str) -> None:
    assert metadata(*changes)[key] == value


def test_a_range_of_faces_is_a_pair() -> None:
    values = metadata(
        ("dataset.augmentation", {"faceCropRange": {"minimum": 2, "maximum": 4}}), ("dataset.latentCache", "None")
    )

    assert values["ss_face_crop_aug_range"] == "(2.0, 4.0)"


@pytest.mark.parametrize(
    ("family", "prediction", "version", "architecture", "is_v2"),
    [
        ("sd15", "epsilon", "sd_v1", "stable-diffusion-v1/lora", "False"),
        ("sd15", "v_prediction", "sd_v1_v", "stable-diffusion-v1/lora", "False"),
        ("sd2", "epsilon", "sd_v2", "stable-diffusion-v2-512/lora", "True"),
        ("sd2", "v_prediction", "sd_v2_v", "stable-diffusion-v2-768-v/lora", "True"),
        ("sdxl", "epsilon", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "False"),
    ],
)
def test_each_family_has_its_words(family: str, prediction: str, version: str, architecture: str, is_v2: str) -> None:
    values = metadata(family=family, prediction=prediction)

    assert (values["ss_base_model_version"], values["ss_v2"]) == (version, is_v2)
    assert values["modelspec.architecture"] == architecture
    assert values["modelspec.prediction_type"] == ("v" if prediction == "v_prediction" else "epsilon")


def test_sdxl_has_no_layer_to_choose_and_two_rates_of_text_encoders() -> None:
    values = metadata(
        ("optimizer.textEncoderLearningRate", 5e-5), ("optimizer.textEncoder2LearningRate", 1e-5), family="sdxl"
    )

    assert "modelspec.encoder_layer" not in values
    assert values["modelspec.implementation"] == "https://github.com/Stability-AI/generative-models"
    assert values["ss_text_encoder_lr"] == "[5e-05, 1e-05]"


def test_another_vae_is_named_only_when_there_is_one() -> None:
    values = metadata(vae_name="vae-12345678", vae_digest="12345678" * 8)

    assert (values["ss_vae_name"], values["ss_vae_hash"]) == ("vae-12345678", "12345678")
    assert values["ss_new_vae_hash"] == "12345678" * 8
    assert not any(key.startswith("ss_vae") for key in metadata())


def test_a_checkpoint_has_the_old_hash_beside_its_digest() -> None:
    values = metadata(base_old_hash="e3b0c442", vae_name="v", vae_digest="12" * 32, vae_old_hash="0a0b0c0d")

    assert (values["ss_sd_model_hash"], values["ss_new_sd_model_hash"]) == ("e3b0c442", "abcdef01" * 8)
    assert (values["ss_vae_hash"], values["ss_new_vae_hash"]) == ("0a0b0c0d", "12" * 32)


def test_tables_are_json() -> None:
    values = metadata()

    assert json.loads(values["ss_tag_frequency"]) == {"2_zwx": {"zwx ü": 3}}
    assert json.loads(values["ss_dataset_dirs"]) == {"2_zwx": {"n_repeats": 2, "img_count": 3}}
    assert json.loads(values["ss_reg_dataset_dirs"]) == {"1_shape": {"n_repeats": 1, "img_count": 2}}
    assert json.loads(values["ss_bucket_info"])["buckets"] == {"0": {"resolution": [64, 64], "count": 12}}


def test_listed_subsets_are_told_as_sd_scripts_tells_a_dataset_file() -> None:
    subset = {"image_dir": "zwx", "num_repeats": 2, "img_count": 3, "is_reg": False}
    changes = [("dataset", {"subsets": [{"uri": "s3://lora/data/zwx", "repeats": 2}], "resolution": 768})]

    (dataset,) = json.loads(metadata(*changes, subsets=(subset,))["ss_datasets"])

    assert dataset["subsets"] == [subset]
    assert (dataset["resolution"], dataset["min_bucket_reso"], dataset["num_train_images"]) == ([768, 768], 320, 6)
    assert "ss_datasets" not in metadata()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([("network", {"type": "locon", "rank": 8, "convRank": 4, "convAlpha": 1})],
         {"conv_dim": "4", "conv_alpha": "1"}),
        ([("network", {"type": "locon", "rank": 8})], {"conv_dim": "8", "conv_alpha": "8"}),
        ([("network", {"rankDropout": 0.1, "moduleDropout": 0.25})],
         {"rank_dropout": "0.1", "module_dropout": "0.25"}),
        ([("optimizer.loraPlus", {"ratio": 16, "unetRatio": 4})],
         {"loraplus_lr_ratio": "16", "loraplus_unet_lr_ratio": "4"}),
        ([("network.type", "loha")], {"algo": "loha", "preset": "attn-mlp"}),
        ([("network", {"type": "lokr", "lokrFactor": 8, "convRank": 4})],
         {"algo": "lokr", "preset": "full", "conv_dim": "4", "conv_alpha": "4", "factor": "8"}),
        ([("network.type", "dora")],
         {"algo": "locon", "preset": "attn-mlp", "dora_wd": "True", "wd_on_output": "True"}),
    ],
)  # fmt: skip
def test_the_network_is_told_as_arguments(changes: list[tuple[str, Any]], expected: dict[str, str]) -> None:
    assert arguments(*changes) == expected


def test_a_plain_network_needs_no_arguments() -> None:
    assert "ss_network_args" not in metadata()


def test_blocks_are_told_as_one_number_each() -> None:
    blocks = [{"name": "IN04", "rank": 2, "alpha": 1.5}, {"name": "OUT11", "learningRateFactor": 0.5}]

    found = arguments(("network", {"rank": 4, "alpha": 3, "blocks": blocks}))

    assert found == {
        "block_dims": "4,4,4,4,2,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4",
        "block_alphas": "3,3,3,3,1.5,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3",
        "down_lr_weight": "1,1,1,1,1,1,1,1,1,1,1,1",
        "mid_lr_weight": "1",
        "up_lr_weight": "1,1,1,1,1,1,1,1,1,1,1,0.5",
    }


def test_alphas_of_blocks_are_told_with_the_ranks_without_which_sd_scripts_does_not_read_them() -> None:
    blocks = [{"name": "IN00", "alpha": 2, "convAlpha": 1}]

    found = arguments(("network", {"type": "locon", "rank": 4, "alpha": 4, "blocks": blocks}))

    assert found["block_alphas"] == "2" + ",4" * 24
    assert found["conv_block_alphas"] == "1" + ",4" * 24
    assert found["block_dims"] == found["conv_block_dims"] == "4" + ",4" * 24


def test_without_alphas_each_block_has_its_ranks() -> None:
    blocks = [{"name": "IN00", "rank": 2, "convRank": 3}]

    found = arguments(("network", {"type": "locon", "rank": 4, "convRank": 5, "blocks": blocks}))

    assert found["block_alphas"] == "2" + ",4" * 24
    assert found["conv_block_alphas"] == "3" + ",5" * 24


def test_sdxl_counts_the_layers_around_its_blocks_as_well() -> None:
    found = arguments(("network", {"rank": 4, "blocks": [{"name": "M01", "rank": 2}]}), family="sdxl")

    assert found["block_dims"] == "0,4,4,4,4,4,4,4,4,4,4,2,4,4,4,4,4,4,4,4,4,4,0"
    assert found["block_alphas"] == "0,4,4,4,4,4,4,4,4,4,4,2,4,4,4,4,4,4,4,4,4,4,0"


@pytest.mark.parametrize(
    ("key", "changes", "value"),
    [
        ("ss_caption_prefix", [("dataset.captions.prefix", "zwx,")], "zwx,"),
        ("ss_enable_wildcard", [("dataset.captions.wildcards", True)], "True"),
        ("ss_token_warmup_step", [("dataset.captions.tokenWarmup", {"fraction": 0.5})], "0.5"),
        ("ss_full_bf16", [("training.fullPrecision", True)], "True"),
        ("ss_lr_scheduler_num_cycles", [("optimizer.schedule", {"name": "cosine_with_restarts", "cycles": 3})], "3"),
        (
            "ss_lr_scheduler_args",
            [("optimizer.schedule", {"name": "piecewise_constant", "pieces": [{"fromStep": 100, "factor": 0.1}]})],
            "step_rules=1:100,0.1",
        ),
    ],
)
def test_what_sd_scripts_does_not_record_is_told_when_it_is_in_use(
    key: str, changes: list[tuple[str, Any]], value: str
) -> None:
    assert metadata(*changes)[key] == value
    assert key not in metadata()


def test_no_place_is_told() -> None:
    assert not any("s3://" in value for value in metadata().values())


def test_epochs_differ_in_epoch_and_step_only() -> None:
    first, second = metadata(epoch=1), metadata(epoch=2)

    assert {key for key in first if first[key] != second[key]} == {"ss_epoch", "ss_steps"}
