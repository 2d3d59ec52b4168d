"""The table of arguments is complete and leads to fields that exist."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from lora_api.spec import LoraTrainingSpec
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.migration.arguments import ARGUMENTS, Argument, read_arguments

TRAIN_NETWORK = frozenset(
    """
    pretrained_model_name_or_path v2 v_parameterization vae tokenizer_cache_dir no_half_vae lowram highvram
    train_data_dir reg_data_dir in_json dataset_repeats dataset_config dataset_class cache_info debug_dataset resolution
    enable_bucket min_bucket_reso max_bucket_reso bucket_reso_steps bucket_no_upscale resize_interpolation
    caption_extension caption_extention caption_separator shuffle_caption keep_tokens keep_tokens_separator
    secondary_separator enable_wildcard caption_prefix caption_suffix caption_dropout_rate
    caption_dropout_every_n_epochs caption_tag_dropout_rate token_warmup_min token_warmup_step weighted_captions
    max_token_length clip_skip color_aug flip_aug face_crop_aug_range random_crop alpha_mask masked_loss
    conditioning_data_dir cache_latents cache_latents_to_disk skip_cache_check vae_batch_size validation_split
    validation_seed validate_every_n_steps validate_every_n_epochs max_validation_steps
    network_module network_dim network_alpha network_dropout network_args network_weights dim_from_weights
    network_train_unet_only network_train_text_encoder_only scale_weight_norms base_weights base_weights_multiplier
    train_batch_size gradient_accumulation_steps max_train_steps max_train_epochs seed initial_epoch initial_step
    skip_until_initial_step max_data_loader_n_workers persistent_data_loader_workers
    optimizer_type optimizer_args use_8bit_adam use_lion_optimizer learning_rate unet_lr text_encoder_lr max_grad_norm
    lr_scheduler lr_scheduler_type lr_scheduler_args lr_warmup_steps lr_decay_steps lr_scheduler_num_cycles
    lr_scheduler_power lr_scheduler_timescale lr_scheduler_min_lr_ratio fused_backward_pass
    loss_type huber_schedule huber_c huber_scale prior_loss_weight min_snr_gamma scale_v_pred_loss_like_noise_pred
    v_pred_like_loss debiased_estimation_loss zero_terminal_snr noise_offset noise_offset_random_strength
    adaptive_noise_scale multires_noise_iterations multires_noise_discount ip_noise_gamma ip_noise_gamma_random_strength
    min_timestep max_timestep
    mixed_precision full_fp16 full_bf16 fp8_base fp8_base_unet gradient_checkpointing cpu_offload_checkpointing xformers
    sdpa mem_eff_attn torch_compile dynamo_backend
    ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph deepspeed zero_stage offload_optimizer_device
    offload_optimizer_nvme_path offload_param_device offload_param_nvme_path zero3_init_flag zero3_save_16bit_model
    fp16_master_weights_and_gradients
    output_dir output_name save_model_as save_precision no_metadata training_comment save_every_n_epochs
    save_every_n_steps save_n_epoch_ratio save_last_n_epochs save_last_n_epochs_state save_last_n_steps
    save_last_n_steps_state save_state save_state_on_train_end resume huggingface_repo_id huggingface_repo_type
    huggingface_path_in_repo huggingface_token huggingface_repo_visibility save_state_to_huggingface
    resume_from_huggingface async_upload
    sample_prompts sample_every_n_steps sample_every_n_epochs sample_at_first sample_sampler logging_dir log_with
    log_prefix log_tracker_name wandb_run_name log_tracker_config wandb_api_key log_config console_log_level
    console_log_file console_log_simple config_file output_config
    metadata_title metadata_author metadata_description metadata_license metadata_tags metadata_usage_hint
    metadata_thumbnail metadata_merged_from metadata_trigger_phrase metadata_preprocessor metadata_is_negative_embedding
    """.split()  # noqa: SIM905  (readable as words)
)
"""The 193 arguments of train_network.py of sd-scripts 0.10.1."""
PAGE = Path(__file__).parents[3] / "docs" / "kohya.md"
SAID_ELSEWHERE = {"network_args", "sample_sampler"}
SDXL_ONLY = {"cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk", "disable_mmap_load_safetensors"}


def exists(path: str) -> bool:
    model: type[BaseModel] | None = LoraTrainingSpec
    for step in path.split("."):
        fields = {} if model is None else {field.alias or name: field for name, field in model.model_fields.items()}
        if step not in fields:
            return False
        model = model_in(fields[step].annotation)
    return True


def model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := model_in(one))), None)


def test_every_argument_of_both_scripts_is_in_the_table_and_no_other() -> None:
    assert len(TRAIN_NETWORK) == 193
    assert set(ARGUMENTS) == TRAIN_NETWORK | SDXL_ONLY


def test_the_page_for_movers_names_every_argument_and_its_fields() -> None:
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    told = {name: row[2] for row in reversed(rows) for name in re.findall(r"\w+", row[1])}

    assert sorted(set(ARGUMENTS) - set(told)) == []
    fields = {name: argument.fields[:1] for name, argument in ARGUMENTS.items() if name not in SAID_ELSEWHERE}
    assert [name for name, paths in fields.items() if not all(f"`{path}`" in told[name] for path in paths)] == []


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS.items())
def test_each_has_fields_that_exist_or_the_reason_why_it_has_none(name: str, argument: Argument) -> None:
    assert bool(argument.fields) != bool(argument.reason)
    assert [path for path in argument.fields if not exists(path)] == []


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("keep_tokens", "2", 2),
        ("keep_tokens", "", None),
        ("seed", "None", None),
        ("flip_aug", "True", True),
        ("flip_aug", False, False),
        ("resolution", "(768, 512)", (768.0, 512.0)),
        ("resolution", 768, (768.0,)),
        ("lr_warmup_steps", "10%", 0.1),
        ("optimizer_args", 'a=1 b="x y"', ("a=1", "b=x y")),
    ],
)
def test_values_mean_the_same_in_every_form(name: str, raw: object, value: object) -> None:
    assert read_arguments({name: raw}, complete=False)[0][name] == value


def test_a_value_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(InvalidConfiguration, match="network_dim is 'many', but must be a whole number"):
        read_arguments({"network_dim": "many"}, complete=True)


def test_only_complete_settings_have_defaults() -> None:
    assert read_arguments({}, complete=True)[0]["max_train_steps"] == 1600
    assert read_arguments({}, complete=False)[0]["max_train_steps"] is None
