"""Length, precision, noise and loss, captions and sizes of sd-scripts' arguments."""

import pytest

from tests.support.imports import from_arguments, from_text, leftovers_of, value_at


@pytest.mark.parametrize(
    ("arguments", "epochs", "steps", "period"),
    [
        ("--max_train_epochs 5", 5, None, 5),
        ("--max_train_epochs 5 --max_train_steps 9", 5, None, 5),
        ("--max_train_steps 9", 10000, 9, 1000),
        ("--max_train_epochs 8 --save_every_n_epochs 2", 8, None, 2),
        ("--max_train_epochs 8 --save_n_epoch_ratio 3", 8, None, 2),
    ],
)
def test_length_and_saving(arguments: str, epochs: int, steps: int | None, period: int) -> None:
    spec = from_arguments(arguments).spec

    assert (spec.training.epochs, spec.training.max_steps, spec.checkpoints.every_epochs) == (epochs, steps, period)


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        ("--mixed_precision bf16 --full_bf16", "training.fullPrecision", True),
        ("--mixed_precision fp16", "training.precision", "fp16"),
        ("--save_precision bf16", "output.precision", "bf16"),
        ("--lowram", "training.lowMemory", True),
        ("--sample_every_n_steps 50", "samples.everySteps", 50),
        ("--sample_every_n_epochs 3", "samples.everyEpochs", 3),
        ("--noise_offset 0.1 --adaptive_noise_scale 0.01", "training.loss.adaptiveNoiseScale", 0.01),
        ("--multires_noise_iterations 6", "training.loss.multiresNoiseIterations", 6),
        ("--ip_noise_gamma 0.1 --ip_noise_gamma_random_strength", "training.loss.ipNoiseGammaRandomStrength", True),
        ("--loss_type huber --huber_schedule constant --huber_scale 2", "training.loss.huberScale", 2.0),
        ("--v2 --v_parameterization --zero_terminal_snr", "training.loss.zeroTerminalSnr", True),
        ("--v2", "baseModel.prediction", "epsilon"),
        ("--min_timestep 100 --max_timestep 900", "training.loss.maxTimestep", 900),
        ("--cache_latents", "dataset.latentCache", "Memory"),
        ("--color_aug", "dataset.latentCache", "None"),
        ("--flip_aug", "dataset.latentCache", "Memory"),
        ("--cache_latents --cache_latents_to_disk", "dataset.latentCache", "Disk"),
        ("--alpha_mask", "dataset.mask", "Alpha"),
        ("--masked_loss", "dataset.mask", "Files"),
        ("--random_crop", "dataset.augmentation.randomCrop", True),
        ("--face_crop_aug_range 2.0,4.0", "dataset.augmentation.faceCropRange.maximum", 4.0),
        ("--token_warmup_step 0.5 --token_warmup_min 2", "dataset.captions.tokenWarmup.fraction", 0.5),
        ("--token_warmup_step 50", "dataset.captions.tokenWarmup.steps", 50),
        ("--caption_extention .cap", "dataset.captions.extension", ".cap"),
        ("--caption_prefix 'a photo'", "dataset.captions.prefix", "a photo"),
        ("--max_token_length 225", "dataset.captions.maxTokens", 225),
        ("--resize_interpolation area", "dataset.buckets.resizeFilter", "Box"),
        ("--enable_bucket --resolution 512 --bucket_no_upscale", "dataset.buckets.upscale", False),
        ("--enable_bucket --resolution 768 --min_bucket_reso 300", "dataset.buckets.minPx", 256),
        ("--enable_bucket --resolution 512 --max_bucket_reso 700", "dataset.buckets.maxPx", 704),
        ("--prior_loss_weight 0.5", "dataset.regularization.lossWeight", 0.5),
        ("--save_every_n_steps 100 --save_state", "checkpoints.everySteps", 100),
        ("--save_last_n_epochs_state 3", "checkpoints.keepLast", 3),
        ("--save_last_n_epochs_state 500", "checkpoints.keepLast", 100),
        ("--save_every_n_steps 100 --save_last_n_steps_state 500", "checkpoints.keepLast", 6),
    ],
)
def test_settings_find_their_fields(arguments: str, path: str, value: object) -> None:
    assert value_at(from_arguments(arguments), path) == value


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("--full_fp16", "full_fp16"),
        ("--zero_terminal_snr", "zero_terminal_snr"),
        ("--adaptive_noise_scale 0.1", "adaptive_noise_scale"),
        ("--min_snr_gamma 5 --debiased_estimation_loss", "training.loss.debiasedEstimation"),
        ("--face_crop_aug_range 2,4 --cache_latents", "face_crop_aug_range"),
        ("--resize_interpolation magic", "resize_interpolation"),
        ("--save_last_n_steps_state 100", "save_last_n_steps_state"),
        ("--save_state_on_train_end", "save_state_on_train_end"),
        ("--torch_compile", "training.compile"),
        ("--save_model_as ckpt", "save_model_as"),
        ("--network_dim 2000", "network.rank"),
        ("--sample_prompts /no/prompts.txt", "sample_prompts"),
        ("--sample_every_n_epochs 2 --sample_every_n_steps 50", "sample_every_n_steps"),
        ("--reg_data_dir /no/reg", "reg_data_dir"),
        ("--vae /no/vae.pt", "vae"),
        ("--base_weights /no/a.safetensors", "base_weights"),
        ("--in_json meta.json", "in_json"),
    ],
)
def test_what_has_no_effect_or_no_counterpart_is_told(arguments: str, name: str) -> None:
    assert list(leftovers_of(arguments)) == [name]


def test_what_is_so_anyway_is_not_told() -> None:
    assert leftovers_of("--no_half_vae --save_state --sample_at_first --sdpa") == {}


def test_clip_skip_is_told_on_sdxl_which_ignores_it() -> None:
    _, draft = from_text("python sdxl_train_network.py --clip_skip 2")

    assert [leftover.name for leftover in draft.leftovers] == ["clip_skip"]
