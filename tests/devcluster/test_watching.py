"""Watch streams: what lies ready goes out at once."""

import asyncio

from lora_devcluster.resources import Resource
from lora_devcluster.store import Key, Store
from lora_devcluster.watching import Watches, WatchRequest

BURST = 100
MOST_TURNS = 10
"""Turns of the event loop; one for each change would be a busy server's watches being late by as many requests."""


async def test_a_burst_of_changes_needs_few_turns_of_the_loop() -> None:
    store, jobs = Store(), Resource("batch", "v1", "Job", "jobs")
    events = Watches(store).events(WatchRequest(jobs, "", lambda _: True))
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(count)

    for number in range(BURST):
        name = f"j{number}"
        store.put(Key("batch", "jobs", "ns", name), {"metadata": {"name": name, "uid": name}})
    count()
    names = [(await first)["object"]["metadata"]["name"]]
    while len(names) < BURST:
        names.append((await anext(events))["object"]["metadata"]["name"])

    assert names == [f"j{number}" for number in range(BURST)]
    assert turns < MOST_TURNS
