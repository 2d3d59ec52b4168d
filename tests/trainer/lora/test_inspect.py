"""The numbers of an adapter file."""

from pathlib import Path

import pytest
import torch

from lora_trainer.lora.formats import to_kohya, write_adapter
from lora_trainer.lora.inspect import summarise
from tests.trainer.lora.conftest import Adapted


def test_norms_are_those_of_the_weight_changes(adapted: Adapted, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_adapter(path, to_kohya(adapted.adapters.layers, torch.float32), {"ss_seed": "1"})
    layers = adapted.adapters.of("text_encoder")
    norms = [float((layer.up @ layer.down * 0.5).norm().detach()) for layer in layers]

    summary = summarise(path)

    part = summary.parts["text_encoder"]
    assert part.mean_norm == pytest.approx(sum(norms) / len(norms), rel=1e-5)
    assert part.max_norm == pytest.approx(max(norms), rel=1e-5)
    assert summary.modules[part.max_norm_module]["norm"] == part.max_norm


def test_modules_ranks_alphas_and_sizes_are_counted(adapted: Adapted, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_adapter(path, to_kohya(adapted.adapters.layers, torch.float16), {"ss_seed": "1"})

    summary = summarise(path)

    assert {name: (part.modules, part.ranks, part.alphas) for name, part in summary.parts.items()} == {
        "text_encoder": (12, (4,), (2.0,)),
        "unet": (192, (4,), (2.0,)),
    }
    assert summary.parameters == sum(p.numel() for p in adapted.adapters.named_parameters().values())
    assert (summary.dtypes, summary.size_bytes, summary.metadata) == (
        ("float16",),
        path.stat().st_size,
        {"ss_seed": "1"},
    )
