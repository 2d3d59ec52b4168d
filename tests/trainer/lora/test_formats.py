"""Adapter files: what is trained is what every reader of the format gets."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lora_api.model_spec import Family, Network
from lora_trainer.lora.formats import (
    InvalidAdapterFile,
    read_adapter,
    save_adapter,
    to_diffusers,
    to_kohya,
    write_adapter,
)
from lora_trainer.lora.keys import kohya_key
from tests.support.adapter_files import LINEAR, make_adapter, make_dora, make_loha, replaced
from tests.support.adapters import Adapted, adapt, distance, load_pipeline, outputs_of, parts_of
from tests.support.tiny_pipeline import write_tiny_pipeline

MODULE = {
    "lora_unet_x.lora_down.weight": torch.ones(2, 3),
    "lora_unet_x.lora_up.weight": torch.ones(4, 2),
    "lora_unet_x.alpha": torch.tensor(1.0),
}
LORA = Network(rank=4, alpha=2.0)
RANKS: Any = {"sd15": ({"name": "IN04", "rank": 2}, {"name": "M00", "rank": 6}),
              "sdxl": ({"name": "IN05", "rank": 2}, {"name": "M01", "rank": 6})}  # fmt: skip
ALPHAS: Any = {"sd15": ({"name": "IN04", "rank": 2, "alpha": 1.5},), "sdxl": ({"name": "IN05", "alpha": 1.5},)}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    families: tuple[Family, ...] = ("sd15", "sdxl")
    return {family: write_tiny_pipeline(tmp_path_factory.mktemp(family), family=family) for family in families}


def locon(blocks: Any) -> Network:
    """Everything that a plain adapter can have: convolutions, alpha beside the rank, blocks of their own."""
    return Network(type="locon", rank=4, alpha=2.0, conv_rank=3, conv_alpha=1.0, blocks=blocks)


def in_diffusers(base: Path, family: Family, file: Path) -> dict[Any, torch.Tensor]:
    """What diffusers' pipeline gives with the file."""
    pipeline = load_pipeline(base, family)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    return outputs_of(parts_of(pipeline))


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_diffusers_does_with_kohyas_format_exactly_what_was_trained(
    bases: dict[Family, Path], tmp_path: Path, family: Family
) -> None:
    adapted = adapt(bases[family], locon(RANKS[family]), family=family)
    write_adapter(tmp_path / "a.safetensors", to_kohya(adapted.adapters.layers, torch.float32, family), {})

    outputs = in_diffusers(bases[family], family, tmp_path / "a.safetensors")

    assert distance(outputs, adapted.outputs()) == 0.0


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_diffusers_does_with_its_own_format_exactly_what_was_trained(
    bases: dict[Family, Path], tmp_path: Path, family: Family
) -> None:
    adapted = adapt(bases[family], locon(ALPHAS[family]), family=family)
    tensors, metadata = to_diffusers(adapted.adapters.layers, torch.float32)
    write_adapter(tmp_path / "a.safetensors", tensors, metadata)

    outputs = in_diffusers(bases[family], family, tmp_path / "a.safetensors")

    assert distance(outputs, adapted.outputs()) == 0.0


def test_diffusers_applies_a_dora_in_its_own_format(bases: dict[Family, Path], tmp_path: Path) -> None:
    adapted = adapt(bases["sdxl"], Network(type="dora", rank=4, alpha=2.0, conv_rank=2), family="sdxl")
    tensors, metadata = to_diffusers(adapted.adapters.layers, torch.float32)
    write_adapter(tmp_path / "a.safetensors", tensors, metadata)

    outputs = in_diffusers(bases["sdxl"], "sdxl", tmp_path / "a.safetensors")

    # PEFT adds the terms in another order than we do.
    assert distance(outputs, adapted.outputs()) <= 1e-5


