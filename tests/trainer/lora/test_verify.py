"""A file that does anything else than the trained model does is found out."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lora_api.model_spec import Family, Network, NetworkBlock, NetworkType
from lora_trainer.compute import OUTPUT_TOLERANCE
from lora_trainer.lora.adapter import AdapterFile, AdapterModule
from lora_trainer.lora.formats import read_adapter, to_diffusers, to_kohya, write_adapter
from lora_trainer.lora.verify import AdapterMismatch, applied, verify_adapter
from tests.trainer.lora.conftest import Adapted, adapt, stir

UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
SIBLING = UNET.replace("to_q", "to_k")
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"


def written(adapted: Adapted, folder: Path, dtype: torch.dtype = torch.float16) -> AdapterFile:
    path = folder / "a.safetensors"
    adapters = adapted.adapters
    write_adapter(path, to_kohya(adapters.layers, dtype, adapters.family), {})
    return read_adapter(path)


def changed(file: AdapterFile, modules: Mapping[str, AdapterModule]) -> AdapterFile:
    return replace(file, modules={**file.modules, **modules})


def with_up(module: AdapterModule, up: Tensor) -> AdapterModule:
    return replace(module, tensors={**module.tensors, "lora_up.weight": up})


def scaled(module: AdapterModule) -> AdapterModule:
    return replace(module, alpha=module.alpha * 2)


def nudged(module: AdapterModule) -> AdapterModule:
    return with_up(module, module.up * 1.01)


def transposed_order(module: AdapterModule) -> AdapterModule:
    return with_up(module, module.up.flip(1))


def of_another_kind(module: AdapterModule) -> AdapterModule:
    return replace(module, tensors={**module.tensors, "dora_scale": torch.ones(module.up.shape[0], 1)})


def of_another_rank(module: AdapterModule) -> AdapterModule:
    return replace(module, tensors={name: tensor.repeat(2, 1) for name, tensor in module.tensors.items()}, alpha=4.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_right_file_passes(adapted: Adapted, tmp_path: Path, dtype: torch.dtype) -> None:
    file = written(adapted, tmp_path, dtype)

    verify_adapter(file, adapted.adapters, adapted.probe, tolerance=1e-3)


@pytest.mark.parametrize(
    ("family", "kind", "dtype"),
    [
        ("sd15", "locon", torch.float32),
        ("sd15", "dora", torch.float32),
        ("sd15", "dora", torch.float16),
        ("sd15", "loha", torch.float32),
        ("sd15", "lokr", torch.float16),
        ("sd2", "lora", torch.float32),
        ("sdxl", "locon", torch.float32),
    ],
    ids=str,
)
def test_a_right_file_of_every_type_passes(
    tiny_folder: Callable[[Family], Path], tmp_path: Path, family: Family, kind: NetworkType, dtype: torch.dtype
) -> None:
    blocks = (NetworkBlock(name="IN02", rank=2, alpha=3.0), NetworkBlock(name="M00", rank=0))
    conv_rank = None if kind == "lora" else 3
    network = Network(type=kind, rank=4, alpha=2.0, conv_rank=conv_rank, blocks=blocks)
    adapted = adapt(tiny_folder(family), network, family=family)
    stir(adapted.adapters)
    file = written(adapted, tmp_path, dtype)

    verify_adapter(file, adapted.adapters, adapted.probe, tolerance=1e-4)


@pytest.mark.parametrize("kind", ["locon", "dora", "loha"])
def test_the_rounding_of_half_precision_is_no_mismatch(tiny_pipeline: Path, tmp_path: Path, kind: NetworkType) -> None:
    adapted = adapt(tiny_pipeline, Network(type=kind, rank=4, alpha=2.0, conv_rank=3), precision=torch.bfloat16)
    stir(adapted.adapters)

    def probe() -> tuple[Tensor, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return tuple(output.float() for output in adapted.probe())

    tolerance = OUTPUT_TOLERANCE[torch.bfloat16]
    verify_adapter(written(adapted, tmp_path, torch.float32), adapted.adapters, probe, tolerance=tolerance)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_right_file_in_the_format_of_diffusers_passes(tiny_pipeline: Path, tmp_path: Path, kind: NetworkType) -> None:
    adapted = adapt(tiny_pipeline, Network(type=kind, rank=4, alpha=2.0))
    stir(adapted.adapters)
    tensors, metadata = to_diffusers(adapted.adapters.layers, torch.float16)
    write_adapter(tmp_path / "a.safetensors", tensors, metadata)

    verify_adapter(read_adapter(tmp_path / "a.safetensors"), adapted.adapters, adapted.probe, tolerance=1e-4)


@pytest.mark.parametrize("key", [UNET, TEXT], ids=["unet", "text encoder"])
@pytest.mark.parametrize("damage", [scaled, nudged, transposed_order, of_another_kind, of_another_rank])
def test_one_wrong_module_is_named(
    adapted: Adapted, tmp_path: Path, key: str, damage: Callable[[AdapterModule], AdapterModule]
) -> None:
    file = written(adapted, tmp_path)
    wrong = changed(file, {key: damage(file.modules[key])})

    with pytest.raises(AdapterMismatch, match=key):
        verify_adapter(wrong, adapted.adapters, adapted.probe, tolerance=1e-3)


def test_a_lost_module_is_named(adapted: Adapted, tmp_path: Path) -> None:
    file = written(adapted, tmp_path)
    fewer = replace(file, modules={key: module for key, module in file.modules.items() if key != TEXT})

    with pytest.raises(AdapterMismatch, match=f"differ in 1 modules: {TEXT}"):
        verify_adapter(fewer, adapted.adapters, adapted.probe, tolerance=1e-3)


def test_exchanged_modules_are_found(adapted: Adapted, tmp_path: Path) -> None:
    file = written(adapted, tmp_path)
    one, other = file.modules[UNET], file.modules[SIBLING]
    exchanged = {UNET: replace(other, name=one.name), SIBLING: replace(one, name=other.name)}

    with pytest.raises(AdapterMismatch):
        verify_adapter(changed(file, exchanged), adapted.adapters, adapted.probe, tolerance=1e-3)


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
    nothing = {key: with_up(module, torch.zeros_like(module.up)) for key, module in file.modules.items()}
    with applied(changed(file, nothing), adapted.adapters):
        without = adapted.probe()

    live = adapted.probe()

    assert all((a - b).norm() > 0.01 * b.norm() for a, b in zip(live, without, strict=True))


def test_checking_leaves_the_model_as_it_was(adapted: Adapted, tmp_path: Path) -> None:
    before = adapted.probe()

    verify_adapter(written(adapted, tmp_path), adapted.adapters, adapted.probe, tolerance=1e-3)

    assert all(a.equal(b) for a, b in zip(before, adapted.probe(), strict=True))
    assert all(parameter.requires_grad for parameter in adapted.adapters.named_parameters().values())
