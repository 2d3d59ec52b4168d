"""benchmarks/train_step.py: that it measures, and that its shares are shares."""

import json
from pathlib import Path

import pytest

from benchmarks import train_step
from tests.support.tiny_pipeline import write_tiny_pipeline


def test_a_step_is_timed_and_its_time_shared_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_tiny_pipeline(tmp_path / "base")
    settings = ["parallelism.gpusPerNode=0", "training.precision=fp32", "training.batchSize=2", "dataset.resolution=64"]

    train_step.main(
        ["--base", str(base), "--steps", "1", "--warmup", "1", *(f"--set={setting}" for setting in settings)]
    )

    answer = json.loads(capsys.readouterr().out)
    assert answer["stepsPerSecond"] > 0
    assert answer["picturesPerSecond"] == pytest.approx(2 * answer["stepsPerSecond"], rel=1e-2)
    assert answer["secondsToFirstStep"] > 0
    assert answer["peakMemoryBytes"] > 0
    assert sum(answer["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert min(answer["shares"][part] for part in ("textEncoder", "unetForward", "backward", "optimizer")) > 0