@pytest.fixture(scope="module")
def adapted(bases: dict[Family, Path]) -> Adapted:
    return adapt(bases["sd15"], LORA)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_what_is_written_is_read(adapted: Adapted, tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "a.safetensors"
    write_adapter(path, to_kohya(adapted.adapters.layers, dtype, "sd15"), {"ss_seed": "1"})

    file = read_adapter(path)

    layer = adapted.adapters.layers[0]
    module = file.modules[kohya_key(layer.part, layer.path, "sd15")]
    live = layer.tensors()
    assert (file.metadata, file.family, file.type, file.format) == ({"ss_seed": "1"}, "sd15", "lora", "kohya")
    assert (len(file.modules), module.alpha, module.rank) == (204, 2.0, 4)
    assert all(module.tensors[name].equal(tensor.detach().to(dtype)) for name, tensor in live.items())


def test_each_module_has_its_tensors_and_a_scalar_alpha(adapted: Adapted) -> None:
    tensors = to_kohya(adapted.adapters.layers, torch.float16, "sd15")
    key = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"

    assert len(tensors) == 3 * 204
    assert [tensors[f"{key}.{name}"].shape for name in ("lora_down.weight", "lora_up.weight", "alpha")] == [
        (4, 16), (16, 4), ()
    ]  # fmt: skip


def test_a_dora_is_written_with_a_column_of_magnitudes(bases: dict[Family, Path]) -> None:
    adapted = adapt(bases["sd15"], Network(type="dora", rank=4))
    tensors = to_kohya(adapted.adapters.layers, torch.float16, "sd15")

    assert tensors["lora_te_text_model_encoder_layers_0_mlp_fc1.dora_scale"].shape == (64, 1)
    assert tensors["lora_unet_mid_block_attentions_0_proj_in.dora_scale"].shape == (16, 1, 1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict.fromkeys(MODULE) | {"weight": torch.ones(1)}, "holds no lora_down, hada or lokr weights"),
        ({"lora_unet_x.lora_up.weight": None}, "lacks lora_unet_x.lora_up.weight"),
        ({"lora_unet_x.lora_up.weight": torch.ones(4, 3)}, "ranks that do not fit"),
        ({"lora_unet_x.alpha": torch.ones(2)}, "lora_unet_x.alpha holds 2 numbers, but must hold one"),
        ({"lora_unet_x.hada_w1_a": torch.ones(4, 3)}, "lora_unet_x mixes kinds of adapters"),
        ({"lora_unet_x.oft_blocks": torch.ones(4)}, "1 tensors of no LoRA module, such as lora_unet_x.oft_blocks"),
        ({"lora_unet_y.diff": torch.ones(4)}, "1 tensors of no LoRA module, such as lora_unet_y.diff"),
        (
            {name.replace("unet", "transformer"): tensor.clone() for name, tensor in MODULE.items()},
            "lora_transformer_x names no module of Stable Diffusion 1, 2 or XL",
        ),
    ],
    ids=[
        "no adapter",
        "half a module",
        "ranks differ",
        "two alphas",
        "two kinds",
        "unknown kind",
        "whole weights",
        "other model",
    ],
)
def test_what_is_no_whole_adapter_is_refused(
    change: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    tensors = {name: tensor for name, tensor in (MODULE | change).items() if tensor is not None}
    save_file(tensors, tmp_path / "a.safetensors")

    with pytest.raises(InvalidAdapterFile, match=message):
        read_adapter(tmp_path / "a.safetensors")


def test_a_module_without_alpha_has_the_scale_1(tmp_path: Path) -> None:
    save_file({name: tensor for name, tensor in MODULE.items() if "alpha" not in name}, tmp_path / "a.safetensors")

    assert read_adapter(tmp_path / "a.safetensors").modules["lora_unet_x"].scale == 1.0


@pytest.mark.parametrize("names", ["lora_A lora_B", "lora.down lora.up", "lora_linear_layer.down lora_linear_layer.up"])
def test_names_of_all_ages_of_diffusers_are_read(names: str, tmp_path: Path) -> None:
    down, up = (f"unet.mid_block.attentions.0.proj_in.{name}.weight" for name in names.split())
    save_file({down: torch.ones(2, 8), up: torch.ones(8, 2)}, tmp_path / "a.safetensors")

    file = read_adapter(tmp_path / "a.safetensors")

    assert (list(file.modules), file.format) == (["lora_unet_mid_block_attentions_0_proj_in"], "diffusers")
    assert next(iter(file.modules.values())).scale == 1.0


def test_attention_processors_of_before_peft_are_read(tmp_path: Path) -> None:
    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora"
    save_file(
        {f"{path}.down.weight": torch.ones(2, 8), f"{path}.up.weight": torch.ones(8, 2)}, tmp_path / "a.safetensors"
    )

    file = read_adapter(tmp_path / "a.safetensors")

    assert list(file.modules) == ["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0"]


@pytest.mark.parametrize("to", ["diffusers", "peft"])
def test_formats_that_cannot_hold_a_loha_say_what_to_do(tmp_path: Path, to: Any) -> None:
    adapter = replaced(make_adapter(), make_loha(LINEAR))

    with pytest.raises(InvalidAdapterFile, match="loha module that only kohya's format can hold; make a LoRA of it"):
        save_adapter(tmp_path / "out", adapter, to=to)

    assert not list(tmp_path.iterdir())


def test_peft_takes_no_magnitudes_of_inputs(tmp_path: Path) -> None:
    module = make_dora(LINEAR)
    turned = type(module)(module.name, {**module.tensors, "dora_scale": torch.ones(1, 10)}, module.alpha)

    with pytest.raises(InvalidAdapterFile, match="PEFT knows those of outputs only"):
        save_adapter(tmp_path / "out", replaced(make_adapter(), turned), to="diffusers")


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapterFile, match=r"a\.safetensors cannot be written: No such file or directory"):
        save_adapter(tmp_path / "none" / "a.safetensors", make_adapter())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("precious")

    with pytest.raises(InvalidAdapterFile, match="exists; remove it or choose another name"):
        save_adapter(tmp_path / "a.safetensors", make_adapter())

    assert (tmp_path / "a.safetensors").read_text() == "precious"
