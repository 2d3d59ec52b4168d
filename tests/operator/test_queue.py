"""lora_operator.queue"""

import asyncio

import pytest

from lora_operator.queue import LONGEST_DELAY_SECONDS, WorkQueue, backoff_seconds


async def test_a_key_added_twice_comes_once() -> None:
    queue: WorkQueue[str] = WorkQueue()

    queue.add("a")
    queue.add("b")
    queue.add("a")

    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_added_while_a_worker_has_it_comes_when_that_one_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()

    queue.add("a")
    waiting_meanwhile = len(queue)
    queue.done(key)

    assert (waiting_meanwhile, len(queue)) == (0, 1)


async def test_keys_that_can_wait_come_after_all_others() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("old", can_wait=True)
    queue.add("older", can_wait=True)
    queue.add("new")

    length = len(queue)

    assert length == 3
    assert [await queue.get() for _ in range(3)] == ["new", "old", "older"]


async def test_a_key_that_could_wait_comes_once_when_it_no_longer_can() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", can_wait=True)
    queue.add("b")

    queue.add("a")
    queue.add("a", can_wait=True)

    assert [await queue.get(), await queue.get()] == ["b", "a"]
    assert len(queue) == 0


async def test_a_worker_is_woken_by_a_key_that_can_wait() -> None:
    queue: WorkQueue[str] = WorkQueue()
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)

    queue.add("a", can_wait=True)

    assert await worker == "a"


async def test_a_worker_waits_for_the_first_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)

    queue.add("a")

    assert await worker == "a"


@pytest.mark.parametrize(("first", "second", "expected"), [(50.0, 10.0, 10.0), (10.0, 50.0, 10.0)])
async def test_of_several_plans_the_earliest_counts(first: float, second: float, expected: float) -> None:
    queue: WorkQueue[str] = WorkQueue()

    queue.add_after("a", first)
    queue.add_after("a", second)

    (timer,) = queue._timers.values()
    assert timer.when() - asyncio.get_running_loop().time() == pytest.approx(expected, abs=1)
    queue.forget("a")


async def test_a_planned_key_comes() -> None:
    queue: WorkQueue[str] = WorkQueue()

    queue.add_after("a", 0.0)

    assert await queue.get() == "a"


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0.1), (1, 0.2), (5, 3.2), (9, 51.2), (10, 60), (5000, 60)])
def test_the_wait_doubles_up_to_a_minute(failures: int, seconds: float) -> None:
    assert backoff_seconds(failures) == pytest.approx(seconds)


async def test_failures_in_a_row_are_counted_until_a_success() -> None:
    queue: WorkQueue[str] = WorkQueue()

    delays = [queue.failed("a"), queue.failed("a")]
    queue.succeeded("a")
    delays.append(queue.failed("a"))

    assert delays == pytest.approx([0.1, 0.2, 0.1])
    queue.forget("a")


async def test_the_server_may_ask_for_more_patience() -> None:
    queue: WorkQueue[str] = WorkQueue()

    assert queue.failed("a", least_seconds=LONGEST_DELAY_SECONDS) == LONGEST_DELAY_SECONDS
    queue.forget("a")


async def test_a_forgotten_key_has_no_plans() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.failed("a")

    queue.forget("a")

    assert queue._timers == {}
    assert queue.failed("a") == pytest.approx(0.1)
    queue.forget("a")


async def test_failures_are_counted_until_a_success() -> None:
    queue = WorkQueue[str]()
    queue.failed("a")
    queue.failed("a")
    counted = queue.failures("a")

    queue.succeeded("a")

    assert (counted, queue.failures("a"), queue.failures("b")) == (2, 0, 0)
    queue.forget("a")


async def test_what_comes_before_the_queue_is_opened_is_not_kept() -> None:
    queue: WorkQueue[str] = WorkQueue(is_open=False)

    queue.add("a")
    queue.add("b", can_wait=True)
    queue.add_after("c", 0.0)
    await asyncio.sleep(0)
    queue.open()
    await asyncio.sleep(0)
    length = len(queue)
    queue.add("d")

    assert length == 0
    assert await queue.get() == "d"
