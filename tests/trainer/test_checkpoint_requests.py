"""Who asks the trainer for a state gets one after the next step, once."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from lora_api.status import SavedState
from lora_trainer.errors import Interrupted
from lora_trainer.progress import ProgressServer, ProgressTracker, serve
from lora_trainer.run import run_training
from lora_trainer.settings import Address
from tests.support.tiny_run import FEW_BLOCKS, make_session_until, make_training

STATE = SavedState(step=3, uri="s3://b/state")


@pytest.fixture
def tracker() -> ProgressTracker:
    return ProgressTracker()


@pytest.fixture
def server(tracker: ProgressTracker) -> Iterator[ProgressServer]:
    server = serve(tracker, CollectorRegistry(), Address("127.0.0.1", 0))
    yield server
    server.close()


def post(server: ProgressServer, content: bytes, *, path: str = "/checkpoint") -> int:
    url = f"http://{server.address.host}:{server.address.port}{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=content), timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_request_is_taken(server: ProgressServer, tracker: ProgressTracker) -> None:
    assert post(server, json.dumps({"request": "noon"}).encode()) == 202
    assert tracker.open_request == "noon"


@pytest.mark.parametrize(
    ("content", "path", "status"),
    [
        (b"noon", "/checkpoint", 400),
        (b'["noon"]', "/checkpoint", 400),
        (b'{"request": ""}', "/checkpoint", 400),
        (b'{"request": 7}', "/checkpoint", 400),
        (json.dumps({"request": "x" * 257}).encode(), "/checkpoint", 400),
        (b'{"request": "\\ud800"}', "/checkpoint", 400),
        (b"[" * 4000, "/checkpoint", 400),
        (b"x" * 5000, "/checkpoint", 413),
        (b'{"request": "noon"}', "/progress", 404),
    ],
    ids=[
        "no JSON",
        "a list",
        "empty",
        "a number",
        "long",
        "no text that could be told",
        "nested",
        "flood",
        "another path",
    ],
)
def test_another_request_is_refused(
    server: ProgressServer, tracker: ProgressTracker, content: bytes, path: str, status: int
) -> None:
    assert post(server, content, path=path) == status
    assert tracker.open_request == ""


def test_a_request_is_open_until_its_state_is_stored(tracker: ProgressTracker) -> None:
    tracker.request_state("noon")
    tracker.set_saved_state(STATE)
    before = (tracker.open_request, tracker.snapshot().checkpoint_request)

    tracker.set_saved_state(STATE, answers="noon")

    assert before == ("noon", "")
    assert (tracker.open_request, tracker.snapshot().checkpoint_request) == ("", "noon")


def test_the_same_request_again_asks_for_nothing(tracker: ProgressTracker) -> None:
    tracker.request_state("noon")
    tracker.set_saved_state(STATE, answers="noon")

    tracker.request_state("noon")

    assert tracker.open_request == ""


def test_a_request_that_comes_while_another_is_stored_stays_open(tracker: ProgressTracker) -> None:
    tracker.request_state("noon")
    tracker.request_state("one o'clock")

    tracker.set_saved_state(STATE, answers="noon")

    assert (tracker.open_request, tracker.snapshot().checkpoint_request) == ("one o'clock", "noon")


def test_a_run_saves_after_its_next_step(tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path) -> None:
    sections = {"network": {"blocks": FEW_BLOCKS}, "samples": {"prompts": []}}
    training = make_training(tiny_pipeline, tiny_pictures, tmp_path / "out", **sections)
    observed = make_session_until(tmp_path / "work", step=3)
    observed.tracker.request_state("noon")

    with pytest.raises(Interrupted):
        run_training(training, observed.session)

    steps = sorted(path.name.split("-")[1] for path in (tmp_path / "out" / "state").glob("step-*"))
    assert (observed.tracker.snapshot().checkpoint_request, steps) == ("noon", ["1", "3"])
