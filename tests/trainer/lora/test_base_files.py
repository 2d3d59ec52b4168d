"""Adapters added to the files of a base model."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora_api.model_spec import Family
from lora_trainer.conditioning import Part
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from lora_trainer.lora.adapter import DORA_SCALE, DOWN, UP, AdapterFile, AdapterModule, InvalidAdapterFile, keyed
from lora_trainer.lora.base_files import BaseFiles
from lora_trainer.lora.keys import ModuleName, canonical_path
from lora_trainer.lora.merge import Weighted, merge_into
from tests.support.adapter_files import TEXT, make_adapter
from tests.support.adapters import load_parts
from tests.support.ldm_checkpoint import write_ldm_checkpoint
from tests.support.tiny_pipeline import write_tiny_pipeline

FAMILIES: tuple[Family, ...] = ("sd15", "sd2", "sdxl")


def whole_adapter(folder: Path, family: Family) -> AdapterFile:
    """An adapter of every linear layer and convolution of the UNet and the text encoders."""
    modules = [
        _module(ModuleName(part, path if part == "unet" else canonical_path(path)), layer.weight, seed)
        for part, model in load_parts(folder, family).items()
        for seed, (path, layer) in enumerate(model.named_modules())
        if isinstance(layer, nn.Linear | nn.Conv2d) and "text_projection" not in path
    ]
    return AdapterFile(keyed(modules, family), {}, family)


def _module(name: ModuleName, weight: Tensor, seed: int) -> AdapterModule:
    random = torch.Generator().manual_seed(seed)
    outputs, inputs, *kernel = weight.shape
    down = torch.randn(2, inputs, *kernel, generator=random)
    up = torch.randn(outputs, 2, *[1] * len(kernel), generator=random)
    return AdapterModule(name, {DOWN: down, UP: up}, alpha=0.5)


def terms(adapter: AdapterFile) -> list[Weighted]:
    """The adapter twice, at two strengths."""
    return [Weighted(adapter, 0.7, "a"), Weighted(adapter, -0.2, "b")]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of a part."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    return {family: write_tiny_pipeline(tmp_path_factory.mktemp(family), family=family) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_gets_the_changes_and_a_checkpoint_the_same_ones(
    bases: dict[Family, Path], tmp_path: Path, family: Family
) -> None:
    folder, adapter = bases[family], whole_adapter(bases[family], family)
    checkpoint = write_ldm_checkpoint(folder, tmp_path / "base.safetensors", family)

    BaseFiles.open(folder, family).add(terms(adapter), tmp_path / "folder")
    BaseFiles.open(checkpoint, family).add(terms(adapter), tmp_path / "file.safetensors")

    expected = load_parts(folder, family)
    merge_into(expected, adapter, 0.5)
    parts = load_parts(tmp_path / "folder", family)
    for part, model in parts.items():
        wanted = weights(expected[part])
        assert all(torch.allclose(tensor, wanted[name], atol=1e-5) for name, tensor in weights(model).items())
    again = load_file(write_ldm_checkpoint(tmp_path / "folder", tmp_path / "again.safetensors", family))
    written = load_file(tmp_path / "file.safetensors")
    assert written.keys() == again.keys()
    assert all(torch.allclose(tensor, again[name], atol=1e-6) for name, tensor in written.items())


def test_what_is_not_changed_is_copied(bases: dict[Family, Path], tmp_path: Path) -> None:
    adapter = whole_adapter(bases["sd15"], "sd15")

    BaseFiles.open(bases["sd15"], "sd15").add(terms(adapter), tmp_path / "out")

    for path in ("model_index.json", "tokenizer/tokenizer.json", "vae/diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "out" / path).read_bytes() == (bases["sd15"] / path).read_bytes()


def test_a_weight_is_read_where_it_lies(bases: dict[Family, Path], tmp_path: Path) -> None:
    checkpoint = write_ldm_checkpoint(bases["sdxl"], tmp_path / "base.safetensors", "sdxl")
    name = ModuleName("text_encoder_2", "encoder.layers.1.self_attn.k_proj")

    from_file = BaseFiles.open(checkpoint, "sdxl").weight(name)

    live = load_parts(bases["sdxl"], "sdxl")["text_encoder_2"].get_submodule("text_model." + name.path)
    assert from_file.equal(live.weight)  # type: ignore[arg-type]
    assert BaseFiles.open(bases["sdxl"], "sdxl").weight(name).equal(from_file)


def test_a_dora_is_that_of_the_base_weights(bases: dict[Family, Path], tmp_path: Path) -> None:
    name = ModuleName("unet", "mid_block.resnets.0.conv1")
    live = load_parts(bases["sd15"], "sd15")["unet"].get_submodule(name.path).weight
    assert isinstance(live, Tensor)
    plain = _module(name, live, 1)
    dora = AdapterModule(name, {**plain.tensors, DORA_SCALE: torch.full((16, 1, 1, 1), 3.0)}, plain.alpha)
    adapter = AdapterFile(keyed([dora], "sd15"), {}, "sd15")

    BaseFiles.open(bases["sd15"], "sd15").add([Weighted(adapter, 1.0, "a")], tmp_path / "out")

    changed = load_parts(tmp_path / "out", "sd15")["unet"].get_submodule(name.path).weight
    assert isinstance(changed, Tensor)
    assert torch.allclose(changed.flatten(1).norm(dim=1), torch.full((16,), 3.0), rtol=1e-4)


def test_variants_of_other_precisions_are_changed_as_well(bases: dict[Family, Path], tmp_path: Path) -> None:
    base = tmp_path / "base"
    BaseFiles.open(bases["sd15"], "sd15").add([], base)
    tensors = load_file(base / "unet/diffusion_pytorch_model.safetensors")
    save_file(
        {name: tensor.half() for name, tensor in tensors.items()},
        base / "unet/diffusion_pytorch_model.fp16.safetensors",
    )
    adapter = whole_adapter(base, "sd15")

    BaseFiles.open(base, "sd15").add([Weighted(adapter, 1.0, "a")], tmp_path / "out")

    changed = load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors")
    halves = load_file(tmp_path / "out/unet/diffusion_pytorch_model.fp16.safetensors")
    assert all(torch.allclose(halves[name].float(), tensor, atol=1e-2) for name, tensor in changed.items())
    assert not any(halves[name].equal(tensors[name].half()) for name in ("conv_in.weight", "conv_out.weight"))


def test_pickles_are_neither_read_nor_copied(bases: dict[Family, Path], tmp_path: Path) -> None:
    base = tmp_path / "base"
    BaseFiles.open(bases["sd15"], "sd15").add([], base)
    (base / "unet/diffusion_pytorch_model.bin").write_bytes(b"pickle")

    BaseFiles.open(base, "sd15").add([], tmp_path / "out")

    assert not (tmp_path / "out/unet/diffusion_pytorch_model.bin").exists()
    assert (tmp_path / "out/unet/config.json").exists()


@pytest.mark.parametrize("name", ["model.ckpt", "empty"])
def test_a_place_without_tensors_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.ckpt").write_bytes(b"pickle")

    with pytest.raises(BaseModelUnavailable, match=r"neither a diffusers folder with \.safetensors files nor such"):
        BaseFiles.open(tmp_path / name, "sd15")


def test_an_adapter_of_another_family_writes_nothing(bases: dict[Family, Path], tmp_path: Path) -> None:
    adapter = whole_adapter(bases["sdxl"], "sdxl")

    with pytest.raises(BaseModelUnavailable, match="the adapter, which is for sdxl, belongs to another model"):
        BaseFiles.open(bases["sd15"], "sdxl").add(terms(adapter), tmp_path / "out")

    assert not list(tmp_path.iterdir())


def test_an_adapter_of_another_size_writes_nothing(bases: dict[Family, Path], tmp_path: Path) -> None:
    adapter = make_adapter(TEXT)

    with pytest.raises(InvalidAdapterFile, match=r"has the size \[64, 16\] in the base model, but the adapter changes"):
        BaseFiles.open(bases["sd15"], "sd15").add(terms(adapter), tmp_path / "out")

    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(bases: dict[Family, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    with pytest.raises(InvalidConfiguration, match="exists; remove it or choose another name"):
        BaseFiles.open(bases["sd15"], "sd15").add([], tmp_path / "out")


def test_parts_of_the_tests_are_those_of_the_adapter(bases: dict[Family, Path]) -> None:
    parts: set[Part] = {module.name.part for module in whole_adapter(bases["sdxl"], "sdxl").modules.values()}

    assert parts == {"unet", "text_encoder", "text_encoder_2"}
