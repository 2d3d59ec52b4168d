"""Two processes at one output do not make each other fail."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import StorageUnavailable
from lora_trainer.storage import Store, check_writable
from lora_trainer.storage.directory_store import DirectoryStore


@pytest.fixture
def output(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path, "file:///out", on_bytes=lambda _: None)


def test_two_starts_try_the_output_out_at_the_same_time(output: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = DirectoryStore.put_bytes
    others = iter([lambda: check_writable(output)])

    def put_then_let_the_other(store: DirectoryStore, *arguments: Any, **options: Any) -> None:
        inner(store, *arguments, **options)
        for other in others:
            other()

    monkeypatch.setattr(DirectoryStore, "put_bytes", put_then_let_the_other)

    check_writable(output)

    assert output.list() == []


def test_a_folder_that_is_removed_while_listing_holds_nothing(
    output: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output.put_bytes(b"", "state/step-1/manifest.json")
    output.put_bytes(b"", "state/owner.json")
    inner = os.scandir

    def scandir(path: str) -> Iterator[Any]:
        if str(path).endswith("step-1"):
            output.delete("state/step-1/manifest.json")
        return inner(path)

    monkeypatch.setattr(os, "scandir", scandir)

    assert output.list("state/") == ["state/owner.json"]


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(path: str) -> Iterator[Any]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", scandir)

    with pytest.raises(StorageUnavailable, match=r"file:///out/state/ cannot be listed: Permission denied"):
        output.list("state/")
