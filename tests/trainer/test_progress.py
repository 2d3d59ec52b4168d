"""What the trainer says about itself while it runs and at its end."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge

from lora_api.exit_codes import ExitCode
from lora_api.progress import MAX_TERMINATION_BYTES, ProgressReport, TerminationMessage
from lora_api.status import Artifacts, Checkpoint, MemoryRung, Plan, SavedState
from lora_trainer.progress import ProgressServer, ProgressTracker, serve, write_termination
from lora_trainer.settings import Address

PLAN = Plan(images=4, batches_per_epoch=50, steps_per_epoch=50, epochs=2, total_steps=100)


class Clock:
    """Seconds that only tests move."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tracker(clock: Clock) -> ProgressTracker:
    tracker = ProgressTracker(clock=clock, now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    tracker.set_plan(PLAN)
    return tracker


def make_steps(tracker: ProgressTracker, clock: Clock, steps: range, seconds: float = 2.0) -> None:
    for step in steps:
        clock.seconds += seconds
        tracker.step(step, epoch=step // 50, loss=1 / step, learning_rate=1e-4)


def checkpoint(epoch: int) -> Checkpoint:
    return Checkpoint(epoch=epoch, step=epoch, uri=f"s3://b/{epoch}", sha256="0" * 64, size_bytes=1)


def test_a_step_gives_place_rate_and_time_left(tracker: ProgressTracker, clock: Clock) -> None:
    tracker.start_steps(0, epoch=0)
    make_steps(tracker, clock, range(1, 41))

    progress = tracker.snapshot().progress

    assert progress is not None
    assert (progress.step, progress.total_steps, progress.epoch, progress.total_epochs) == (40, 100, 0, 2)
    assert (progress.percent, progress.loss, progress.learning_rate) == (40, 1 / 40, 1e-4)
    assert progress.steps_per_second == pytest.approx(0.5)
    assert progress.remaining_seconds == 120
    assert progress.updated_time == "2026-01-02T03:04:05Z"


def test_memory_is_told_with_the_next_step(tracker: ProgressTracker, clock: Clock) -> None:
    tracker.start_steps(0, epoch=0)
    tracker.set_device_memory(1 << 30)
    make_steps(tracker, clock, range(1, 2))

    progress = tracker.snapshot().progress

    assert progress is not None and progress.device_memory_bytes == 1 << 30


def test_the_rate_follows_the_last_steps(tracker: ProgressTracker, clock: Clock) -> None:
    tracker.start_steps(0, epoch=0)
    make_steps(tracker, clock, range(1, 41), seconds=10.0)
    make_steps(tracker, clock, range(41, 81), seconds=1.0)

    progress = tracker.snapshot().progress

    assert progress is not None
    assert progress.steps_per_second == pytest.approx(1.0)


def test_a_pause_slows_the_time_left_but_not_the_rate(tracker: ProgressTracker, clock: Clock) -> None:
    tracker.start_steps(0, epoch=0)
    make_steps(tracker, clock, range(1, 51))
    tracker.set_reason("Sampling")
    clock.seconds += 100
    tracker.set_reason("Training")
    make_steps(tracker, clock, range(51, 53))

    progress = tracker.snapshot().progress

    assert progress is not None
    assert progress.steps_per_second == pytest.approx(0.5)
    assert progress.remaining_seconds == round((52 * 2 + 100) / 52 * 48)


def test_a_resumed_run_counts_time_from_its_own_start(tracker: ProgressTracker, clock: Clock) -> None:
    tracker.set_resumed_from(50)
    tracker.start_steps(50, epoch=1)
    make_steps(tracker, clock, range(51, 61))

    report = tracker.snapshot()

    assert report.resumed_from_step == 50
    assert report.progress is not None
    assert report.progress.remaining_seconds == 80


def test_before_the_first_step_nothing_is_guessed(tracker: ProgressTracker) -> None:
    tracker.start_steps(0, epoch=0)

    progress = tracker.snapshot().progress

    assert progress is not None
    assert (progress.steps_per_second, progress.remaining_seconds, progress.loss) == (None, None, None)


def test_the_newest_twenty_checkpoints_are_kept(tracker: ProgressTracker) -> None:
    for epoch in range(1, 26):
        tracker.add_checkpoint(checkpoint(epoch))

    assert [kept.epoch for kept in tracker.snapshot().checkpoints] == list(range(6, 26))


def test_a_checkpoint_that_is_written_again_stands_once(tracker: ProgressTracker) -> None:
    for epoch in (1, 2, 1):
        tracker.add_checkpoint(checkpoint(epoch))

    assert [kept.epoch for kept in tracker.snapshot().checkpoints] == [2, 1]


def test_the_last_word_holds_the_report_and_the_cure(tracker: ProgressTracker, clock: Clock, tmp_path: Path) -> None:
    tracker.start_steps(0, epoch=0)
    make_steps(tracker, clock, range(1, 8))
    tracker.set_artifacts(Artifacts(manifest_uri="s3://b/manifest.json"))
    path = tmp_path / "termination-log"
    path.write_text("")

    write_termination(
        path, tracker.termination(ExitCode.DIVERGED, reason="Diverged", message="loss is nan", hint="Lower the rate.")
    )

    word = TerminationMessage.model_validate_json(path.read_bytes())
    assert (word.exit_code, word.reason, word.message, word.hint) == (71, "Diverged", "loss is nan", "Lower the rate.")
    assert word.step == 7
    assert word.plan == PLAN
    assert word.artifacts == Artifacts(manifest_uri="s3://b/manifest.json")


def test_a_long_last_word_is_cut_to_what_the_kubelet_keeps(tracker: ProgressTracker, tmp_path: Path) -> None:
    path = tmp_path / "termination-log"

    write_termination(path, tracker.termination(ExitCode.INVALID_DATASET, reason="InvalidDataset", message="x" * 9000))

    assert len(path.read_bytes()) <= MAX_TERMINATION_BYTES


def test_signs_of_life_move_the_active_time(clock: Clock) -> None:
    moments = iter(datetime(2026, 1, 2, 3, 4, second, tzinfo=UTC) for second in range(60))
    tracker = ProgressTracker(clock=clock, now=lambda: next(moments))

    before = tracker.snapshot().active_time
    tracker.alive()

    assert (before, tracker.snapshot().active_time) == ("2026-01-02T03:04:00Z", "2026-01-02T03:04:01Z")


def test_the_report_says_how_much_silence_is_unusual(tracker: ProgressTracker) -> None:
    usual = tracker.snapshot().patience_seconds
    tracker.set_stall_seconds(60)

    assert (usual, tracker.snapshot().patience_seconds) == (900, 60)


@pytest.mark.parametrize(
    "sign",
    [
        ProgressTracker.alive,
        lambda tracker: tracker.set_reason("Training"),
        lambda tracker: tracker.start_steps(0, epoch=0),
        lambda tracker: tracker.step(1, epoch=0, loss=None, learning_rate=None),
    ],
)
def test_everything_that_goes_on_breaks_the_silence(
    tracker: ProgressTracker, clock: Clock, sign: Callable[[ProgressTracker], object]
) -> None:
    clock.seconds += 50
    silence = tracker.silence_seconds()

    sign(tracker)

    assert (silence, tracker.silence_seconds()) == (50, 0)


def test_what_is_only_told_does_not_break_the_silence(tracker: ProgressTracker, clock: Clock) -> None:
    clock.seconds += 50

    tracker.stall("no sign of life")
    tracker.add_notice("StateSkipped", "step 5")
    tracker.set_saved_state(SavedState(step=5, uri="s3://b/state"))

    assert tracker.silence_seconds() == 50


def test_a_stall_is_said_and_noticed(tracker: ProgressTracker) -> None:
    tracker.set_reason("Training")

    tracker.stall("no sign of life for 901 s")

    report = tracker.snapshot()
    assert (report.reason, report.message) == ("Stalled", "Training: no sign of life for 901 s")
    assert [(notice.reason, notice.message) for notice in report.notices] == [("Stalled", report.message)]


@pytest.mark.parametrize("stalls", [1, 2])
def test_a_stall_that_ends_gives_the_work_its_name_back(tracker: ProgressTracker, stalls: int) -> None:
    tracker.set_reason("Sampling", "4 pictures")
    for _ in range(stalls):
        tracker.stall("no sign of life")

    tracker.alive()

    report = tracker.snapshot()
    assert (report.reason, report.message) == ("Sampling", "4 pictures")


def test_the_newest_eight_notices_are_kept(tracker: ProgressTracker) -> None:
    for number in range(10):
        tracker.add_notice("StateSkipped", f"{number}" * 2000)

    notices = tracker.snapshot().notices
    assert [notice.message[0] for notice in notices] == list("23456789")
    assert {len(notice.message) for notice in notices} == {1024}


def test_what_else_is_known_is_in_the_report(tracker: ProgressTracker) -> None:
    state = SavedState(step=5, uri="s3://b/state/step-5")
    rungs = (MemoryRung(name="HalfBatch", step=3),)

    tracker.set_saved_state(state)
    tracker.set_memory_rungs(rungs)
    tracker.set_dataset_digest("d" * 64)
    tracker.set_starts(3)

    report = tracker.snapshot()
    assert (report.saved_state, report.memory_rungs, report.dataset_digest) == (state, rungs, "d" * 64)
    assert report.starts == 3


def test_the_last_word_holds_the_end_of_the_log(tracker: ProgressTracker) -> None:
    word = tracker.termination(1, reason="TrainerCrashed", message="", log_tail="x" * 3000 + "end")

    assert len(word.log_tail) == 2000 and word.log_tail.endswith("end")


@pytest.fixture
def server(tracker: ProgressTracker) -> Iterator[ProgressServer]:
    registry = CollectorRegistry()
    Gauge("answer", "Forty-two.", registry=registry).set(42)
    server = serve(tracker, registry, Address("127.0.0.1", 0))
    yield server
    server.close()


def get(server: ProgressServer, path: str) -> tuple[str, bytes]:
    url = f"http://{server.address.host}:{server.address.port}{path}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.headers["Content-Type"], answer.read()


def test_progress_is_the_json_of_the_contract(server: ProgressServer, tracker: ProgressTracker) -> None:
    tracker.set_reason("EncodingLatents", "3 of 4")

    content_type, body = get(server, "/progress")

    assert content_type == "application/json"
    assert ProgressReport.model_validate_json(body) == tracker.snapshot()
    assert json.loads(body)["plan"]["totalSteps"] == 100


def test_metrics_are_in_the_text_format(server: ProgressServer) -> None:
    content_type, body = get(server, "/metrics")

    assert content_type.startswith("text/plain")
    assert b"# HELP answer Forty-two.\n# TYPE answer gauge\nanswer 42.0\n" in body


def test_health_is_ok(server: ProgressServer) -> None:
    assert get(server, "/healthz")[1] == b"ok\n"


def test_other_paths_are_not_found(server: ProgressServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(server, "/secrets")

    caught.value.close()
    assert caught.value.code == 404


def test_a_closed_server_frees_its_port(tracker: ProgressTracker) -> None:
    server = serve(tracker, CollectorRegistry(), Address("127.0.0.1", 0))
    address = server.address
    server.close()

    with socket.socket() as probe:
        assert probe.connect_ex((address.host, address.port)) != 0


def test_a_port_that_is_taken_is_an_os_error(server: ProgressServer, tracker: ProgressTracker) -> None:
    with pytest.raises(OSError, match="in use"):
        serve(tracker, CollectorRegistry(), server.address)
