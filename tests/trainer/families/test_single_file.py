"""Single files give the very weights of the folder that they were written from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn

from lora_api.model_spec import Family
from lora_trainer.errors import BaseModelUnavailable
from lora_trainer.families.catalogue import CLASSES, open_model
from lora_trainer.families.single_file import SingleFile, read_header
from lora_trainer.families.stable_diffusion import StableDiffusion
from tests.support.ldm_checkpoint import Checkpoint

Checkpoints = Callable[[Family], Checkpoint]
FAMILIES: tuple[Family, ...] = ("sd15", "sd2", "sdxl")
CPU = torch.device("cpu")


def load_file_of(checkpoint: Checkpoint, file: Path | None = None) -> StableDiffusion:
    """The model in the single file."""
    files = SingleFile(file or checkpoint.file, checkpoint.family, "epsilon", checkpoint.configs)
    return CLASSES[checkpoint.family].load(files, CPU, precision=torch.float32)


def assert_equal_weights(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_equals_the_folders(family: Family, checkpoints: Checkpoints) -> None:
    checkpoint = checkpoints(family)
    expected = CLASSES[family].load(open_model(checkpoint.folder), CPU, precision=torch.float32)

    model = load_file_of(checkpoint)

    assert model.parts.keys() == expected.parts.keys()
    for part, module in model.parts.items():
        assert_equal_weights(module, expected.parts[part])
    assert_equal_weights(model.vae, expected.vae)
    assert model.betas == expected.betas


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("part", "model_class"), [("unet", UNet2DConditionModel), ("vae", AutoencoderKL)])
def test_weights_equal_what_diffusers_reads(
    family: Family, part: str, model_class: Any, checkpoints: Checkpoints
) -> None:
    checkpoint = checkpoints(family)
    expected = model_class.from_single_file(
        str(checkpoint.file), config=str(checkpoint.folder), subfolder=part, local_files_only=True
    )

    model = load_file_of(checkpoint)

    assert_equal_weights(model.vae if part == "vae" else model.unet, expected)


def test_a_loaded_file_computes_what_the_folder_does(checkpoints: Checkpoints) -> None:
    checkpoint = checkpoints("sd15")
    expected = CLASSES["sd15"].load(open_model(checkpoint.folder), CPU, precision=torch.float32)
    ids = torch.arange(77)[None]

    with torch.no_grad():
        states = load_file_of(checkpoint).texts[0].encoder(ids).last_hidden_state
        wanted = expected.texts[0].encoder(ids).last_hidden_state

    assert states.equal(wanted)


def test_a_file_without_the_inner_prefix_of_the_text_encoder_is_read(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoint = checkpoints("sd15")
    weights = {name.replace(".text_model.", "."): tensor for name, tensor in load_file(checkpoint.file).items()}
    save_file(weights, tmp_path / "merged.safetensors")

    model = load_file_of(checkpoint, tmp_path / "merged.safetensors")

    assert_equal_weights(model.texts[0].encoder, load_file_of(checkpoint).texts[0].encoder)


def test_weights_are_read_in_the_training_precision_and_the_vae_in_fp32(checkpoints: Checkpoints) -> None:
    checkpoint = checkpoints("sdxl")
    files = SingleFile(checkpoint.file, "sdxl", "epsilon", checkpoint.configs)

    model = CLASSES["sdxl"].load(files, CPU, precision=torch.bfloat16)

    assert {next(part.parameters()).dtype for part in model.parts.values()} == {torch.bfloat16}
    assert next(model.vae.parameters()).dtype == torch.float32


def test_a_missing_weight_is_refused_by_name(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoint = checkpoints("sd15")
    weights = load_file(checkpoint.file)
    del weights["model.diffusion_model.middle_block.1.proj_in.weight"]
    save_file(weights, tmp_path / "cut.safetensors")

    with pytest.raises(BaseModelUnavailable, match=r"unet lacks 1 weights, such as .*middle_block\.1\.proj_in"):
        load_file_of(checkpoint, tmp_path / "cut.safetensors")


def test_a_weight_of_another_shape_is_refused_by_name(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoint = checkpoints("sd15")
    weights = load_file(checkpoint.file)
    weights["model.diffusion_model.out.2.bias"] = torch.zeros(5)
    save_file(weights, tmp_path / "other.safetensors")

    with pytest.raises(BaseModelUnavailable, match=r"out\.2\.bias of shape \(5,\), but the architecture wants \(4,\)"):
        load_file_of(checkpoint, tmp_path / "other.safetensors")


def test_a_pickle_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"")

    with pytest.raises(BaseModelUnavailable, match=r"model\.ckpt, which is no \.safetensors file; .*can run code"):
        read_header(tmp_path / "model.ckpt", field="spec.baseModel.uri")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 20)

    with pytest.raises(BaseModelUnavailable, match=r"spec\.baseModel\.uri: model\.safetensors cannot be read"):
        read_header(tmp_path / "model.safetensors", field="spec.baseModel.uri")


def test_the_digest_is_that_of_the_file(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoint = checkpoints("sd15")
    copy = tmp_path / "other-name.safetensors"
    copy.write_bytes(checkpoint.file.read_bytes())
    same = SingleFile(copy, "sd15", "epsilon").digest
    copy.write_bytes(copy.read_bytes()[:-1] + b"\x01")

    assert same == SingleFile(checkpoint.file, "sd15", "epsilon").digest
    assert SingleFile(copy, "sd15", "epsilon").digest != same
