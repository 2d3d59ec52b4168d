"""Which silence is unusual, for each kind of work."""

import pytest

from lora_trainer.pulse import LEAST_PATIENCE_SECONDS, Pulse


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def beat(pulse: Pulse, clock: Clock, *gaps: float) -> None:
    for gap in gaps:
        clock.seconds += gap
        pulse.beat()


def test_silence_is_counted_from_the_last_sign_of_life(clock: Clock) -> None:
    pulse = Pulse(clock)
    beat(pulse, clock, 5, 7)
    clock.seconds += 11

    assert pulse.silence_seconds() == 11


def test_nothing_is_unusual_before_a_quarter_of_an_hour(clock: Clock) -> None:
    pulse = Pulse(clock)
    pulse.begin("Training")
    beat(pulse, clock, *[0.1] * 100)

    assert pulse.patience_seconds() == LEAST_PATIENCE_SECONDS == 900


def test_slow_steps_are_given_twenty_times_as_long(clock: Clock) -> None:
    pulse = Pulse(clock)
    pulse.begin("Training")
    beat(pulse, clock, *[100.0] * 50)

    assert pulse.patience_seconds() == 20 * 100


def test_the_longest_silence_that_ended_is_given_ten_times(clock: Clock) -> None:
    pulse = Pulse(clock)
    pulse.begin("Training")
    beat(pulse, clock, 300.0, *[1.0] * 100)

    assert pulse.patience_seconds() == 10 * 300


def test_each_kind_of_work_has_its_own_measure(clock: Clock) -> None:
    pulse = Pulse(clock)
    pulse.begin("Sampling")
    beat(pulse, clock, *[200.0] * 10)
    pulse.begin("Training")
    beat(pulse, clock, 1.0)
    training = pulse.patience_seconds()
    pulse.begin("Sampling")

    assert (training, pulse.patience_seconds()) == (900, 4000)


def test_a_model_may_take_long_to_load(clock: Clock) -> None:
    pulse = Pulse(clock)
    pulse.begin("LoadingModel")

    assert pulse.patience_seconds() == 1800


def test_what_the_limits_say_holds_exactly(clock: Clock) -> None:
    pulse = Pulse(clock)
    pulse.stall_seconds = 60
    pulse.begin("LoadingModel")
    beat(pulse, clock, *[100.0] * 10)

    assert pulse.patience_seconds() == 60
