"""The annotation that asks for a state now: passed on to the pod, answered in the status, told once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from lora_api import LoraTrainingStatus, ProgressReport, names
from lora_operator.cache import Cache
from lora_operator.changes import derive_events
from lora_operator.metrics import Metrics
from lora_operator.poller import ProgressPoller
from lora_operator.progress import open_progress_reader
from lora_operator.queue import WorkQueue
from lora_operator.status import derive_status, is_urgent
from lora_operator.subject import Key, Manifest, Subject, parse_subject
from lora_operator.view import ACCEPTED
from tests.support.observations import EARLIER, NOW, job_body, make_job, observed, pod_body, running_pod, training_body
from tests.support.scenario import Scenario

ADDRESS = "127.77.0.3"
STATE = {"step": 30, "uri": "s3://b/run/state/step-30", "savedTime": EARLIER}


def asking(text: str, status: Manifest | None = None) -> Manifest:
    body = training_body(status=status)
    body["metadata"]["annotations"] = {names.ANNOTATION_CHECKPOINT: text}
    return body


def status_after(said: ProgressReport | None, subject: Subject) -> LoraTrainingStatus:
    return derive_status(subject, observed(make_job(), running_pod(), report=said), acceptance=ACCEPTED, now=NOW)


def report(request: str) -> ProgressReport:
    return ProgressReport.model_validate(
        {"reason": "Training", "checkpointRequest": request, "savedState": STATE}, by_alias=True
    )


@asynccontextmanager
async def pod_that_says(answers: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """A pod that has answered this request; what it is asked for."""
    asked: list[str] = []

    async def progress(_: web.Request) -> web.Response:
        return web.json_response({"reason": "Training", "checkpointRequest": answers})

    async def checkpoint(request: web.Request) -> web.Response:
        asked.append((await request.json())["request"])
        return web.Response(status=202)

    app = web.Application()
    app.router.add_get("/progress", progress)
    app.router.add_post("/checkpoint", checkpoint)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, ADDRESS, 0).start()
    monkeypatch.setattr(names, "TRAINER_PORT", runner.addresses[0][1])
    yield asked
    await runner.cleanup()


@pytest.mark.parametrize(
    ("training", "answered", "stage", "asked"),
    [
        (asking("noon"), "", names.STAGE_TRAINING, ["noon", "noon"]),
        (asking("noon"), "noon", names.STAGE_TRAINING, []),
        (asking("noon"), "morning", names.STAGE_TRAINING, ["noon", "noon"]),
        (asking("noon", {"checkpointRequest": "noon"}), "", names.STAGE_TRAINING, []),
        (asking("x" * 300), "", names.STAGE_TRAINING, ["x" * 256] * 2),
        (asking("x" * 300), "x" * 256, names.STAGE_TRAINING, []),
        (asking("noon"), "", names.STAGE_EVALUATION, []),
        (asking(""), "", names.STAGE_TRAINING, []),
        (training_body(), "morning", names.STAGE_TRAINING, []),
    ],
    ids=["new", "stored", "another", "told before", "long", "long, stored", "evaluation", "empty", "none"],
)
async def test_a_pod_is_asked_round_after_round_until_the_state_is_stored(
    training: Manifest, answered: str, stage: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache()
    cache.put("training", training)
    cache.put("job", job_body())
    cache.put("pod", pod_body(state={"running": {}}, phase="Running", podIP=ADDRESS, stage=stage))
    async with pod_that_says(answered, monkeypatch) as found, open_progress_reader() as reader:
        poller = ProgressPoller(reader, cache, WorkQueue[Key](), Metrics())
        await poller.poll()
        await poller.poll()

    assert found == asked


async def test_a_pod_that_takes_no_request_is_no_error() -> None:
    async with open_progress_reader() as reader:
        await reader.request_state("127.77.0.2", "noon")


def test_the_status_tells_the_request_that_was_answered_at_once() -> None:
    before = status_after(None, parse_subject(asking("noon")))

    after = status_after(report("noon"), parse_subject(asking("noon", before.to_document())))

    assert (before.checkpoint_request, after.checkpoint_request) == (None, "noon")
    assert is_urgent(before, after)


def test_the_answer_outlives_its_pod() -> None:
    status = status_after(None, parse_subject(asking("noon", {"checkpointRequest": "noon"})))

    assert status.checkpoint_request == "noon"


def test_pods_answer_nothing_that_was_not_asked() -> None:
    assert status_after(report("midnight"), parse_subject(asking("noon"))).checkpoint_request is None


def test_the_stored_state_is_an_event() -> None:
    subject = parse_subject(asking("noon"))
    before = status_after(report(""), subject)

    (event,) = derive_events(before, status_after(report("noon"), subject))

    assert (event.type, event.reason) == ("Normal", "CheckpointSaved")
    assert event.message == f"the state of step 30 is stored, as {names.ANNOTATION_CHECKPOINT} asked for"


async def test_a_running_training_saves_once_for_each_value(scenario: Scenario) -> None:
    requests = scenario.folder / "requests"
    await scenario.start_operator()
    await scenario.create(env={"FAKE_GATE": scenario.folder / "never", "FAKE_REQUESTS": requests})
    await scenario.until_phase("Running")

    for value in ("noon", "one o'clock"):
        await scenario.change({"metadata": {"annotations": {names.ANNOTATION_CHECKPOINT: value}}})
        await scenario.until(lambda: (scenario.training() or {})["status"].get("checkpointRequest") == value)  # noqa: B023
    await scenario.until(lambda: scenario.events_of("CheckpointSaved"))

    assert requests.read_text() == "/checkpoint noon\n/checkpoint one o'clock\n"
