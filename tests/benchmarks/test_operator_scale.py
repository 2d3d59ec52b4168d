"""benchmarks/operator_scale.py: few trainings on the real thing, and that figures are what they are called."""

import asyncio
import json

import pytest

from benchmarks.fake_node import make_report
from benchmarks.operator_scale import Plan, Result, as_document, measure, percentiles, show
from benchmarks.scale_site import Place
from lora_api import ProgressReport
from lora_operator.observed import parse_report

COUNT = 2


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return asyncio.run(measure(Plan(COUNT), Place(run_seconds=0.1), tmp_path_factory.mktemp("scale")))


def test_every_training_has_one_job_and_few_writes(result: Result) -> None:
    assert result.calls["create jobs"] == COUNT
    assert result.writes <= 6 * COUNT
    assert result.throttled == 0


def test_trainings_and_bare_jobs_are_timed_alike(result: Result) -> None:
    for load in (result.trainings, result.floor):
        assert load.count == COUNT
        assert 0 < load.to_job["p50"] <= load.to_end["p50"] <= load.seconds
        assert load.cpu_seconds.keys() == {"operator", "cluster", "node", "client"}


def test_the_result_is_shown_and_written(result: Result) -> None:
    assert "time to Job p99, s" in show(result)
    assert json.loads(json.dumps(as_document(result)))["floor"]["count"] == COUNT


def test_a_percentile_is_the_value_that_so_many_do_not_exceed() -> None:
    found = percentiles([float(number) for number in range(200, 0, -1)])

    assert found == {"p50": 100, "p95": 190, "p99": 198, "most": 200}


def test_pods_of_pretence_tell_what_the_operator_understands() -> None:
    report = parse_report(json.dumps(make_report(1234)), ProgressReport)

    assert report.progress is not None
    assert (report.progress.step, len(report.checkpoints)) == (1234, 20)
