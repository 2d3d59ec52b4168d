"""Starting from an adapter that was trained before, and refusing one of another network."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_api.model_spec import Family, Network, NetworkBlock, NetworkType
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.lora.adapter import AdapterFile
from lora_trainer.lora.formats import read_adapter, to_kohya, write_adapter
from tests.trainer.lora.conftest import adapt, stir

SMALL = Network(rank=4, alpha=2.0, unet=False)


def trained_file(
    base: Path, folder: Path, network: Network = SMALL, *, family: Family = "sd15", dtype: torch.dtype = torch.float32
) -> AdapterFile:
    """The file of a trained network."""
    adapters = adapt(base, network, family=family, seed=1).adapters
    stir(adapters)
    write_adapter(folder / "a.safetensors", to_kohya(adapters.layers, dtype, family), {})
    return read_adapter(folder / "a.safetensors")


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
def test_the_adapters_become_those_of_the_file(tiny_pipeline: Path, tmp_path: Path, kind: NetworkType) -> None:
    network = SMALL.model_copy(update={"type": kind})
    first = adapt(tiny_pipeline, network, seed=1).adapters
    stir(first)
    second = adapt(tiny_pipeline, network, seed=2).adapters

    second.load(trained_file(tiny_pipeline, tmp_path, network))

    loaded = second.named_parameters()
    assert all(tensor.equal(loaded[name]) for name, tensor in first.named_parameters().items())
    assert all(tensor.requires_grad for tensor in loaded.values())


def test_both_text_encoders_start_from_the_file(tiny_sdxl: Path, tmp_path: Path) -> None:
    file = trained_file(tiny_sdxl, tmp_path, family="sdxl", dtype=torch.float16)
    adapters = adapt(tiny_sdxl, SMALL, family="sdxl", seed=2).adapters

    adapters.load(file)

    starts = {layer.part: layer.tensors()["lora_up.weight"].abs().max().item() for layer in adapters.layers}
    assert starts.keys() == {"text_encoder", "text_encoder_2"}
    assert min(starts.values()) > 0


def test_an_alpha_rounded_by_the_file_is_the_same(tiny_pipeline: Path, tmp_path: Path) -> None:
    network = SMALL.model_copy(update={"alpha": 1.7})
    file = trained_file(tiny_pipeline, tmp_path, network, dtype=torch.bfloat16)
    adapters = adapt(tiny_pipeline, network).adapters

    adapters.load(file)

    assert adapters.layers[0].tensors()["lora_up.weight"].any()


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"rank": 8}, r"has lora_down.weight of shape \[4, 16\] in the file, but \[8, 16\] in spec.network"),
        ({"alpha": 4.0}, "has the alpha 2 in the file, but 4 in spec.network; set alpha"),
        ({"type": "dora"}, "is a lora in the file, but spec.network.type is dora; set the type of the file"),
        ({"type": "loha"}, "is a lora in the file, but spec.network.type is loha"),
        ({"unet": True}, "unet down_blocks.0.attentions.0.proj_in is not adapted in the file"),
    ],
)
def test_a_file_of_another_network_is_refused(
    tiny_pipeline: Path, tmp_path: Path, change: dict[str, object], difference: str
) -> None:
    file = trained_file(tiny_pipeline, tmp_path)
    adapters = adapt(tiny_pipeline, SMALL.model_copy(update=change)).adapters

    with pytest.raises(InvalidConfiguration, match=rf"spec\.network\.initialUri is of another network: .*{difference}"):
        adapters.load(file)


def test_a_file_with_more_modules_is_refused(tiny_pipeline: Path, tmp_path: Path) -> None:
    file = trained_file(tiny_pipeline, tmp_path, Network(rank=4, text_encoder=False))
    fewer = Network(rank=4, text_encoder=False, blocks=(NetworkBlock(name="M00", rank=0),))
    adapters = adapt(tiny_pipeline, fewer).adapters

    with pytest.raises(InvalidConfiguration, match=r"unet mid_block.* is adapted in the file only"):
        adapters.load(file)


def test_a_refused_file_changes_nothing(tiny_pipeline: Path, tmp_path: Path) -> None:
    file = trained_file(tiny_pipeline, tmp_path)
    adapters = adapt(tiny_pipeline, SMALL.model_copy(update={"alpha": 4.0})).adapters
    before = {name: tensor.clone() for name, tensor in adapters.named_parameters().items()}

    with pytest.raises(InvalidConfiguration):
        adapters.load(file)

    assert all(tensor.equal(before[name]) for name, tensor in adapters.named_parameters().items())


def test_an_adapter_of_another_family_is_refused(tiny_folder: Callable[[Family], Path], tmp_path: Path) -> None:
    file = trained_file(tiny_folder("sdxl"), tmp_path, family="sdxl")
    adapters = adapt(tiny_folder("sd15"), SMALL).adapters

    with pytest.raises(InvalidConfiguration, match=r"text_encoder_2 .* is adapted in the file only"):
        adapters.load(file)
