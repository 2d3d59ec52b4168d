"""The memory ladder: what is given up for which spec, in which order, and how it is kept."""

from pathlib import Path
from typing import Any

import pytest

from lora_api.spec import LoraTrainingSpec
from lora_api.status import MemoryRung
from lora_trainer import memory
from tests.support.tiny_run import make_training


def spec_of(optimizer: str = "adamw", arguments: dict[str, str] | None = None, **training: Any) -> LoraTrainingSpec:
    chosen = {"name": optimizer, "arguments": arguments or {}}
    on_gpu = {"gpusPerNode": 1}
    return make_training(
        Path("/base"), Path("/data"), Path("/out"), training=training, optimizer=chosen, parallelism=on_gpu
    ).spec


def ladder(spec: LoraTrainingSpec) -> list[MemoryRung]:
    """Every rung of a spec, in order."""
    taken: list[MemoryRung] = []
    while (rung := memory.next_rung(spec, taken, step=len(taken))) is not None:
        taken.append(rung)
    return taken


def test_batches_are_halved_first_then_activations_recomputed_then_averages_shrunk() -> None:
    names = [rung.name for rung in ladder(spec_of(batchSize=5))]

    assert names == ["HalfBatch", "HalfBatch", "HalfBatch", "GradientCheckpointing", "EightBitOptimizer"]


def test_what_the_user_chose_already_is_no_rung() -> None:
    assert ladder(spec_of("adamw8bit", batchSize=1, gradientCheckpointing=True)) == []


@pytest.mark.parametrize(
    ("optimizer", "form"),
    [
        ("adamw", "adamw8bit"),
        ("pagedadamw", "pagedadamw8bit"),
        ("pagedadamw32bit", "pagedadamw8bit"),
        ("lion", "lion8bit"),
        ("sgdnesterov", "sgdnesterov8bit"),
        ("lion8bit", None),
        ("adafactor", None),
    ],
)
def test_only_some_optimizers_have_an_8_bit_form(optimizer: str, form: str | None) -> None:
    assert memory.eight_bit_form(spec_of(optimizer)) == form


def test_an_8_bit_form_that_does_not_take_the_arguments_is_none() -> None:
    assert memory.eight_bit_form(spec_of("adamw", {"amsgrad": "True"})) is None


@pytest.mark.parametrize(("halvings", "expected"), [(0, 6), (1, 3), (2, 2), (3, 1)])
def test_examples_at_once_are_halved_and_rounded_up(halvings: int, expected: int) -> None:
    taken = [MemoryRung(name="HalfBatch")] * halvings

    assert memory.examples_at_once(spec_of(batchSize=6), taken) == expected


def test_batch_and_accumulation_stay_as_they_are() -> None:
    spec = spec_of(batchSize=4, gradientAccumulationSteps=2)

    applied = memory.apply(spec, ladder(spec))

    assert (applied.training.batch_size, applied.training.gradient_accumulation_steps) == (4, 2)
    assert applied.training.gradient_checkpointing
    assert applied.optimizer.name == "adamw8bit"
    assert memory.apply(spec, ()) == spec


def test_each_rung_says_from_which_step_it_holds_and_what_it_means() -> None:
    first, *_ = ladder(spec_of(batchSize=4))

    assert (first.step, first.message) == (0, "the batch of 4 goes through the model in pieces of 2")


def test_rungs_are_read_back_by_the_same_run_only() -> None:
    rungs = tuple(ladder(spec_of(batchSize=4)))
    data = memory.to_json(rungs, spec_digest="abc")

    assert memory.from_json(data, spec_digest="abc") == rungs
    assert memory.from_json(data, spec_digest="other") == ()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"specDigest": "abc", "rungs": [{"name": 1}]}', b"\xff"])
def test_a_damaged_record_is_said_to_be_and_not_used(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert memory.from_json(data, spec_digest="abc") == ()
    assert "state/memory.json cannot be read" in caplog.text
