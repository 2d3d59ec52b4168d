"""Threads change when work is done, never what comes out or in which order."""

import threading
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


def test_only_a_few_items_are_worked_on_ahead() -> None:
    begun = []
    with closing(in_order(lambda item: begun.append(item), range(1000), workers=2)) as results:
        for _ in range(3):
            next(results)

    assert len(begun) <= 3 + 2 * 2 + 1


def test_closing_ends_the_threads() -> None:
    before = set(threading.enumerate())
    results = in_order(str, range(1000), workers=3)
    next(results)
    assert set(threading.enumerate()) > before

    results.close()

    assert set(threading.enumerate()) == before
