"""The bytes of .safetensors files."""

import hashlib
import json
import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lora_trainer.lora.tensor_file import UnreadableTensorFile, content_hashes, read_tensors, write_tensors

TENSORS = {
    "a": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "b": torch.tensor(1.5, dtype=torch.bfloat16),
    "c": torch.arange(4),
}


def test_the_safetensors_library_reads_the_same(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", TENSORS, {"ü": "\n\"'"})

    loaded = load_file(tmp_path / "a.safetensors")

    assert set(loaded) == set(TENSORS)
    assert all(loaded[name].equal(tensor) for name, tensor in TENSORS.items())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", TENSORS, {"ss_seed": "1"})

    tensors, metadata = read_tensors(tmp_path / "a.safetensors")

    assert metadata == {"ss_seed": "1"}
    assert all(tensors[name].equal(tensor) and tensors[name].dtype == tensor.dtype for name, tensor in TENSORS.items())


def test_the_bytes_do_not_depend_on_the_order_of_anything(tmp_path: Path) -> None:
    metadata = {f"ss_{index}": str(index) for index in range(30)}
    names = list(metadata)
    random.Random(0).shuffle(names)

    write_tensors(tmp_path / "a", TENSORS, metadata)
    write_tensors(tmp_path / "b", dict(reversed(TENSORS.items())), {name: metadata[name] for name in names})

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_model_hash_is_that_of_everything_after_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    hashes = content_hashes(TENSORS, {"ss_seed": "1"})
    write_tensors(path, TENSORS, {"ss_seed": "1", **hashes})

    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]

    assert hashes["sshs_model_hash"] == hashlib.sha256(data[start:]).hexdigest()
    assert hashes["sshs_legacy_hash"] == "e3b0c442", "the short hash of a file below 1 MiB is that of nothing"
    assert json.loads(data[8:start])["__metadata__"]["ss_seed"] == "1"


def test_garbage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"not a model at all")

    with pytest.raises(
        UnreadableTensorFile, match=r"a\.safetensors is no \.safetensors file, or cut off; copy it again"
    ):
        read_tensors(tmp_path / "a.safetensors")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTensorFile, match=r"nothing\.safetensors does not exist; correct the path"):
        read_tensors(tmp_path / "nothing.safetensors")
