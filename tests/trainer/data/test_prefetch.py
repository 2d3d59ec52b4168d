"""Threads change when work is done, never what comes out or in which order."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from lora_trainer.data.prefetch import in_order


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    assert list(in_order(lambda item: item * item, range(50), workers=workers)) == [n * n for n in range(50)]


@pytest.mark.parametrize("workers", [0, 3])
def test_an_error_comes_out_where_its_result_would(workers: int) -> None:
    def function(item: int) -> float:
        return 1 / (item - 5)

    results = in_order(function, range(50), workers=workers)

    assert [next(results) for _ in range(5)] == [1 / (item - 5) for item in range(5)]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize(("ahead", "most"), [(0, 4), (3, 4), (9, 9)])
def test_only_a_few_items_are_worked_on_ahead(ahead: int, most: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    with closing(in_order(str, items(), workers=2, ahead=ahead)) as results:
        for _ in range(3):
            next(results)

    assert len(taken) == 3 + most


def test_closing_ends_the_threads() -> None:
    before = set(threading.enumerate())
    results = in_order(str, range(1000), workers=3)
    next(results)
    assert set(threading.enumerate()) > before

    results.close()

    assert set(threading.enumerate()) == before
