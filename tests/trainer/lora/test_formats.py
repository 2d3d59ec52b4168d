"""Files in kohya's format: names, bytes, and what is refused."""

import hashlib
import json
import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_trainer.lora.formats import (
    InvalidAdapterFile,
    content_hashes,
    kohya_key,
    read_adapter,
    to_kohya,
    write_adapter,
)
from tests.trainer.lora.conftest import Adapted

MODULE = {
    "lora_unet_x.lora_down.weight": torch.ones(2, 3),
    "lora_unet_x.lora_up.weight": torch.ones(4, 2),
    "lora_unet_x.alpha": torch.tensor(1.0),
}


@pytest.mark.parametrize(
    ("part", "path", "key"),
    [
        (
            "unet",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0",
        ),
        ("unet", "mid_block.attentions.0.proj_out", "lora_unet_mid_block_attentions_0_proj_out"),
        ("text_encoder", "encoder.layers.0.self_attn.k_proj", "lora_te_text_model_encoder_layers_0_self_attn_k_proj"),
        ("text_encoder", "text_model.encoder.layers.1.mlp.fc1", "lora_te_text_model_encoder_layers_1_mlp_fc1"),
    ],
)
def test_modules_have_the_names_that_every_reader_knows(part: str, path: str, key: str) -> None:
    assert kohya_key(part, path) == key  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_what_is_written_is_read(adapted: Adapted, tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "a.safetensors"
    write_adapter(path, to_kohya(adapted.adapters.layers, dtype), {"ss_seed": "1"})

    file = read_adapter(path)

    layer = adapted.adapters.layers[0]
    module = file.modules[kohya_key(layer.part, layer.path)]
    assert file.metadata == {"ss_seed": "1"}
    assert (len(file.modules), module.alpha, module.rank) == (204, 2.0, 4)
    assert module.down.equal(layer.down.detach().to(dtype)) and module.up.equal(layer.up.detach().to(dtype))


def test_the_safetensors_library_reads_the_same(adapted: Adapted, tmp_path: Path) -> None:
    tensors = to_kohya(adapted.adapters.layers, torch.float16)
    write_adapter(tmp_path / "a.safetensors", tensors, {"ü": "\n\"'"})

    loaded = load_file(tmp_path / "a.safetensors")

    assert set(loaded) == set(tensors)
    assert all(loaded[name].equal(tensors[name]) for name in tensors)


def test_the_bytes_do_not_depend_on_the_order_of_anything(tmp_path: Path) -> None:
    metadata = {f"ss_{index}": str(index) for index in range(30)}
    names = list(metadata)
    random.Random(0).shuffle(names)

    write_adapter(tmp_path / "a", MODULE, metadata)
    write_adapter(tmp_path / "b", dict(reversed(MODULE.items())), {name: metadata[name] for name in names})

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_model_hash_is_that_of_everything_after_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    hashes = content_hashes(MODULE, {"ss_seed": "1"})
    write_adapter(path, MODULE, {"ss_seed": "1", **hashes})

    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]

    assert hashes["sshs_model_hash"] == hashlib.sha256(data[start:]).hexdigest()
    assert hashes["sshs_legacy_hash"] == "e3b0c442", "the short hash of a file below 1 MiB is that of nothing"
    assert json.loads(data[8:start])["__metadata__"]["ss_seed"] == "1"


def test_garbage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"not a model at all")

    with pytest.raises(InvalidAdapterFile, match=r"a\.safetensors cannot be read as a \.safetensors file"):
        read_adapter(tmp_path / "a.safetensors")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapterFile, match=r"nothing\.safetensors cannot be read"):
        read_adapter(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict.fromkeys(MODULE) | {"weight": torch.ones(1)}, "holds no lora_down weights"),
        ({"lora_unet_x.lora_up.weight": None}, "lacks lora_unet_x.lora_up.weight"),
        ({"lora_unet_x.lora_up.weight": torch.ones(4, 3)}, "ranks that do not fit"),
        ({"lora_unet_x.dora_scale": torch.ones(4)}, "1 tensors of no LoRA module, such as lora_unet_x.dora_scale"),
    ],
    ids=["no adapter", "half a module", "ranks differ", "another kind of adapter"],
)
def test_what_is_no_whole_lora_is_refused(change: dict[str, torch.Tensor | None], message: str, tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in (MODULE | change).items() if tensor is not None}
    save_file(tensors, tmp_path / "a.safetensors")

    with pytest.raises(InvalidAdapterFile, match=message):
        read_adapter(tmp_path / "a.safetensors")


def test_a_module_without_alpha_has_the_scale_1(tmp_path: Path) -> None:
    save_file({name: tensor for name, tensor in MODULE.items() if "alpha" not in name}, tmp_path / "a.safetensors")

    assert read_adapter(tmp_path / "a.safetensors").modules["lora_unet_x"].alpha == 2.0
