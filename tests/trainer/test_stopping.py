"""Being told to stop: once, from the first moment, with an end in sight."""

import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from lora_trainer.stopping import StopRequested, StopSignal, catch_signals, listening


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Gives the signals back as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_and_the_old_handler_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    with listening() as stop:
        asked_before = stop()
        signal.raise_signal(number)
        asked_after = stop()

    assert (asked_before, asked_after) == (False, True)
    assert signal.getsignal(number) is before


def test_a_signal_that_came_before_anybody_listened_is_heard() -> None:
    catch_signals()
    signal.raise_signal(signal.SIGTERM)

    with listening() as stop:
        assert stop()


def test_signals_that_are_caught_twice_tell_the_same() -> None:
    assert catch_signals() is catch_signals()


def test_a_second_ctrl_c_does_not_wait() -> None:
    with listening():
        signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_changes_nothing() -> None:
    clock = Clock()
    stop = StopSignal(grace_seconds=30, clock=clock)
    stop.handle(signal.SIGTERM, None)
    clock.seconds += 10

    stop.handle(signal.SIGTERM, None)

    assert stop.seconds_left() == 17


def test_the_time_left_keeps_a_margin_for_the_end_itself() -> None:
    clock = Clock()
    stop = StopSignal(grace_seconds=30, clock=clock)

    lefts = [stop.seconds_left()]
    stop.tell()
    for _ in range(3):
        lefts.append(stop.seconds_left())
        clock.seconds += 20

    assert lefts == [None, 27, 7, 0]


@pytest.mark.parametrize(("grace", "passed", "overdue"), [(30, 28.9, False), (30, 29.0, True), (None, 1e6, False)])
def test_time_is_up_a_second_before_the_kill(grace: float | None, passed: float, overdue: bool) -> None:
    clock = Clock()
    stop = StopSignal(grace_seconds=grace, clock=clock)
    stop.tell()
    clock.seconds += passed

    assert stop.is_overdue() is overdue


def test_who_was_not_told_is_never_overdue() -> None:
    assert not StopSignal(grace_seconds=0).is_overdue()


def test_a_signal_ends_what_has_nothing_to_lose_at_once() -> None:
    with listening() as stop, pytest.raises(StopRequested), stop.at_once():
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")


def test_a_stop_that_a_library_swallows_is_raised_afterwards() -> None:
    with listening() as stop, pytest.raises(StopRequested), stop.at_once(), suppress(Exception):
        signal.raise_signal(signal.SIGTERM)


def test_a_stop_that_a_library_renames_is_one_all_the_same() -> None:
    with listening() as stop, pytest.raises(StopRequested), stop.at_once():
        try:
            signal.raise_signal(signal.SIGTERM)
        except StopRequested as error:
            raise RuntimeError("failed to import") from error


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(ImportError), StopSignal().at_once():
        raise ImportError("no module")


def test_a_signal_that_comes_later_only_sets_the_flag() -> None:
    with listening() as stop:
        with stop.at_once():
            pass
        signal.raise_signal(signal.SIGTERM)

        assert stop()


def test_a_check_raises_once_told() -> None:
    stop = StopSignal()
    stop.check()
    stop.tell()

    with pytest.raises(StopRequested):
        stop.check()
