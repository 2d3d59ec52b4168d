"""Pods that share a cache never change or remove what another one reads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lora_trainer.errors import InvalidDataset
from lora_trainer.storage import Connection, Source, fetch
from lora_trainer.storage.copies import LocalCopy
from lora_trainer.storage.ledger import FetchedFile, Ledger
from tests.support.object_store import FaultyStore

KEPT, OLD, NEW = FetchedFile("kept.png", 4, "k"), FetchedFile("x.png", 3, "o"), FetchedFile("x.png", 3, "n")


def make(place: Path, name: str, files: dict[FetchedFile, bytes]) -> LocalCopy:
    copy = LocalCopy(place, name)
    (place / f"{name}.in-use").parent.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.in-use").touch()
    copy.folder.mkdir()
    for file, data in files.items():
        (copy.folder / file.path).write_bytes(data)
        copy.ledger.add(file)
    return copy


def test_files_that_did_not_change_are_shared_on_the_disk(tmp_path: Path) -> None:
    make(tmp_path, "old", {KEPT: b"kept", OLD: b"old"})
    new = LocalCopy(tmp_path, "new")

    assert new.adopt([KEPT, NEW]) == {KEPT}

    assert (new.folder / "kept.png").samefile(tmp_path / "old" / "kept.png")
    assert new.ledger.present() == {KEPT}


def test_a_content_that_another_process_removes_meanwhile_gives_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make(tmp_path, "old", {KEPT: b"kept", OLD: b"old"})
    inner = Ledger._lies_there

    def removed_before_it_is_looked_at(ledger: Ledger, file: FetchedFile) -> bool:
        old.ledger.remove()
        (old.folder / file.path).unlink(missing_ok=True)
        return inner(ledger, file)

    monkeypatch.setattr(Ledger, "_lies_there", removed_before_it_is_looked_at)

    assert LocalCopy(tmp_path, "new").adopt([KEPT, NEW]) == set()
    assert old.ledger.present() == set()


def test_a_content_that_nobody_reads_is_removed(tmp_path: Path) -> None:
    make(tmp_path, "old", {OLD: b"old"})
    new = make(tmp_path, "new", {NEW: b"new"})

    new.remove_unused()

    assert not (tmp_path / "old").exists()
    assert new.ledger.present() == {NEW}


def test_a_content_that_another_process_reads_stays(tmp_path: Path) -> None:
    old = make(tmp_path, "old", {OLD: b"old"})
    new = make(tmp_path, "new", {NEW: b"new"})
    old.hold()

    new.remove_unused()

    assert old.ledger.present() == {OLD}


def test_a_reader_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    make(tmp_path, "old", {OLD: b"old"})
    new = make(tmp_path, "new", {NEW: b"new"})
    code = (
        "import sys; from pathlib import Path; from lora_trainer.storage.copies import LocalCopy\n"
        "LocalCopy(Path(sys.argv[1]), 'old').hold(); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"held\n"
        new.remove_unused()
        assert (tmp_path / "old").exists()
        reader.kill()

    new.remove_unused()

    assert not (tmp_path / "old").exists()


def test_a_changed_file_is_fetched_beside_the_old_one(store: FaultyStore, tmp_path: Path) -> None:
    bucket = store.make_bucket()
    source = Source(f"s3://{bucket}/data", "spec.dataset.uri", InvalidDataset)
    connection = store.connection(tmp_path)
    for key in ("a.png", "b.png"):
        store.client.put_object(Bucket=bucket, Key=f"data/{key}", Body=b"old")
    reader = fetch(source, tmp_path / "t", connection, on_bytes=lambda _: None)
    store.client.put_object(Bucket=bucket, Key="data/a.png", Body=b"new")
    store.requests.clear()

    newer = fetch(source, tmp_path / "t", connection, on_bytes=lambda _: None)

    assert ((reader / "a.png").read_bytes(), (newer / "a.png").read_bytes()) == (b"old", b"new")
    assert [request for request in store.requests if "b.png" in request] == []


def test_who_waits_for_another_process_can_be_told_to_stop(store: FaultyStore, tmp_path: Path) -> None:
    bucket = store.make_bucket()
    store.client.put_object(Bucket=bucket, Key="data/a.png", Body=b"x")
    source = Source(f"s3://{bucket}/data", "spec.dataset.uri", InvalidDataset)
    connection = store.connection(tmp_path)
    folder = fetch(source, tmp_path / "t", connection, on_bytes=lambda _: None)

    class Stop(Exception):
        pass

    def stop(count_bytes: int) -> None:
        raise Stop

    with LocalCopy(folder.parent, folder.name).ledger.locked(lambda: None), pytest.raises(Stop):
        fetch(source, tmp_path / "t", connection, on_bytes=stop)


def test_a_cache_is_shared_by_processes_with_work_folders_of_their_own(store: FaultyStore, tmp_path: Path) -> None:
    made = store.connection(tmp_path)
    settings = [
        made.settings.__class__(work_dir=tmp_path / name, cache_dir=tmp_path / "cache") for name in ("one", "two")
    ]
    folders = {Connection(made.storage, one).folder_for("s3://b/x") for one in settings}

    assert len(folders) == 1
    assert folders.pop().is_relative_to(tmp_path / "cache")


def test_pods_that_start_together_fetch_once(store: FaultyStore, tmp_path: Path) -> None:
    bucket = store.make_bucket()
    for number in range(4):
        store.client.put_object(Bucket=bucket, Key=f"data/{number}.png", Body=b"x" * 1000)
    source = Source(f"s3://{bucket}/data", "spec.dataset.uri", InvalidDataset)
    connections = [store.connection(tmp_path) for _ in range(3)]
    store.requests.clear()

    with ThreadPoolExecutor(3) as pool:
        fetches = [pool.submit(fetch, source, tmp_path / "t", one, on_bytes=lambda _: None) for one in connections]
        folders = {one.result() for one in fetches}

    assert len(folders) == 1
    assert sum(".png" in request for request in store.requests) == 4
