"""The resumable state as a file."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_trainer.checkpoint import TrainingState, UnreadableState, read_state, write_state

STATE = TrainingState(
    step=7,
    epoch=2,
    adapters={"unet.a.down": torch.arange(6.0).reshape(2, 3)},
    optimizer={
        "state": {0: {"step": torch.tensor(7.0), "state1": torch.ones(4, dtype=torch.uint8)}},
        "param_groups": [],
    },
    scaler={},
    average={"shadow": {"unet.a.down": torch.ones(2, 3)}, "updates": 3},
    losses=torch.tensor([0.5, 0.25]),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_state(STATE, tmp_path / "state.pt")

    state = read_state(tmp_path / "state.pt")

    assert (state.step, state.epoch, state.scaler) == (7, 2, {})
    assert state.adapters["unet.a.down"].equal(STATE.adapters["unet.a.down"])
    assert state.optimizer["state"][0]["state1"].dtype == torch.uint8
    assert state.losses.equal(STATE.losses)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    write_state(STATE, path)
    path.write_bytes(path.read_bytes()[:200])

    with pytest.raises(UnreadableState, match=r"state\.pt cannot be read \("):
        read_state(path)


@pytest.mark.parametrize("numbers", [1, 1_000_000], ids=["at the end", "in the middle"])
def test_a_full_disk_is_told_as_such(numbers: int) -> None:
    state = replace(STATE, losses=torch.zeros(numbers))

    with pytest.raises(OSError, match="No space left on device"):
        write_state(state, Path("/dev/full"))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "harm"),))

    (tmp_path / "state.pt").write_bytes(pickle.dumps(Harmful()))

    with pytest.raises(UnreadableState):
        read_state(tmp_path / "state.pt")
    assert not (tmp_path / "harm").exists()


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    torch.save({"format_version": 99}, tmp_path / "state.pt")

    with pytest.raises(UnreadableState, match="format version 99, but 2 is understood"):
        read_state(tmp_path / "state.pt")
