"""A baked file does at strength 1 what the adapter did at a strength with block weights."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from lora_api.model_spec import Family, Network, NetworkType
from lora_trainer.conditioning import Part
from lora_trainer.lora.adapter import DORA_SCALE, DOWN, UP, AdapterFile, InvalidAdapterFile
from lora_trainer.lora.bake import METADATA_KEY, bake
from lora_trainer.lora.block_weights import PLACES, BlockVector, block_vector
from lora_trainer.lora.formats import read_adapter, save_adapter
from lora_trainer.lora.keys import ModuleName, canonical_path
from lora_trainer.lora.merge import BaseWeight, merge_into
from lora_trainer.lora.strength import Strength
from tests.support.adapter_files import LINEAR, SIZES, TEXT, make_adapter, make_dora, make_lokr, make_module, replaced
from tests.support.adapters import (
    Adapted,
    adapt,
    distance,
    file_of,
    load_parts,
    load_pipeline,
    outputs_of,
    parts_of,
)

OUT = Path("baked.safetensors")
MIXED = BlockVector("mixed", tuple((index % 5) / 2 - 0.5 for index in range(26)))
"""Block weights of both signs, with zeros and ones among them."""
STRENGTH = Strength(0.8, MIXED)
TYPES: Mapping[NetworkType, Network] = {
    "locon": Network(type="locon", rank=4, alpha=2.0, conv_rank=3, conv_alpha=1.5),
    "dora": Network(type="dora", rank=4, alpha=2.0, conv_rank=3),
    "loha": Network(type="loha", rank=4, alpha=2.0, conv_rank=3),
    "lokr": Network(type="lokr", rank=1, alpha=0.5, conv_rank=1, lokr_factor=2),
}


@pytest.fixture(scope="module")
def trained(tiny_pipeline: Path, tiny_sdxl: Path) -> Callable[[NetworkType, Family], Adapted]:
    """Parts with adapters that do something; tests leave them as they are."""
    folders: dict[Family, Path] = {"sd15": tiny_pipeline, "sdxl": tiny_sdxl}
    return cache(lambda kind, family: adapt(folders[family], TYPES[kind], family=family))


def at_run_time(adapted: Adapted, strength: Strength = STRENGTH) -> dict[Part, Tensor]:
    """What the parts give with the live adapters at the strength."""
    with adapted.adapters.at(strength):
        return adapted.outputs()


def base_weights(parts: Mapping[Part, Any]) -> BaseWeight:
    """The weights of a plain model by name."""
    known = {
        ModuleName(part, canonical_path(path)): child.weight
        for part, module in parts.items()
        for path, child in module.named_modules()
        if hasattr(child, "weight")
    }
    return known.__getitem__


def saved(adapter: AdapterFile, folder: Path) -> Path:
    """The adapter as a file in kohya's format."""
    save_adapter(folder / OUT.name, adapter)
    return folder / OUT.name


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_plain_diffusers_does_with_the_file_what_was_done_at_run_time(
    tiny_pipeline: Path, tiny_sdxl: Path, tmp_path: Path, trained: Callable[..., Adapted], family: Family
) -> None:
    adapted = trained("locon", family)
    file = saved(bake(file_of(adapted.adapters), STRENGTH, name="a", out=OUT), tmp_path)
    pipeline = load_pipeline(tiny_sdxl if family == "sdxl" else tiny_pipeline, family)

    pipeline.load_lora_weights(tmp_path, weight_name=file.name)

    assert distance(outputs_of(parts_of(pipeline)), at_run_time(adapted)) <= 1e-5


def webui_change(tensors: Mapping[str, Tensor]) -> Tensor:
    """What AUTOMATIC1111 adds to a weight for the tensors of one module, (out, in, ...) as one row each output."""
    if "lora_up.weight" in tensors:
        down = tensors["lora_down.weight"]
        change = tensors["lora_up.weight"].flatten(1) @ down.flatten(1)
        return change * (tensors["alpha"] / len(down))
    if "hada_w1_a" in tensors:
        first, second = (tensors[f"hada_w{n}_a"] @ tensors[f"hada_w{n}_b"] for n in (1, 2))
        return first * second * (tensors["alpha"] / len(tensors["hada_w1_b"]))
    scale = tensors["alpha"] / len(tensors["lokr_w2_b"]) if "lokr_w2_b" in tensors else 1.0
    second = tensors["lokr_w2"] if "lokr_w2" in tensors else tensors["lokr_w2_a"] @ tensors["lokr_w2_b"]
    first = tensors["lokr_w1"].reshape(*tensors["lokr_w1"].shape, *[1] * (second.dim() - 2))
    return torch.kron(first, second).flatten(1) * scale


