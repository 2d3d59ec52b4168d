"""Latents in files: what is read is what was written, or nothing."""

import logging
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_trainer.data.latent_store import LatentFiles, remove_unused
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


DAY = 86400


def age(path: Path, *, days: float) -> None:
    """Makes a file as if it had last been used so many days ago."""
    then = time.time() - days * DAY
    os.utime(path, (then, then))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two latents below `latents/disk`."""
    for key in (KEY, OTHER):
        LatentFiles(tmp_path / "latents" / "disk").put(key, LATENT)
    return tmp_path / "latents"


def removed_from(cache: Path) -> int:
    return remove_unused(cache, on_folder=lambda: None)


def test_what_no_training_used_for_a_month_is_removed(cache: Path) -> None:
    age(path_of(cache / "disk", KEY), days=31)
    age(path_of(cache / "disk", OTHER), days=29)

    assert removed_from(cache) == 1
    assert [path.stem for path in cache.rglob("*.safetensors")] == [OTHER]


def test_what_is_read_counts_as_used(cache: Path) -> None:
    age(path_of(cache / "disk", KEY), days=31)

    LatentFiles(cache / "disk").get(KEY)

    assert removed_from(cache) == 0


def test_what_was_used_today_is_not_written_again(cache: Path) -> None:
    path = path_of(cache / "disk", KEY)
    age(path, days=0.5)
    before = path.stat().st_mtime_ns

    LatentFiles(cache / "disk").get(KEY)

    assert path.stat().st_mtime_ns == before


def test_latents_of_all_datasets_are_looked_at_and_half_files_too(cache: Path) -> None:
    LatentFiles(cache / "0123456789abcdef").put(KEY, LATENT)
    half = cache / "disk" / KEY[:2] / ".new-x"
    half.write_bytes(b"half")
    for path in (half, path_of(cache / "0123456789abcdef", KEY)):
        age(path, days=31)

    assert removed_from(cache) == 2
    assert len(list(cache.rglob("*.safetensors"))) == 2


def test_other_files_are_left_alone(cache: Path) -> None:
    others = [cache / "notes.txt", cache / "disk" / "notes.txt", cache / "disk" / KEY[:2] / "notes.txt"]
    for path in others:
        path.write_text("mine")
        age(path, days=400)

    assert removed_from(cache) == 0
    assert all(path.exists() for path in others)


def test_a_removal_can_be_stopped(cache: Path) -> None:
    age(path_of(cache / "disk", KEY), days=31)

    with pytest.raises(InterruptedError):
        remove_unused(cache, on_folder=raise_interruption)
    assert path_of(cache / "disk", KEY).exists()


def raise_interruption() -> None:
    raise InterruptedError


def test_a_cache_that_is_not_there_is_nothing_to_clean(tmp_path: Path) -> None:
    assert removed_from(tmp_path / "latents") == 0
