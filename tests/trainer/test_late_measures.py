"""lora_trainer.late_measures"""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import InvalidConfiguration
from lora_trainer.evaluate import evaluate_training
from lora_trainer.evaluation.measures import Measure, from_lines
from lora_trainer.run import run_training
from tests.support.tiny_run import FEW_BLOCKS, make_session, make_training

EVALUATION: dict[str, Any] = {"bestEpoch": {"heldOutPasses": 8, "trainingPasses": 4, "driftPasses": 4}, "report": False}


def measures_at(path: Path) -> tuple[Measure, ...]:
    return from_lines(path.read_text().splitlines())[0]


@pytest.mark.parametrize("fraction", [None, 0.34], ids=["nothing held out", "some held out"])
def test_a_run_is_measured_when_it_is_evaluated_later(
    fraction: float | None, tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path
) -> None:
    dataset = {} if fraction is None else {"validationFraction": fraction}
    changes: dict[str, Any] = {"network": {"blocks": FEW_BLOCKS}, "dataset": dataset}
    without = changes | ({"evaluation": {"bestEpoch": {"by": "None"}, "report": False}} if fraction else {})
    run_training(
        make_training(tiny_pipeline, tiny_pictures, tmp_path / "out", **without),
        make_session(tmp_path / "work").session,
    )
    later = make_training(tiny_pipeline, tiny_pictures, tmp_path / "out", **changes, evaluation=EVALUATION)
    session = make_session(tmp_path / "later")

    if fraction is None:
        with pytest.raises(InvalidConfiguration, match=r"evaluate the run that is there \(`lora evaluate`\)"):
            run_training(later, make_session(tmp_path / "again").session)
    evaluate_training(later, session.session)

    status = session.tracker.snapshot().evaluation
    measures = measures_at(tmp_path / "out/evaluation/measures.jsonl")
    assert status is not None
    assert status.best_epoch is not None
    assert status.confidence == ("Low" if fraction is None else status.confidence)
    assert [measure.epoch for measure in measures] == [0, 1, 2]
    assert all(bool(measure.held_out) == (fraction is not None) for measure in measures)
    assert (tmp_path / "out/adapters/tiny-best.safetensors").is_file()


def test_late_measures_are_those_of_the_training(tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "network": {"blocks": FEW_BLOCKS},
        "dataset": {"validationFraction": 0.34},
        "output": {"precision": "fp32"},
    }
    run_training(
        make_training(tiny_pipeline, tiny_pictures, tmp_path / "measured", **changes, evaluation=EVALUATION),
        make_session(tmp_path / "work1").session,
    )
    off = EVALUATION | {"bestEpoch": {"by": "None"}}
    run_training(
        make_training(tiny_pipeline, tiny_pictures, tmp_path / "late", **changes, evaluation=off),
        make_session(tmp_path / "work2").session,
    )
    later = make_training(tiny_pipeline, tiny_pictures, tmp_path / "late", **changes, evaluation=EVALUATION)

    evaluate_training(later, make_session(tmp_path / "work3").session)
    kept = (tmp_path / "late/evaluation/measures.jsonl").read_bytes()
    again = later.model_copy(
        update={
            "spec": later.spec.model_copy(
                update={"evaluation": later.spec.evaluation.model_copy(update={"report": True})}
            )
        }
    )
    evaluate_training(again, make_session(tmp_path / "work4").session)

    found = measures_at(tmp_path / "late/evaluation/measures.jsonl")
    expected = measures_at(tmp_path / "measured/evaluation/metrics.jsonl")
    for late, told in zip(found, expected, strict=True):
        assert late.held_out == pytest.approx(told.held_out, rel=1e-4)
        assert late.training == pytest.approx(told.training, rel=1e-4)
        assert late.drift == pytest.approx(told.drift, rel=1e-3, abs=1e-9)
    assert (tmp_path / "late/evaluation/measures.jsonl").read_bytes() == kept
    assert json.loads(kept.splitlines()[0])["bestEpoch"]["heldOutPasses"] == 8
    assert "held-out" in (tmp_path / "late/evaluation/report.html").read_text()
