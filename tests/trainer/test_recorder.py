"""When states are saved between two epochs; the rest of the recorder is tested by whole runs."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora_trainer.progress import ProgressTracker
from lora_trainer.recorder import Recorder
from tests.support.tiny_run import make_session, make_training


@dataclass
class Output:
    """Notes the steps whose states are handed over."""

    is_saving: bool = False
    saved: list[int] = field(default_factory=list)

    def check(self) -> None:
        pass

    def publish_state(self, state: int, metrics: list[str], *, on_saved: object) -> None:
        self.saved.append(state)


@dataclass
class Run:
    """A recorder whose trainer, output and clock are the test's."""

    recorder: Recorder
    trainer: Any
    output: Output
    time: list[float]
    tracker: ProgressTracker

    def step(self, *, seconds: float = 0.0) -> None:
        self.trainer.step += 1
        self.time[0] += seconds
        self.recorder.after_step(1)


def make_run(folder: Path, **checkpoints: Any) -> Run:
    training = make_training(folder / "base", folder / "data", folder / "out", checkpoints=checkpoints)
    plan = SimpleNamespace(steps_per_epoch=1000, total_steps=2000, samples_per_epoch=1000, epochs=2, sample_steps=())
    trainer = SimpleNamespace(step=0, epoch=0, plan=plan, device=torch.device("cpu"), mean_loss=lambda: 0.5)
    trainer.state = lambda: trainer.step
    trainer.learning_rates = lambda: {"unet": 1e-4}
    trainer.result = nullcontext
    output, time = Output(), [0.0]
    painter = SimpleNamespace(check=lambda pictures, field: None)
    product = SimpleNamespace(
        training=training, facts=SimpleNamespace(base_name="base"), adapters=None, painter=painter
    )
    audience = make_session(folder).session.audience
    recorder = Recorder(product, trainer, output, audience, clock=lambda: time[0])  # type: ignore[arg-type]
    return Run(recorder, trainer, output, time, audience.tracker)


def test_a_state_is_saved_every_n_steps(tmp_path: Path) -> None:
    run = make_run(tmp_path, everySteps=3)

    for _ in range(7):
        run.step()

    assert run.output.saved == [3, 6]


def test_a_state_is_saved_when_the_last_one_is_n_seconds_old(tmp_path: Path) -> None:
    run = make_run(tmp_path, everySeconds=60)

    for _ in range(7):
        run.step(seconds=25)

    assert run.output.saved == [3, 6]


def test_a_save_for_another_reason_starts_the_clock_anew(tmp_path: Path) -> None:
    run = make_run(tmp_path, everySeconds=60, everySteps=2)

    for _ in range(5):
        run.step(seconds=25)

    assert run.output.saved == [2, 4]


def test_a_store_slower_than_the_steps_is_not_handed_more(tmp_path: Path) -> None:
    run = make_run(tmp_path, everySteps=1)
    run.output.is_saving = True
    run.step()
    run.output.is_saving = False
    run.step()

    assert run.output.saved == [2]


def test_a_state_that_was_due_while_another_was_stored_is_saved_right_after_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, everySteps=3)
    for is_saving in (False, False, False, False, True, True, False, False, False):
        run.output.is_saving = is_saving
        run.step()

    assert run.output.saved == [3, 7, 9]


def test_no_state_is_saved_where_none_is_wanted(tmp_path: Path) -> None:
    run = make_run(tmp_path, saveState=False, everySeconds=60)

    run.step(seconds=100)
    run.recorder.save_state()

    assert run.output.saved == []


def test_a_request_where_no_state_is_saved_is_refused_once(tmp_path: Path) -> None:
    run = make_run(tmp_path, saveState=False)

    for _ in range(2):
        run.tracker.request_state("noon")
        run.step()

    assert run.output.saved == []
    assert [notice.reason for notice in run.tracker.snapshot().notices] == ["CheckpointRefused"]


def test_a_state_that_is_asked_for_waits_for_the_one_on_its_way(tmp_path: Path) -> None:
    run = make_run(tmp_path, everySeconds=86400)
    run.tracker.request_state("noon")
    for is_saving in (True, True, False):
        run.output.is_saving = is_saving
        run.step()

    assert run.output.saved == [3]


@pytest.mark.parametrize("more", [{}, {"everySteps": 3}])
def test_the_same_position_is_saved_once(tmp_path: Path, more: dict[str, int]) -> None:
    run = make_run(tmp_path, **more)
    for _ in range(3):
        run.step()

    run.recorder.save_state()
    run.recorder.save_state()

    assert run.output.saved == [3]


def test_who_is_told_to_stop_tells_the_very_step(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for _ in range(13):
        run.step()

    run.recorder.tell_position()

    progress = run.tracker.snapshot().progress
    assert progress is not None
    assert progress.step == 13
