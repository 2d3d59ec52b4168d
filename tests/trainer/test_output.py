"""What a run leaves at its output, and what a later attempt makes of it."""

import json
from pathlib import Path

import pytest
import torch

from lora_api import MANIFEST_NAME, ManifestFile
from lora_trainer.checkpoint import TrainingState
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.output import STATES_KEPT, RunIdentity, RunOutput
from lora_trainer.storage.directory_store import DirectoryStore

IDENTITY = RunIdentity(name="hina", spec_digest="s" * 64, dataset_digest="d" * 64, base_digest="b" * 64, total_steps=9)
OTHER = RunIdentity(name="hina", spec_digest="x" * 64, dataset_digest="d" * 64, base_digest="b" * 64, total_steps=9)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store", "file:///store", on_bytes=lambda _: None)


def open_output(
    store: DirectoryStore, tmp_path: Path, identity: RunIdentity = IDENTITY, *, attempt: int = 1
) -> RunOutput:
    folder = tmp_path / f"local-{attempt}"
    folder.mkdir(exist_ok=True)
    return RunOutput(store, identity, attempt=attempt, folder=folder)


def state(step: int) -> TrainingState:
    return TrainingState(
        step=step, epoch=0, adapters={}, optimizer={}, scaler={}, average={}, losses=torch.full((2,), float(step))
    )


def damage(tmp_path: Path, key: str) -> None:
    (tmp_path / "store" / key).write_bytes(b"damaged")


def test_the_newest_state_is_taken_with_what_was_published(store: DirectoryStore, tmp_path: Path) -> None:
    first = open_output(store, tmp_path)
    first.write("samples/a.png", lambda path: path.write_bytes(b"picture"))
    file = first.publish("samples/a.png", "sample", epoch=0, step=0)
    first.publish_state(state(5), ["line 5\n"])
    first.publish_state(state(10), ["line 5\n", "line 10\n"])

    second = open_output(store, tmp_path, attempt=2)
    saved = second.newest_state()

    assert saved is not None
    assert (saved.training.step, saved.metrics) == (10, ("line 5\n", "line 10\n"))
    assert saved.files == second.files == (file,)


def test_steps_are_compared_as_numbers(store: DirectoryStore, tmp_path: Path) -> None:
    output = open_output(store, tmp_path)
    for step in (9, 10):
        output.publish_state(state(step), [])

    saved = open_output(store, tmp_path, attempt=2).newest_state()

    assert saved is not None and saved.training.step == 10


def test_only_the_newest_states_are_kept(store: DirectoryStore, tmp_path: Path) -> None:
    output = open_output(store, tmp_path)

    for step in range(1, STATES_KEPT + 3):
        output.publish_state(state(step), [])

    assert {key.split("/")[1] for key in store.list("state/")} == {"step-3", "step-4"}


@pytest.mark.parametrize("file", ["training.pt", "files.json", MANIFEST_NAME])
def test_a_damaged_state_gives_way_to_the_one_before(store: DirectoryStore, tmp_path: Path, file: str) -> None:
    output = open_output(store, tmp_path)
    output.publish_state(state(1), [])
    output.publish_state(state(2), [])
    damage(tmp_path, f"state/step-2/{file}")

    saved = open_output(store, tmp_path, attempt=2).newest_state()

    assert saved is not None and saved.training.step == 1


def test_a_state_without_manifest_is_not_looked_at(store: DirectoryStore, tmp_path: Path) -> None:
    open_output(store, tmp_path).publish_state(state(2), [])
    store.delete(f"state/step-2/{MANIFEST_NAME}")

    assert open_output(store, tmp_path, attempt=2).newest_state() is None


def test_a_state_of_another_run_is_left_alone(
    store: DirectoryStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_output(store, tmp_path, OTHER).publish_state(state(2), [])

    saved = open_output(store, tmp_path, attempt=2).newest_state()

    assert saved is None
    assert "file:///store/state/step-2 is of another run" in caplog.text


def test_an_empty_folder_holds_no_run(store: DirectoryStore, tmp_path: Path) -> None:
    assert open_output(store, tmp_path).completed() is None


def test_the_manifest_of_this_run_says_that_it_is_complete(store: DirectoryStore, tmp_path: Path) -> None:
    output = open_output(store, tmp_path)
    output.write("adapters/a", lambda path: path.write_bytes(b"adapter"))
    file = output.publish("adapters/a", "adapter", epoch=1, step=9, loss=0.5)
    output.finish(epoch=1, step=9)

    manifest = open_output(store, tmp_path, attempt=2).completed()

    assert manifest is not None and manifest.complete
    assert (manifest.epoch, manifest.step, manifest.total_steps, manifest.files) == (1, 9, 9, (file,))


def test_another_run_is_not_overwritten(store: DirectoryStore, tmp_path: Path) -> None:
    open_output(store, tmp_path, OTHER).finish(epoch=1, step=9)

    with pytest.raises(InvalidConfiguration, match=r"spec\.output\.uri already holds another run \(hina, written"):
        open_output(store, tmp_path, attempt=2).completed()


def test_a_foreign_manifest_is_not_overwritten(store: DirectoryStore, tmp_path: Path) -> None:
    store.put_bytes(json.dumps({"schemaVersion": 2}).encode(), MANIFEST_NAME)

    with pytest.raises(InvalidConfiguration, match=r"already holds a manifest\.json that is not ours"):
        open_output(store, tmp_path).completed()


def test_files_of_an_earlier_attempt_are_fetched_back(store: DirectoryStore, tmp_path: Path) -> None:
    first = open_output(store, tmp_path)
    first.write("samples/a.png", lambda path: path.write_bytes(b"picture"))
    first.publish("samples/a.png", "sample", epoch=0, step=0)
    first.publish_state(state(1), [])
    second = open_output(store, tmp_path, attempt=2)
    second.newest_state()

    second.fetch_back("sample")

    assert second.local("samples/a.png").read_bytes() == b"picture"


def test_a_file_that_was_removed_is_not_named_again(store: DirectoryStore, tmp_path: Path) -> None:
    first = open_output(store, tmp_path)
    for name in ("a", "b"):
        first.write(f"samples/{name}.png", lambda path: path.write_bytes(b"picture"))
        first.publish(f"samples/{name}.png", "sample", epoch=0, step=0)
    first.publish_state(state(1), [])
    store.delete("samples/a.png")
    second = open_output(store, tmp_path, attempt=2)

    second.newest_state()

    assert [file.path for file in second.files] == ["samples/b.png"]


def test_a_state_says_what_it_holds(store: DirectoryStore, tmp_path: Path) -> None:
    open_output(store, tmp_path, attempt=3).publish_state(state(4), [])

    manifest = json.loads(store.get_bytes(f"state/step-4/{MANIFEST_NAME}"))

    files = [ManifestFile.model_validate_json(json.dumps(file)) for file in manifest["files"]]
    assert (manifest["complete"], manifest["attempt"], manifest["step"]) == (False, 3, 4)
    assert [(file.path, file.kind) for file in files] == [
        ("files.json", "state"),
        ("metrics.jsonl", "state"),
        ("training.pt", "state"),
    ]
