"""A file that does anything else than the trained model does is found out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_trainer.lora.formats import AdapterFile, AdapterModule, read_adapter, to_kohya, write_adapter
from lora_trainer.lora.verify import AdapterMismatch, applied, verify_adapter
from tests.trainer.lora.conftest import Adapted

UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
SIBLING = UNET.replace("to_q", "to_k")
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"


def written(adapted: Adapted, folder: Path, dtype: torch.dtype = torch.float16) -> AdapterFile:
    path = folder / "a.safetensors"
    write_adapter(path, to_kohya(adapted.adapters.layers, dtype), {})
    return read_adapter(path)


def scaled(module: AdapterModule) -> AdapterModule:
    return replace(module, alpha=module.alpha * 2)


def nudged(module: AdapterModule) -> AdapterModule:
    return replace(module, up=module.up * 1.01)


def transposed_order(module: AdapterModule) -> AdapterModule:
    return replace(module, up=module.up.flip(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_right_file_passes(adapted: Adapted, tmp_path: Path, dtype: torch.dtype) -> None:
    file = written(adapted, tmp_path, dtype)

    verify_adapter(file, adapted.adapters, adapted.probe, tolerance=1e-3)


@pytest.mark.parametrize("key", [UNET, TEXT], ids=["unet", "text encoder"])
@pytest.mark.parametrize("damage", [scaled, nudged, transposed_order])
def test_one_wrong_module_is_named(
    adapted: Adapted, tmp_path: Path, key: str, damage: Callable[[AdapterModule], AdapterModule]
) -> None:
    file = written(adapted, tmp_path)
    wrong = AdapterFile({**file.modules, key: damage(file.modules[key])}, file.metadata)

    with pytest.raises(AdapterMismatch, match=key):
        verify_adapter(wrong, adapted.adapters, adapted.probe, tolerance=1e-3)


def test_a_lost_module_is_named(adapted: Adapted, tmp_path: Path) -> None:
    file = written(adapted, tmp_path)
    fewer = AdapterFile({key: module for key, module in file.modules.items() if key != TEXT}, file.metadata)

    with pytest.raises(AdapterMismatch, match=f"differ in 1 modules: {TEXT}"):
        verify_adapter(fewer, adapted.adapters, adapted.probe, tolerance=1e-3)


def test_exchanged_modules_are_found(adapted: Adapted, tmp_path: Path) -> None:
    file = written(adapted, tmp_path)
    exchanged = {**file.modules, UNET: file.modules[SIBLING], SIBLING: file.modules[UNET]}

    with pytest.raises(AdapterMismatch):
        verify_adapter(AdapterFile(exchanged, {}), adapted.adapters, adapted.probe, tolerance=1e-3)


def test_outputs_that_differ_are_found_even_when_the_weights_fit(adapted: Adapted, tmp_path: Path) -> None:
    file = written(adapted, tmp_path)
    drift = iter(range(10))

    with pytest.raises(AdapterMismatch, match="output 0 of the written adapter is off by"):
        verify_adapter(
            file,
            adapted.adapters,
            lambda: tuple(output * (1 + 0.01 * next(drift)) for output in adapted.probe()),
            tolerance=1e-3,
        )


def test_the_file_is_applied_without_the_live_adapters(adapted: Adapted, tmp_path: Path) -> None:
    file = written(adapted, tmp_path)
    nothing = {key: replace(module, up=torch.zeros_like(module.up)) for key, module in file.modules.items()}
    with applied(AdapterFile(nothing, {}), adapted.adapters.layers):
        without = adapted.probe()

    live = adapted.probe()

    assert all((a - b).norm() > 0.01 * b.norm() for a, b in zip(live, without, strict=True))


def test_checking_leaves_the_model_as_it_was(adapted: Adapted, tmp_path: Path) -> None:
    before = adapted.probe()

    verify_adapter(written(adapted, tmp_path), adapted.adapters, adapted.probe, tolerance=1e-3)

    assert all(a.equal(b) for a, b in zip(before, adapted.probe(), strict=True))
    assert all(parameter.requires_grad for parameter in adapted.adapters.named_parameters().values())
