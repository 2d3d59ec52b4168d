"""The published folder: Stable Diffusion 1.x's topology, names and file layout at a small size."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

FOLDER = Path(__file__).parents[2] / "tinybase" / "model"
UNET = FOLDER / "unet" / "diffusion_pytorch_model.safetensors"
VAE = FOLDER / "vae" / "diffusion_pytorch_model.safetensors"
TEXT_ENCODER = FOLDER / "text_encoder" / "model.safetensors"


def keys_of(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as weights:
        return set(weights.keys())


def sd1_adapted_modules() -> set[str]:
    """The 192 linear and 1x1 layers of SD 1.x's 16 transformer blocks, from its published architecture."""
    transformers = [
        *(f"down_blocks.{level}.attentions.{i}" for level in (0, 1, 2) for i in (0, 1)),
        "mid_block.attentions.0",
        *(f"up_blocks.{level}.attentions.{i}" for level in (1, 2, 3) for i in (0, 1, 2)),
    ]
    attention = [f"{a}.{m}" for a in ("attn1", "attn2") for m in ("to_q", "to_k", "to_v", "to_out.0")]
    inner = [f"transformer_blocks.0.{name}" for name in (*attention, "ff.net.0.proj", "ff.net.2")]
    return {f"{block}.{name}" for block in transformers for name in ("proj_in", "proj_out", *inner)}


def test_unet_has_the_192_adapted_modules_of_sd1() -> None:
    modules = {key.removesuffix(".weight") for key in keys_of(UNET)}

    wanted = sd1_adapted_modules()
    assert len(wanted) == 192
    assert wanted <= modules
    assert {m for m in modules if ".attentions." in m and "norm" not in m and not m.endswith(".bias")} == wanted


@pytest.mark.parametrize(("path", "count"), [(UNET, 686), (VAE, 248), (TEXT_ENCODER, 196)])
def test_each_part_has_as_many_tensors_as_in_sd1(path: Path, count: int) -> None:
    assert len(keys_of(path)) == count


def test_text_encoder_keys_have_the_prefix_of_sd1_files() -> None:
    keys = keys_of(TEXT_ENCODER)

    assert all(key.startswith("text_model.") for key in keys)
    assert "text_model.encoder.layers.11.self_attn.q_proj.weight" in keys
    assert "text_model.encoder.layers.12.self_attn.q_proj.weight" not in keys


@pytest.mark.parametrize("path", [UNET, VAE, TEXT_ENCODER], ids=lambda path: path.parent.name)
def test_weights_are_stored_in_half_precision(path: Path) -> None:
    with safe_open(path, framework="pt") as weights:
        kinds = {weights.get_slice(key).get_dtype() for key in keys_of(path)}

    assert kinds == {"F16"}


def test_folder_is_at_most_25_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 25_000_000


def test_tokenizer_folder_has_the_files_of_sd1() -> None:
    names = {path.name for path in (FOLDER / "tokenizer").iterdir()}

    assert names == {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"}


def test_schedule_is_the_one_of_sd1() -> None:
    config = json.loads((FOLDER / "scheduler" / "scheduler_config.json").read_text())

    wanted = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
    }
    assert {key: config[key] for key in wanted} == wanted


def test_latents_use_the_scale_of_sd1() -> None:
    assert json.loads((FOLDER / "vae" / "config.json").read_text())["scaling_factor"] == 0.18215
