"""Latents in files: what is read is what was written, or nothing."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_trainer.data.latent_store import LatentFiles
from lora_trainer.errors import StorageUnavailable

KEY, OTHER = "ab" * 32, "cd" * 32
LATENT = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(0))


class Memory:
    """A store in memory that counts what it is asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []

    def get(self, key: str) -> bytes | None:
        self.asked.append(key)
        return self.files.get(key)

    def put(self, key: str, data: bytes) -> None:
        self.files[key] = data


def path_of(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.safetensors"


def test_a_latent_comes_back_bit_for_bit(tmp_path: Path) -> None:
    files = LatentFiles(tmp_path)
    files.put(KEY, LATENT)

    again = files.get(KEY)

    assert again is not None
    assert torch.equal(again, LATENT)
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")] == [f"ab/{KEY}.safetensors"]


def test_equal_latents_are_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        LatentFiles(tmp_path / name).put(KEY, LATENT.clone())

    assert path_of(tmp_path / "one", KEY).read_bytes() == path_of(tmp_path / "two", KEY).read_bytes()


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert LatentFiles(tmp_path).get(KEY) is None


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


def rename(path: Path) -> None:
    LatentFiles(path.parent.parent).put(OTHER, LATENT)
    path_of(path.parent.parent, OTHER).replace(path)


def lose_the_checksum(path: Path) -> None:
    save_file(load_file(path), path)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, rename, lose_the_checksum, lambda p: p.write_bytes(b"")])
def test_a_damaged_file_is_as_good_as_none_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    files = LatentFiles(tmp_path)
    files.put(KEY, LATENT)
    assert callable(damage)
    damage(path_of(tmp_path, KEY))

    with caplog.at_level(logging.WARNING):
        assert files.get(KEY) is None

    assert f"the cached latent {KEY}.safetensors is damaged" in caplog.text


def test_the_store_behind_gets_every_latent_and_gives_it_to_the_next_run(tmp_path: Path) -> None:
    store = Memory()
    LatentFiles(tmp_path / "one", store).put(KEY, LATENT)

    files = LatentFiles(tmp_path / "two", store)
    first, second = files.get(KEY), files.get(KEY)

    assert first is not None and torch.equal(first, LATENT)
    assert second is not None and torch.equal(second, LATENT)
    assert store.asked == [f"ab/{KEY}.safetensors"]


def test_a_damaged_file_of_the_store_is_as_good_as_none(tmp_path: Path) -> None:
    store = Memory()
    store.files[f"ab/{KEY}.safetensors"] = b"half of it"

    assert LatentFiles(tmp_path, store).get(KEY) is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StorageUnavailable, match=r"the latent cache in .*file cannot be written \(Not a directory\)"):
        LatentFiles(tmp_path / "file").put(KEY, LATENT)
