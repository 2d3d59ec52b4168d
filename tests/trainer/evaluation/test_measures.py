"""The line of an epoch in `metrics.jsonl`."""

import json

from lora_trainer.evaluation.measures import BaseLosses, Measure, from_lines, to_line

BASE = BaseLosses({"1_x/a.png": [0.5, 0.25]}, {"1_x/b.png": [0.125]})


def make_measure(epoch: int) -> Measure:
    return Measure(epoch, 10 * epoch, {"1_x/a.png": 0.75, "1_x/c.png": 0.25}, {"1_x/b.png": 0.5}, drift=0.01)


def test_lines_give_back_what_was_measured_by_epoch() -> None:
    lines = [to_line(make_measure(2)), '{"step": 3, "epoch": 1, "loss": 0.1}\n', to_line(make_measure(0), BASE)]

    assert from_lines(lines) == ((make_measure(0), make_measure(2)), BASE)


def test_a_line_names_epoch_and_step_and_the_means() -> None:
    document = json.loads(to_line(make_measure(2)))

    assert (document["epoch"], document["step"]) == (2, 20)
    assert document["evaluation"]["heldOutLoss"] == 0.5
    assert document["evaluation"]["trainingLoss"] == 0.5
    assert document["evaluation"]["drift"] == 0.01


def test_a_file_without_measures_gives_none() -> None:
    assert from_lines(['{"step": 3, "epoch": 1, "loss": 0.1}\n']) == ((), None)
