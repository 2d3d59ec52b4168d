"""What a run leaves at its output, and what a later attempt makes of it."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lora_api import MANIFEST_NAME
from lora_api.status import SavedState
from lora_trainer.checkpoint import TrainingState
from lora_trainer.errors import InvalidConfiguration, StorageUnavailable, Superseded
from lora_trainer.output import OutputSettings, RunOutput
from lora_trainer.provenance import Provenance
from lora_trainer.results import PROVENANCE_PATH, Run, RunIdentity, completed
from lora_trainer.storage.directory_store import DirectoryStore

PROVENANCE = Provenance(spec={"network": {"rank": 16}}, dataset={"2_zwx/a.png": "1" * 64}, base={"unet": "3" * 64})
OTHER_PROVENANCE = Provenance(spec={"network": {"rank": 8}}, dataset=PROVENANCE.dataset, base=PROVENANCE.base)
IDENTITY = RunIdentity(name="hina", spec_digest="s" * 64, dataset_digest="d" * 64, base_digest="b" * 64, total_steps=9)
OTHER = RunIdentity(name="hina", spec_digest="x" * 64, dataset_digest="d" * 64, base_digest="b" * 64, total_steps=9)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store", "file:///store", on_bytes=lambda _: None)


@pytest.fixture
def open_output(store: DirectoryStore, tmp_path: Path) -> Iterator[Callable[..., RunOutput]]:
    opened = []

    def build(start: int = 1, **settings: object) -> RunOutput:
        run = Run(IDENTITY, PROVENANCE, attempt=start, start=start)
        output = RunOutput(store, run, OutputSettings(folder=tmp_path / f"local-{start}", **settings))  # type: ignore[arg-type]
        opened.append(output)
        return output

    yield build
    for output in opened:
        output.close()


def state(step: int) -> TrainingState:
    losses = torch.full((2,), float(step))
    return TrainingState(step=step, epoch=0, adapters={}, optimizer={}, scaler={}, average={}, losses=losses)


def put(output: RunOutput, path: str) -> None:
    output.write(path, lambda local: local.write_bytes(b"picture"))
    output.publish(path, "sample", epoch=0, step=0)


class Gate:
    """Holds the store's writes back until it is opened."""

    def __init__(self, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_open = threading.Event()
        through = store.put_file

        def wait(path: Path, key: str, *, sha256: str) -> None:
            self.is_open.wait()
            through(path, key, sha256=sha256)

        monkeypatch.setattr(store, "put_file", wait)


def test_the_training_goes_on_while_a_state_is_stored(
    open_output: Callable[..., RunOutput], store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, output, told = Gate(store, monkeypatch), open_output(), list[SavedState]()

    output.publish_state(state(5), ["line 5\n"], on_saved=told.append)

    assert output.is_saving and store.list("state/") == [] and told == []
    gate.is_open.set()
    output.wait()
    assert not output.is_saving and [saved.step for saved in told] == [5]


def test_a_state_holds_what_it_was_when_it_was_handed_over(
    open_output: Callable[..., RunOutput], store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, output, live = Gate(store, monkeypatch), open_output(), state(5)

    output.publish_state(live, [])
    live.losses.fill_(-1.0)
    gate.is_open.set()
    output.wait()

    saved = open_output(2).newest_state()
    assert saved is not None and saved.training.losses.tolist() == [5.0, 5.0]


def test_a_failed_upload_is_told_at_the_next_look_and_nothing_after_it_is_stored(
    open_output: Callable[..., RunOutput], store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StorageUnavailable("the store does not answer")

    monkeypatch.setattr(store, "put_file", refuse)
    output = open_output()
    put(output, "samples/a.png")

    with pytest.raises(StorageUnavailable, match="does not answer"):
        output.finish(epoch=1, step=9)

    assert store.list() == []
    with pytest.raises(StorageUnavailable, match="does not answer"):
        output.check()


def test_a_process_that_was_taken_over_stores_nothing(
    open_output: Callable[..., RunOutput], store: DirectoryStore
) -> None:
    def taken_over() -> None:
        raise Superseded("another pod writes here now")

    output = open_output(check_owner=taken_over)
    output.publish_state(state(1), [])

    with pytest.raises(Superseded):
        output.wait()

    assert store.list() == []


def test_a_later_attempt_takes_over_what_was_published(open_output: Callable[..., RunOutput]) -> None:
    first = open_output()
    put(first, "samples/a.png")
    first.publish_state(state(5), ["line 5\n"])
    first.wait()

    second = open_output(2)
    saved = second.newest_state()

    assert saved is not None
    assert saved.files == second.files == first.files


def test_an_empty_folder_holds_no_run(store: DirectoryStore) -> None:
    assert completed(store, IDENTITY, PROVENANCE) is None


def test_the_manifest_of_this_run_says_that_it_is_complete(
    open_output: Callable[..., RunOutput], store: DirectoryStore
) -> None:
    output = open_output()
    output.write("adapters/a", lambda path: path.write_bytes(b"adapter"))
    output.publish("adapters/a", "adapter", epoch=1, step=9, loss=0.5)
    output.finish(epoch=1, step=9)

    manifest = completed(store, IDENTITY, PROVENANCE)

    assert manifest is not None and manifest.complete
    assert (manifest.epoch, manifest.step, manifest.total_steps, manifest.files) == (1, 9, 9, output.files)
    assert [file.path for file in manifest.files] == ["adapters/a", PROVENANCE_PATH]


def test_another_run_is_not_overwritten_and_what_differs_is_named(
    open_output: Callable[..., RunOutput], store: DirectoryStore
) -> None:
    open_output().finish(epoch=1, step=9)

    with pytest.raises(InvalidConfiguration, match=r"already holds another run(.|\n)*network\.rank"):
        completed(store, OTHER, OTHER_PROVENANCE)


def test_a_foreign_manifest_is_not_overwritten(store: DirectoryStore) -> None:
    store.put_bytes(json.dumps({"schemaVersion": 2}).encode(), MANIFEST_NAME)

    with pytest.raises(InvalidConfiguration, match=r"already holds a manifest\.json that is not ours"):
        completed(store, IDENTITY, PROVENANCE)


def test_files_of_an_earlier_attempt_are_fetched_back(open_output: Callable[..., RunOutput]) -> None:
    first = open_output()
    put(first, "samples/a.png")
    first.publish_state(state(1), [])
    first.wait()
    second = open_output(2)
    second.newest_state()

    second.fetch_back("sample")

    assert second.local("samples/a.png").read_bytes() == b"picture"


def test_a_file_that_was_removed_is_not_named_again(
    open_output: Callable[..., RunOutput], store: DirectoryStore
) -> None:
    first = open_output()
    for name in ("a", "b"):
        put(first, f"samples/{name}.png")
    first.publish_state(state(1), [])
    first.wait()
    store.delete("samples/a.png")

    second = open_output(2)
    second.newest_state()

    assert [file.path for file in second.files] == ["samples/b.png"]


def test_the_log_is_kept_and_a_lost_one_is_no_failure(
    open_output: Callable[..., RunOutput], store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, output = tmp_path / "attempt.log", open_output(3)
    log.write_text("it began\n")

    output.publish_log(log)

    (key,) = store.list("logs/")
    assert key.endswith("-start-3-attempt-3.log") and store.get_bytes(key) == b"it began\n"
    output.publish_log(None)
    output.publish_log(tmp_path / "never written")