@torch.no_grad()
def in_the_webui(file: Path, parts: Mapping[Part, Any]) -> dict[Part, Tensor]:
    """What the parts of SD 1.x give once the WebUI has added the file: keys, tensors and scales as they lie there."""
    with safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (no mapping)
    prefixes: dict[Part, str] = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
    for part, prefix in prefixes.items():
        for path, module in parts[part].named_modules():
            key = prefix + path.replace(".", "_") + "."
            own = {name.removeprefix(key): tensors.pop(name) for name in sorted(tensors) if name.startswith(key)}
            if own:
                module.weight += webui_change(own).reshape(module.weight.shape)
    assert not tensors
    return outputs_of(parts)


@pytest.mark.parametrize("kind", ["locon", "loha", "lokr"])
def test_the_webui_does_with_the_file_what_was_done_at_run_time(
    tiny_pipeline: Path, tmp_path: Path, trained: Callable[..., Adapted], kind: NetworkType
) -> None:
    adapted = trained(kind, "sd15")
    file = saved(bake(file_of(adapted.adapters), STRENGTH, name="a", out=OUT), tmp_path)

    outputs = in_the_webui(file, load_parts(tiny_pipeline, "sd15"))

    assert distance(outputs, at_run_time(adapted)) <= 1e-5


def test_a_dora_stays_a_dora_with_the_run_times_outputs(
    tiny_pipeline: Path, tmp_path: Path, trained: Callable[..., Adapted]
) -> None:
    adapted, parts = trained("dora", "sd15"), load_parts(tiny_pipeline, "sd15")
    baked = bake(file_of(adapted.adapters), STRENGTH, name="a", out=OUT, base=base_weights(parts))

    file = read_adapter(saved(baked, tmp_path))
    merge_into(parts, file, 1.0)

    assert {module.type for module in file.modules.values()} == {"dora"}
    assert distance(outputs_of(parts), at_run_time(adapted)) <= 1e-5


def test_a_dora_that_lengthens_inputs_is_baked_as_well() -> None:
    weight, plain = torch.randn(SIZES[LINEAR], generator=torch.Generator().manual_seed(1)), make_module(LINEAR)
    magnitude = 1 + torch.rand(1, SIZES[LINEAR][1], generator=torch.Generator().manual_seed(2))
    module = replace(plain, tensors={**plain.tensors, DORA_SCALE: magnitude})
    adapter = replaced(make_adapter(LINEAR), module)

    baked = bake(adapter, Strength(0.4), name="a", out=OUT, base=lambda name: weight)

    (result,) = baked.modules.values()
    torch.testing.assert_close(result.change(weight), 0.4 * module.change(weight))


def test_a_dora_needs_the_base_model() -> None:
    adapter = replaced(make_adapter(LINEAR), make_dora(LINEAR))

    with pytest.raises(InvalidAdapterFile, match=r"attn1\.to_q is a dora, whose change at the weight 0\.4 .* --base"):
        bake(adapter, Strength(0.4), name="a", out=OUT)


def test_a_dora_needs_no_base_where_it_is_on_or_off() -> None:
    adapter = replaced(make_adapter(LINEAR, TEXT), make_dora(LINEAR))

    baked = bake(adapter, Strength(1.0, block_vector("MIDD", None, "sd15")), name="a", out=OUT)

    assert baked.modules == adapter.modules


def test_a_dora_without_a_direction_is_refused() -> None:
    """At -1 a row is W (2 - m / |V|) - ..., which for m = 2 |V| holds nothing of W."""
    weight, module = torch.eye(6, 10), make_dora(LINEAR)
    lengths = (weight + module.delta).norm(dim=1, keepdim=True)
    adapter = replaced(make_adapter(LINEAR), replace(module, tensors={**module.tensors, DORA_SCALE: 2 * lengths}))

    with pytest.raises(InvalidAdapterFile, match="no dora is this one at the weight -1"):
        bake(adapter, Strength(-1.0), name="a", out=OUT, base=lambda name: weight)


def test_modules_of_weight_zero_are_left_out() -> None:
    baked = bake(make_adapter(), Strength(1.0, block_vector("OUTS", None, "sd15")), name="a", out=OUT)

    assert {module.name for module in baked.modules.values()} == {TEXT}


def test_an_adapter_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(InvalidAdapterFile, match=r"at this strength nothing of a\.safetensors is left; give a block"):
        bake(make_adapter(), Strength(1.0, block_vector("NONE", None, "sd15")), name="a.safetensors", out=OUT)


