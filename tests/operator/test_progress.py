"""lora_operator.progress and lora_operator.poller, against pods that answer on loopback addresses"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from lora_api import LoraTrainingStatus, ProgressReport, names
from lora_api.status import Progress
from lora_operator.cache import Cache
from lora_operator.figures import Known, derive_figures
from lora_operator.metrics import Metrics
from lora_operator.poller import ProgressPoller, goes_on
from lora_operator.progress import MAX_BYTES, open_progress_reader
from lora_operator.queue import WorkQueue
from lora_operator.subject import Key
from tests.support.observations import EARLIER, NOW, job_body, pod_body, training_body

ADDRESS = "127.77.0.1"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_get("/progress", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, ADDRESS, 0).start()
    monkeypatch.setattr(names, "TRAINER_PORT", runner.addresses[0][1])
    yield
    await runner.cleanup()


async def read(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> ProgressReport | None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(answering(handler, monkeypatch))
        reader = await stack.enter_async_context(open_progress_reader())
        return await reader.read(ADDRESS)


async def test_a_pod_tells_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"reason": "Training", "progress": {"step": 3, "totalSteps": 10}, "mood": "sunny"})

    report = await read(handler, monkeypatch)

    assert report == ProgressReport(reason="Training", progress=Progress(step=3, total_steps=10))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, "{}"),
        (200, "not json"),
        (200, '{"progress": {"step": -1}}'),
        (200, '{"progress": {"updatedTime": "today"}}'),
        (200, '{"message": "' + "x" * MAX_BYTES + '"}'),
        (302, ""),
    ],
    ids=["error", "prose", "negative", "time", "flood", "redirect"],
)
async def test_a_strange_answer_is_no_answer(status: int, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={"Location": "/progress"} if status == 302 else None)

    assert await read(handler, monkeypatch) is None


async def test_a_pod_that_is_not_there_is_no_error() -> None:
    async with open_progress_reader() as reader:
        assert await reader.read("127.77.0.2") is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"progress": {"step": 4}, "activeTime": EARLIER}, True),
        ({"reason": "Saving", "progress": {"step": 4}}, False),
        ({"starts": 2, "progress": {"step": 3}}, False),
        ({"progress": None}, False),
    ],
    ids=["step", "reason", "start", "unknown"],
)
def test_a_training_that_only_made_steps_goes_on(change: dict[str, Any], expected: bool) -> None:
    said = {"reason": "Training", "progress": {"step": 3}, "starts": 1}
    before, after = (ProgressReport.model_validate_json(json.dumps(report)) for report in (said, {**said, **change}))

    assert goes_on(before, after) is expected


def test_the_first_report_is_more_than_going_on() -> None:
    assert not goes_on(None, ProgressReport(progress=Progress(step=1)))


async def test_a_training_that_goes_on_has_its_look_in_time_and_any_other_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports = iter(
        [
            {"reason": "Training", "progress": {"step": 3}},
            {"reason": "Training", "progress": {"step": 4}},
            {"reason": "Saving", "progress": {"step": 4}},
        ]
    )

    async def handler(_: web.Request) -> web.Response:
        return web.json_response(next(reports))

    key, cache, queue, waiting = Key("ml", "hina"), Cache(), WorkQueue[Key](), []
    cache.put("training", training_body())
    cache.put("job", job_body())
    cache.put("pod", pod_body(state={"running": {}}, phase="Running", podIP=ADDRESS))
    async with answering(handler, monkeypatch), open_progress_reader() as reader:
        poller = ProgressPoller(reader, cache, queue, Metrics(), status_interval_seconds=30)
        for _ in range(3):
            await poller.poll()
            waiting.append(len(queue))
            if queue:
                queue.done(await queue.get())

    assert waiting == [1, 0, 1]
    assert set(queue._timers) == {key}
    queue.forget(key)


async def test_a_round_brings_news_to_cache_queue_and_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"reason": "Training", "progress": {"step": 3, "totalSteps": 10}})

    key, cache, queue, metrics = Key("ml", "hina"), Cache(), WorkQueue[Key](), Metrics()
    cache.put("training", training_body())
    cache.put("job", job_body())
    cache.put("pod", pod_body(state={"running": {}}, phase="Running", podIP=ADDRESS))
    metrics.trainings.set(key, derive_figures(Known(LoraTrainingStatus(), created=EARLIER, gpus=1, now=NOW)))
    async with answering(handler, monkeypatch), open_progress_reader() as reader:
        poller = ProgressPoller(reader, cache, queue, metrics)
        await poller.poll()
        first = len(queue)
        await queue.get()
        queue.done(key)
        await poller.poll()

    assert (first, len(queue)) == (1, 0)
    assert metrics.registry.get_sample_value("lora_training_step", {"namespace": "ml", "name": "hina"}) == 3


async def test_a_bug_that_one_pod_triggers_stops_no_other_and_hides_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, queue, metrics = Cache(), WorkQueue[Key](), Metrics()
    for name in ("hina", "mio"):
        training, job = training_body(), job_body()
        pod = pod_body(name=f"{name}-a1-0-x", state={"running": {}}, phase="Running", podIP=ADDRESS)
        training["metadata"]["name"] = name
        for body in (job, pod):
            body["metadata"]["labels"] |= {names.LABEL_TRAINING: name}
        cache.put("training", training)
        cache.put("job", job)
        cache.put("pod", pod)

    class Reader:
        async def read(self, _: str) -> ProgressReport:
            return ProgressReport(reason="Training")

    def fail(key: Key, _: ProgressReport) -> None:
        if key.name == "hina":
            raise ValueError("unforeseen")

    monkeypatch.setattr(metrics.trainings, "hear", fail)
    await ProgressPoller(Reader(), cache, queue, metrics).poll()  # type: ignore[arg-type]

    assert {await queue.get(), await queue.get()} == {Key("ml", "hina"), Key("ml", "mio")}
    assert metrics.registry.get_sample_value("lora_operator_errors_total", {"kind": "bug"}) == 1
