"""Several processes that train together, as threads: the connection is torch's own, in memory where that is enough."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from torch.distributed import HashStore, ProcessGroupGloo  # type: ignore[attr-defined]

from lora_trainer.world import PeerLost, World

Result = TypeVar("Result")
_LIMIT_SECONDS = 120.0


def together(size: int, work: Callable[[World], Result], *, limit_seconds: float = _LIMIT_SECONDS) -> list[Result]:
    """What `work` gives in each of `size` members of a company, by rank.

    When it raises in one of them, those that wait for it lose it, as they would lose a process; that error is raised.
    A sum that was begun and never ends holds up the test until the limit, when its connection is collected.
    """
    store = HashStore()
    results: dict[int, Result] = {}
    errors: list[Exception] = []

    def while_waiting() -> None:
        if errors:
            raise PeerLost("another process is lost")

    def member(rank: int) -> None:
        try:
            group = ProcessGroupGloo(store, rank, size, timedelta(seconds=limit_seconds))
            world = World(rank, size, group=group, while_waiting=while_waiting)  # type: ignore[arg-type]
            results[rank] = work(world)
        except Exception as error:  # noqa: BLE001  (raised by the thread that waits)
            errors.append(error)

    threads = [threading.Thread(target=member, args=(rank,), name=f"member {rank}") for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[rank] for rank in range(size)]


def raised(work: Callable[[], object]) -> Exception | None:
    """What `work` raises, for members of a company that all raise the same."""
    try:
        work()
    except Exception as error:  # noqa: BLE001  (what it is, the test says)
        return error
    return None
