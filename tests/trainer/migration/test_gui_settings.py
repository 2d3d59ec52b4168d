"""Settings files of the Kohya_ss GUI."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_api import LoraTraining
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.migration.draft import Draft
from tests.support.imports import from_text, value_at


def settings(**changes: Any) -> tuple[LoraTraining, Draft]:
    return from_text(json.dumps({"LoRA_type": "Standard", **changes}))


@pytest.mark.parametrize(
    ("changes", "path", "value"),
    [
        ({"max_resolution": "768,512"}, "dataset.resolution", "768x512"),
        ({"caption_extension": ""}, "dataset.captions.extension", ".caption"),
        ({}, "dataset.captions.extension", ".txt"),
        ({"optimizer": "DAdaptAdam", "unet_lr": 1, "text_encoder_lr": 1}, "optimizer.name", "dadaptadam"),
        ({"validation_split": 0.1}, "dataset.validationFraction", 0.1),
        ({"validation_split": 0.1}, "evaluation.bestEpoch.by", "ValidationLoss"),
        ({"lr_warmup": 10}, "optimizer.schedule.warmupFraction", 0.1),
        ({"lr_warmup": 10, "lr_warmup_steps": 50}, "optimizer.schedule.warmupSteps", 50),
        ({"unet_lr": 0, "text_encoder_lr": 5e-5}, "network.unet", False),
        ({"unet_lr": 1e-4, "text_encoder_lr": 0}, "network.textEncoder", False),
        ({"unet_lr": 0, "text_encoder_lr": 0, "learning_rate": 3e-4}, "optimizer.learningRate", 3e-4),
        ({"unet_lr": 0, "text_encoder_lr": 0, "learning_rate": 3e-4}, "optimizer.unetLearningRate", None),
        ({"lora_network_weights": "s3://lora/b.safetensors"}, "network.initialUri", "s3://lora/b.safetensors"),
        ({"keep_tokens": "2"}, "dataset.captions.keepTokens", 2),
        ({"xformers": "sdpa"}, "training.attention", "sdpa"),
        ({"xformers": True}, "training.attention", "xformers"),
        ({"sdxl": True}, "baseModel.family", "sdxl"),
        ({"seed": ""}, "training.seed", 1234),
        ({"cache_latents_to_disk": True}, "dataset.latentCache", "Disk"),
        ({"loraplus_lr_ratio": 16}, "optimizer.loraPlus.ratio", 16.0),
        ({"LoRA_type": "Kohya LoCon", "conv_dim": 4, "conv_alpha": 2}, "network.convAlpha", 2.0),
        ({"LoRA_type": "Kohya LoCon", "conv_dim": 4, "conv_alpha": 0}, "network.convAlpha", 4.0),
        ({"LoRA_type": "LyCORIS/LoKr", "factor": 8, "conv_dim": 4}, "network.lokrFactor", 8),
        ({"LoRA_type": "Standard", "conv_dim": 4}, "network.type", "lora"),
        ({"additional_parameters": "--network_train_unet_only --seed 7", "seed": 3}, "network.textEncoder", False),
        ({"additional_parameters": "--network_train_unet_only --seed 7", "seed": 3}, "training.seed", 7),
    ],
)
def test_the_words_of_the_gui_mean_what_it_passes_on(changes: dict[str, Any], path: str, value: object) -> None:
    assert value_at(settings(**changes)[0], path) == value


@pytest.mark.parametrize(
    ("changes", "epochs", "steps"),
    [
        ({"epoch": 8, "max_train_steps": 0}, 8, None),
        ({"epoch": 8, "max_train_steps": ""}, 8, None),
        ({"epoch": 8}, 8, None),
        ({}, 10000, 1600),
        ({"epoch": 8, "max_train_steps": 1600}, 10000, 1600),
        ({"epoch": 8, "max_train_steps": 1600, "max_train_epochs": 5}, 5, None),
    ],
)
def test_epochs_count_unless_steps_are_typed(changes: dict[str, Any], epochs: int, steps: int | None) -> None:
    training = settings(**changes)[0].spec.training

    assert (training.epochs, training.max_steps) == (epochs, steps)


@pytest.mark.parametrize(("kind", "offset", "levels"), [("Original", 0.1, None), ("Multires", None, 6)])
def test_of_two_kinds_of_noise_the_chosen_one_counts(kind: str, offset: float | None, levels: int | None) -> None:
    both = {"noise_offset": 0.1, "multires_noise_iterations": 6, "multires_noise_discount": 0.2}

    loss = settings(noise_offset_type=kind, **both)[0].spec.training.loss

    assert (loss.noise_offset, loss.multires_noise_iterations) == (offset, levels)


def test_restarts_follow_the_epochs_unless_they_are_typed() -> None:
    schedule = settings(lr_scheduler="cosine_with_restarts", epoch=4, lr_scheduler_num_cycles="")[0]

    assert value_at(schedule, "optimizer.schedule.cycles") == 4


def test_prompts_are_typed_into_the_gui() -> None:
    training, _ = settings(sample_prompts="a cat --n dog --w 700 --d 3 --l 6\n# no\nsky", sample_sampler="euler_a")

    first, second = training.spec.samples.prompts
    assert (first.prompt, first.negative_prompt, first.width_px, first.seed) == ("a cat", "dog", 696, 3)
    assert (first.guidance, first.steps, first.sampler, second.prompt) == (6.0, 30, "euler_a", "sky")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"stop_text_encoder_training": 20}, "stop_text_encoder_training"),
        ({"new_button": True}, "new_button"),
        ({"additional_parameters": "--x 1"}, "x"),
        ({"additional_parameters": "network_dim=3"}, "additional_parameters"),
        ({"LoRA_type": "LyCORIS/iA3", "LyCORIS_preset": "attn-mlp"}, "network_args algo"),
        ({"LoRA_type": "LoRA-FA"}, "network_module"),
        ({"LoRA_type": "LyCORIS/LoCon", "LyCORIS_preset": "full"}, "network_args preset"),
        ({"LoRA_type": "LoCon", "LyCORIS_preset": "attn-mlp", "use_tucker": True}, "network_args use_tucker"),
        ({"fp8_base": True}, "fp8_base"),
        ({"validation_split": 0.6}, "dataset.validationFraction"),
    ],
)
def test_what_has_no_counterpart_is_told(changes: dict[str, Any], name: str) -> None:
    _, draft = settings(**changes)

    assert [leftover.name for leftover in draft.leftovers] == [name]


@pytest.mark.parametrize("name", ["epoch", "num_processes", "lr_warmup"])
def test_a_number_without_end_is_refused(name: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"{name} is 'inf', but must be a number"):
        settings(**{name: float("inf")})


def test_a_sampler_that_is_not_known_is_told_once() -> None:
    _, draft = settings(sample_prompts="a\nb", sample_sampler="magic")

    assert [leftover.name for leftover in draft.leftovers] == ["sample_sampler"]


def test_what_the_gui_writes_unasked_is_not_told() -> None:
    assert settings(dynamo_mode="default", dynamo_backend="no")[1].leftovers == []


def test_a_dataset_definition_takes_the_place_of_the_folders(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text("[[datasets]]\nresolution = 640\n[[datasets.subsets]]\nimage_dir = 'a'\n")

    training, _ = from_text(json.dumps({"LoRA_type": "Standard", "dataset_config": "C:\\x\\data.toml"}), tmp_path)

    assert (training.spec.dataset.resolution, training.spec.dataset.subsets[0].uri) == (640, "s3://lora/data/a")


def test_untouched_settings_leave_nothing_over() -> None:
    _, draft = settings(model_list="custom", gpu_ids="", num_processes=1, resume="", wandb_api_key="")

    assert draft.leftovers == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"flux1_checkbox": True}, "flux1_checkbox is on"), ({"unet_lr": "fast"}, "unet_lr is 'fast'")],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        settings(**changes)
