"""States in the store: written once, trusted only whole, the newest good one found again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_api import MANIFEST_NAME
from lora_trainer.checkpoint import TrainingState
from lora_trainer.errors import InvalidConfiguration, Superseded
from lora_trainer.provenance import Provenance
from lora_trainer.results import Run, RunIdentity
from lora_trainer.state_places import next_start
from lora_trainer.states import States
from lora_trainer.storage.directory_store import DirectoryStore

SPEC = {"network": {"rank": 16}}
PROVENANCE = Provenance(spec=SPEC, dataset={"2_zwx/a.png": "1" * 64, "2_zwx/b.png": "2" * 64}, base={"unet": "3" * 64})
IDENTITY = RunIdentity(name="hina", spec_digest="s" * 64, dataset_digest="d" * 64, base_digest="b" * 64, total_steps=9)
RUN = Run(IDENTITY, PROVENANCE, attempt=1, start=1)
OTHER_PICTURES = replace(
    RUN,
    identity=replace(IDENTITY, dataset_digest="e" * 64),
    provenance=replace(PROVENANCE, dataset={"2_zwx/a.png": "1" * 64, "2_zwx/c.png": "4" * 64}),
    start=2,
)
OTHER_SPEC = replace(
    RUN, identity=replace(IDENTITY, spec_digest="t" * 64), provenance=replace(PROVENANCE, spec={"network": {"rank": 8}})
)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store", "file:///store", on_bytes=lambda _: None)


@pytest.fixture
def states_of(store: DirectoryStore, tmp_path: Path) -> Callable[..., States]:
    def build(run: Run = RUN, *, keep_last: int = 2, check_owner: Callable[[], None] = lambda: None) -> States:
        folder = tmp_path / f"local-{run.start}"
        return States(store, run, folder=folder, keep_last=keep_last, check_owner=check_owner)

    return build


def state(step: int, epoch: int = 0) -> TrainingState:
    losses = torch.full((2,), float(step))
    return TrainingState(step=step, epoch=epoch, adapters={}, optimizer={}, scaler={}, average={}, losses=losses)


def save(states: States, step: int, epoch: int = 0) -> None:
    states.publish(states.stage(state(step, epoch), files=(), metrics=[f"line {step}\n"]))


def newest(states: States, *, on_change: str = "Refuse", notices: list[str] | None = None) -> int | None:
    told = notices if notices is not None else []
    found = states.newest(on_change=on_change, on_notice=lambda reason, message: told.append(f"{reason}: {message}"))  # type: ignore[arg-type]
    return found.training.step if found else None


def folders(store: DirectoryStore) -> set[str]:
    return {key.split("/")[1] for key in store.list("state/step-")}


def test_what_was_saved_is_found_by_the_next_start(states_of: Callable[..., States]) -> None:
    saved = states_of()
    told = saved.publish(saved.stage(state(5, 1), files=(), metrics=["line 5\n"]))

    found = states_of(replace(RUN, start=2)).newest(on_change="Refuse", on_notice=lambda *_: None)

    assert found is not None
    assert (found.training.step, found.training.epoch, found.metrics, found.is_changed) == (5, 1, ("line 5\n",), False)
    assert told.uri == found.saved.uri == "file:///store/state/step-5-epoch-1-start-1"
    assert told.size_bytes > 0 and told.save_seconds is not None


def test_steps_are_compared_as_numbers(states_of: Callable[..., States]) -> None:
    states = states_of()
    for step in (9, 10):
        save(states, step)

    assert newest(states_of(replace(RUN, start=2))) == 10


@pytest.mark.parametrize("keep_last", [1, 2, 3])
def test_only_the_newest_states_are_kept(
    states_of: Callable[..., States], store: DirectoryStore, keep_last: int
) -> None:
    states = states_of(keep_last=keep_last)

    for step in range(1, 5):
        save(states, step)

    assert folders(store) == {f"step-{step}-epoch-0-start-1" for step in range(5 - keep_last, 5)}


@pytest.mark.parametrize("file", ["training.pt", "files.json", "metrics.jsonl", "provenance.json", MANIFEST_NAME])
@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_damaged_state_gives_way_to_the_one_before_and_that_is_told(
    states_of: Callable[..., States], store: DirectoryStore, tmp_path: Path, file: str, how: str
) -> None:
    states, notices = states_of(), []
    save(states, 1)
    save(states, 2)
    path = tmp_path / "store/state/step-2-epoch-0-start-1" / file
    path.write_bytes(b"damaged") if how == "damaged" else path.unlink()

    found = newest(states_of(replace(RUN, start=2)), notices=notices)

    assert found == 1
    if file != MANIFEST_NAME or how == "damaged":
        assert notices[0].startswith("StatePassedOver: the state file:///store/state/step-2-epoch-0-start-1 cannot")


def test_a_damaged_state_and_what_killed_processes_left_go_with_the_next_good_one(
    states_of: Callable[..., States], store: DirectoryStore, tmp_path: Path
) -> None:
    first = states_of()
    save(first, 1)
    save(first, 2)
    (tmp_path / "store/state/step-2-epoch-0-start-1/training.pt").write_bytes(b"damaged")
    store.put_bytes(b"half", "state/step-3-epoch-0-start-1/training.pt")
    second = states_of(replace(RUN, start=2))
    newest(second)

    save(second, 2)

    assert folders(store) == {"step-1-epoch-0-start-1", "step-2-epoch-0-start-2"}


def test_nothing_is_removed_before_a_new_state_is_whole(
    states_of: Callable[..., States], store: DirectoryStore
) -> None:
    save(states_of(), 1)

    def taken_over() -> None:
        raise Superseded("another pod")

    with pytest.raises(Superseded):
        save(states_of(replace(RUN, start=2), keep_last=1, check_owner=taken_over), 2)

    assert newest(states_of(replace(RUN, start=3))) == 1
    assert f"state/step-2-epoch-0-start-2/{MANIFEST_NAME}" not in store.list()


def test_two_processes_never_write_to_one_folder(states_of: Callable[..., States], store: DirectoryStore) -> None:
    ghost, successor = states_of(), states_of(replace(RUN, start=2))

    save(ghost, 4)
    save(successor, 4)

    assert {folder.rpartition("-")[2] for folder in folders(store)} <= {"1", "2"}
    assert newest(states_of(replace(RUN, start=3))) == 4


def test_a_process_that_wakes_up_late_removes_no_state_of_its_successor(
    states_of: Callable[..., States], store: DirectoryStore
) -> None:
    ghost, successor = states_of(keep_last=1), states_of(replace(RUN, start=2), keep_last=1)
    save(successor, 2)

    save(ghost, 4)

    assert newest(states_of(replace(RUN, start=3))) == 2


def test_a_state_that_was_read_is_not_left_on_the_disk(states_of: Callable[..., States], tmp_path: Path) -> None:
    save(states_of(), 4)

    newest(states_of(replace(RUN, start=2)))

    assert not [path for path in tmp_path.rglob("training.pt") if "store" not in path.parts]


def test_changed_pictures_are_refused_by_name(states_of: Callable[..., States]) -> None:
    save(states_of(), 4)

    with pytest.raises(InvalidConfiguration, match=r"2_zwx/c\.png(.|\n)*2_zwx/b\.png") as caught:
        newest(states_of(OTHER_PICTURES))

    assert "resume.onChange" in f"{caught.value} {caught.value.hint}"


def test_changed_pictures_are_trained_on_where_the_spec_says_so(states_of: Callable[..., States]) -> None:
    save(states_of(), 4)

    found = states_of(OTHER_PICTURES).newest(on_change="Continue", on_notice=lambda *_: None)

    assert found is not None and (found.training.step, found.is_changed) == (4, True)


def test_a_state_of_the_new_pictures_is_newer_than_one_of_the_old_whatever_its_steps(
    states_of: Callable[..., States],
) -> None:
    save(states_of(), 40)
    second = states_of(OTHER_PICTURES)
    newest(second, on_change="Continue")

    save(second, 3)

    assert newest(states_of(replace(OTHER_PICTURES, start=3))) == 3


@pytest.mark.parametrize("on_change", ["Refuse", "Continue"])
def test_other_settings_are_refused_always(states_of: Callable[..., States], on_change: str) -> None:
    save(states_of(), 4)

    with pytest.raises(InvalidConfiguration, match=r"network\.rank"):
        newest(states_of(OTHER_SPEC), on_change=on_change)


def test_a_state_of_another_run_that_does_not_say_what_it_was_made_from_is_left_alone(
    states_of: Callable[..., States], tmp_path: Path
) -> None:
    save(states_of(), 4)
    (tmp_path / "store/state/step-4-epoch-0-start-1/provenance.json").unlink()

    with pytest.raises(InvalidConfiguration, match="another"):
        newest(states_of(OTHER_SPEC))


def test_starts_are_counted_on_when_the_record_of_the_owner_was_removed(
    states_of: Callable[..., States], store: DirectoryStore
) -> None:
    assert next_start(store, 1) == 1
    save(states_of(replace(RUN, start=7)), 4)

    assert (next_start(store, 1), next_start(store, 12)) == (8, 12)