@pytest.mark.parametrize("weight", [0.3, -0.3])
def test_the_up_matrix_takes_the_weight_with_its_sign(weight: float) -> None:
    adapter = make_adapter(LINEAR)
    (before,) = adapter.modules.values()

    (module,) = bake(adapter, Strength(weight), name="a", out=OUT).modules.values()

    torch.testing.assert_close(module.up, before.up * weight)
    assert module.down.equal(before.down)
    assert module.alpha == before.alpha


def test_modules_at_full_weight_stay_as_they_are_to_the_bit() -> None:
    adapter = make_adapter(dtype=torch.float16)

    baked = bake(adapter, Strength(1.0, block_vector("ALL", None, "sd15")), name="a", out=OUT)

    kept = {key: module.tensors for key, module in baked.modules.items()}
    assert kept.keys() == adapter.modules.keys()
    assert all(kept[key][name].equal(adapter.modules[key].tensors[name]) for key in kept for name in (UP, DOWN))


def test_the_number_format_stays() -> None:
    baked = bake(make_adapter(dtype=torch.float16), Strength(0.3), name="a", out=OUT)

    assert {tensor.dtype for module in baked.modules.values() for tensor in module.tensors.values()} == {torch.float16}


def test_numbers_beyond_half_precision_say_what_to_do() -> None:
    with pytest.raises(
        InvalidAdapterFile, match=r"baked\.safetensors: lora_.* use a smaller weight, or make an fp32 copy"
    ):
        bake(make_adapter(dtype=torch.float16), Strength(1e6), name="a", out=OUT)


def test_numbers_that_vanish_in_half_precision_say_what_to_do() -> None:
    with pytest.raises(
        InvalidAdapterFile, match=r"lora_up.weight gets too small .* lose \d+% of it; make an fp32 copy"
    ):
        bake(make_adapter(dtype=torch.float16), Strength(1e-7), name="a", out=OUT)


def test_numbers_that_are_not_finite_are_refused() -> None:
    adapter = replaced(make_adapter(LINEAR), replace(make_module(LINEAR), alpha=float("nan")))

    with pytest.raises(InvalidAdapterFile, match=r"a: lora_unet.* holds numbers that are not finite"):
        bake(adapter, Strength(0.5), name="a", out=OUT)


def test_a_lokr_is_scaled_whatever_its_factors_are() -> None:
    module = make_lokr(LINEAR)
    whole = {"lokr_w1": module.tensors["lokr_w1"], "lokr_w2": module.tensors["lokr_w2_a"] @ module.tensors["lokr_w2_b"]}
    for one in (module, replace(module, tensors=whole, alpha=1.0)):
        (baked,) = bake(replaced(make_adapter(LINEAR), one), Strength(0.4), name="a", out=OUT).modules.values()

        torch.testing.assert_close(baked.delta, 0.4 * one.delta)


def test_the_metadata_stays_and_tells_what_was_baked() -> None:
    source = {"ss_base_model_version": "sd_v1", "ss_network_dim": "4", "ss_epoch": "7", "ss_output_name": "hina"}
    adapter = make_adapter(metadata=source)

    metadata = bake(adapter, STRENGTH, name="hina.safetensors", out=OUT).metadata

    told = [{"from": "hina.safetensors", "weight": 0.8, "name": "mixed", "blocks": dict(zip(PLACES, MIXED.values))}]  # noqa: B905
    assert json.loads(metadata[METADATA_KEY]) == told
    assert {key: value for key, value in metadata.items() if key != METADATA_KEY} == {
        **source,
        "ss_output_name": "baked",
        "modelspec.title": "baked",
        "modelspec.merged_from": "hina.safetensors (0.8, mixed)",
    }


@pytest.mark.parametrize(("there", "kept"), [('[{"from": "b"}]', [{"from": "b"}]), ("no JSON", []), ("{}", [])])
def test_what_was_baked_before_is_still_told(there: str, kept: list[object]) -> None:
    adapter = make_adapter(metadata={METADATA_KEY: there})

    metadata = bake(adapter, Strength(0.5), name="a", out=OUT).metadata

    assert json.loads(metadata[METADATA_KEY]) == [*kept, {"from": "a", "weight": 0.5}]


def test_the_hash_is_that_of_the_new_file(tmp_path: Path) -> None:
    source = tmp_path / "source.safetensors"
    save_adapter(source, make_adapter())

    file = saved(bake(read_adapter(source), Strength(0.5), name="a", out=OUT), tmp_path)

    data = file.read_bytes()
    tensors = data[8 + int.from_bytes(data[:8], "little") :]
    assert read_adapter(file).metadata["sshs_model_hash"] == hashlib.sha256(tensors).hexdigest()
