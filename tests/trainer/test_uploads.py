"""Work behind the training: in order, one at a time, errors told."""

import threading
from collections.abc import Iterator

import pytest

from lora_trainer.uploads import StillUploading, UploadQueue


@pytest.fixture
def uploads() -> Iterator[UploadQueue]:
    queue = UploadQueue()
    yield queue
    queue.close()


def test_work_is_done_in_the_order_in_which_it_was_handed_over(uploads: UploadQueue) -> None:
    done: list[int] = []

    for number in range(20):
        uploads.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    uploads.wait()

    assert done == list(range(20))


def test_the_training_does_not_wait_for_it(uploads: UploadQueue) -> None:
    gate = threading.Event()

    uploads.submit(gate.wait)  # type: ignore[arg-type]
    with pytest.raises(StillUploading, match="1 uploads were not done in 0 s"):
        uploads.wait(0.0)
    gate.set()
    uploads.wait()


def test_after_an_error_nothing_more_is_done_and_every_look_tells_it(uploads: UploadQueue) -> None:
    gate, done = threading.Event(), []

    def fail() -> None:
        gate.wait()
        raise OSError("the store is gone")

    uploads.submit(fail)
    uploads.submit(lambda: done.append("a manifest"))
    gate.set()

    for look in (uploads.wait, uploads.check, lambda: uploads.submit(lambda: done.append("more"))):
        with pytest.raises(OSError, match="the store is gone"):
            look()
    assert done == []


def test_closing_drops_what_has_not_begun_and_waits_for_what_has(uploads: UploadQueue) -> None:
    begun, gate, done = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        gate.wait()
        done.append("first")

    uploads.submit(work)
    uploads.submit(lambda: done.append("second"))
    begun.wait()
    closing = threading.Thread(target=uploads.close)
    closing.start()
    gate.set()
    closing.join()

    assert done == ["first"]
