"""lora_operator.informer"""

import asyncio
from typing import Any

import pytest

from lora_operator.cache import Cache
from lora_operator.errors import ClusterUnavailable
from lora_operator.informer import Informer
from lora_operator.metrics import Metrics
from lora_operator.queue import WorkQueue
from lora_operator.subject import Key
from tests.support.observations import EARLIER, job_body, pod_body, training_body

KEY = Key("ml", "hina")
ENDED = {
    "phase": "Failed",
    "conditions": [
        {"type": kind, "status": status, "reason": "Diverged", "message": "x", "lastTransitionTime": EARLIER}
        for kind, status in (("Finished", "True"), ("Succeeded", "False"))
    ],
}


class Lists:
    """Answers lists, and remembers them."""

    def __init__(self, **found: list[dict[str, Any]]) -> None:
        self.found = found
        self.asked: list[tuple[str, str | None, str]] = []
        self.meanwhile = lambda: None

    async def list(self, resource: Any, namespace: str | None, *, labels: str = "") -> list[dict[str, Any]]:
        self.asked.append((resource.plural, namespace, labels))
        self.meanwhile()
        return self.found.get(resource.plural, [])


class SlowLists(Lists):
    """Answers when it is told to."""

    def __init__(self, **found: list[dict[str, Any]]) -> None:
        super().__init__(**found)
        self.began, self.goes_on = asyncio.Event(), asyncio.Event()

    async def list(self, resource: Any, namespace: str | None, *, labels: str = "") -> list[dict[str, Any]]:
        self.began.set()
        await self.goes_on.wait()
        return await super().list(resource, namespace, labels=labels)


def build(lists: Lists) -> tuple[Informer, Cache, WorkQueue[Key]]:
    cache, queue = Cache(), WorkQueue[Key]()
    return Informer(lists, cache, queue, Metrics()), cache, queue  # type: ignore[arg-type]


async def test_a_training_is_looked_at_at_once_and_its_children_after_the_burst() -> None:
    informer, _, queue = build(Lists())

    informer.handle("training", "ADDED", training_body())
    at_once = len(queue)
    await queue.get()
    queue.done(KEY)
    informer.handle("job", "ADDED", job_body())
    informer.handle("pod", None, pod_body())

    assert (at_once, len(queue)) == (1, 0)
    assert await queue.get() == KEY


async def test_what_is_known_already_needs_no_look() -> None:
    informer, _, queue = build(Lists())
    informer.handle("training", "ADDED", training_body())
    await queue.get()
    queue.done(KEY)

    informer.handle("training", "MODIFIED", training_body())

    assert len(queue) == 0


async def test_trainings_that_ended_long_ago_keep_no_new_one_waiting() -> None:
    informer, _, queue = build(Lists())
    for name in ("old", "new"):
        body = training_body(status=ENDED if name == "old" else None)
        body["metadata"]["name"] = name
        informer.handle("training", None, body)

    assert [await queue.get(), await queue.get()] == [Key("ml", "new"), Key("ml", "old")]


async def test_a_deletion_is_looked_at() -> None:
    informer, cache, queue = build(Lists())
    informer.handle("training", None, training_body())

    informer.handle("training", "DELETED", training_body())

    assert cache.subject(KEY) is None
    assert len(queue) == 1


async def test_a_list_brings_what_the_watch_has_not_told() -> None:
    informer, cache, queue = build(Lists(loratrainings=[training_body()], jobs=[job_body()]))

    await informer.resync(())

    subject = cache.subject(KEY)
    assert subject is not None
    assert cache.observed(subject).job is not None
    assert len(queue) == 1


async def test_a_list_takes_away_what_is_gone_without_notice() -> None:
    lists = Lists(loratrainings=[training_body()], jobs=[job_body()])
    informer, cache, _ = build(lists)
    await informer.resync(())

    lists.found["jobs"] = []
    await informer.resync(())

    subject = cache.subject(KEY)
    assert subject is not None
    assert cache.observed(subject).job is None


async def test_what_came_while_the_list_was_on_its_way_is_kept() -> None:
    lists = Lists()
    informer, cache, _ = build(lists)
    lists.meanwhile = lambda: informer.handle("training", "ADDED", training_body())

    await informer.resync(())

    assert cache.subject(KEY) is not None


async def test_what_was_deleted_while_the_list_was_on_its_way_does_not_come_back() -> None:
    lists = Lists(loratrainings=[training_body()])
    informer, cache, _ = build(lists)
    informer.handle("training", None, training_body())
    lists.meanwhile = lambda: informer.handle("training", "DELETED", training_body())

    await informer.resync(())

    assert cache.subject(KEY) is None


async def test_what_one_list_brought_is_looked_at_although_the_next_list_failed() -> None:
    lists = Lists(loratrainings=[training_body()])
    informer, _, queue = build(lists)

    def fail_at_jobs() -> None:
        if lists.asked[-1][0] == "jobs":
            raise ClusterUnavailable("too many requests")

    lists.meanwhile = fail_at_jobs
    with pytest.raises(ClusterUnavailable):
        await informer.resync(())
    informer.handle("training", "ADDED", training_body())

    assert len(queue) == 1


async def test_what_was_deleted_during_one_list_does_not_come_back_for_another_that_began_meanwhile() -> None:
    lists = SlowLists(loratrainings=[training_body()])
    informer, cache, _ = build(lists)
    first = asyncio.create_task(informer.relist("training", None))
    await lists.began.wait()
    informer.handle("training", "DELETED", training_body())
    second = asyncio.create_task(informer.relist("pod", None))
    await asyncio.sleep(0)

    lists.goes_on.set()
    await asyncio.gather(first, second)

    assert cache.subject(KEY) is None


@pytest.mark.parametrize(("namespaces", "asked"), [((), [None]), (("ml", "art"), ["ml", "art"])])
async def test_only_the_served_namespaces_are_listed(namespaces: tuple[str, ...], asked: list[str | None]) -> None:
    lists = Lists()
    informer, _, _ = build(lists)

    await informer.resync(namespaces)

    assert [namespace for plural, namespace, _ in lists.asked if plural == "jobs"] == asked
    assert all(
        "app.kubernetes.io/managed-by=lora-operator" in labels for p, _, labels in lists.asked if p != "loratrainings"
    )


async def test_an_unanswered_list_forgets_nothing() -> None:
    lists = Lists(loratrainings=[training_body()])
    informer, cache, _ = build(lists)
    await informer.resync(())

    def fail() -> None:
        raise ClusterUnavailable("away")

    lists.meanwhile = fail
    with pytest.raises(ClusterUnavailable):
        await informer.resync(())

    assert cache.subject(KEY) is not None


def broken_pod() -> dict[str, Any]:
    """A pod that nobody can make sense of."""
    body = pod_body(name="broken")
    return {**body, "status": {"conditions": [{}]}}


async def test_an_object_that_triggers_a_bug_does_not_hide_the_others() -> None:
    informer, cache, _ = build(Lists(pods=[broken_pod(), pod_body()]))

    await informer.relist("pod", None)

    assert cache.uids("pod") == {"uid-of-hina-a1-0-abcde"}


async def test_an_event_that_triggers_a_bug_is_counted() -> None:
    _, cache, queue = build(Lists())
    metrics = Metrics()
    informer = Informer(Lists(), cache, queue, metrics)  # type: ignore[arg-type]

    informer.handle("pod", "ADDED", broken_pod())
    informer.handle("pod", "DELETED", broken_pod())

    assert metrics.registry.get_sample_value("lora_operator_errors_total", {"kind": "bug"}) == 2
