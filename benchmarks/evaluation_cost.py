"""What an evaluation costs: each kind of work of a whole training as a share of the time that the steps take.

    python benchmarks/evaluation_cost.py --epochs 3
    python benchmarks/evaluation_cost.py --file my.yaml --set training.batchSize=8

Runs the demo's training (or another one) with `evaluation` as the product does, and reads from the trainer's own
progress when it does what: no second clock inside the work. Measuring, sample pictures and steps are told per epoch,
grid and report once. On a CPU the measured epochs are alike, so a few are enough.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from lora_trainer.audience import Audience
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.metrics import TrainingMetrics
from lora_trainer.prepare import Session
from lora_trainer.progress import ProgressTracker
from lora_trainer.run import run_training
from lora_trainer.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
GRID = '{"weights": [0.5, 0.75, 1.0]}'


class Stopwatch(ProgressTracker):
    """Adds up the time of each kind of work, as the trainer tells it."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}
        self._doing, self._since = "Starting", time.monotonic()

    def set_reason(self, reason: str, message: str = "") -> None:
        """Ends what was being done and begins `reason`."""
        self.switch("Grid" if message.startswith("grid ") else reason)
        super().set_reason(reason, message)

    def switch(self, doing: str) -> None:
        """The same, without telling it."""
        now = time.monotonic()
        self.seconds[self._doing] = self.seconds.get(self._doing, 0.0) + now - self._since
        self._doing, self._since = doing, now


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the training and prints one JSON document."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder)), indent=2))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description="What an evaluation costs, as a share of the training.")
    parser.add_argument("--file", type=Path, default=ROOT / "examples" / "demo.yaml", help="a LoraTraining")
    parser.add_argument("--epochs", type=int, default=3, help="epochs that are trained and measured")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change a field of the spec")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of each kind of work, and shares of the steps' time."""
    changes = [
        f"baseModel.uri={(ROOT / 'tinybase' / 'model').as_uri()}",
        f"dataset.uri={(ROOT / 'examples' / 'demo' / 'data' / 'train').as_uri()}",
        f"output.uri={(folder / 'out').as_uri()}",
        f"training.epochs={options.epochs}",
        f"evaluation.grid={GRID}",
    ]
    training = load_training_file(options.file, [*changes, *options.set])
    watch = Stopwatch()
    audience = Audience(watch, TrainingMetrics(CollectorRegistry()), lambda _: None)
    settings = Settings(work_dir=folder / "work", cpu_threads=options.threads)
    ended = run_training(training, Session(settings, audience, lambda: False))
    watch.switch("Ended")
    report = watch.snapshot()
    return {
        "training": ended.message,
        "evaluation": report.evaluation.to_document() if report.evaluation else None,
        "cpus": os.cpu_count(),
        **shares(watch.seconds, options.epochs),
    }


def shares(seconds: dict[str, float], epochs: int) -> dict[str, Any]:
    """Seconds an epoch, and what measuring and pictures add to each second of steps."""
    steps = seconds["Training"]

    def share(kind: str) -> float:
        return round(seconds.get(kind, 0.0) / steps, 4)

    return {
        "seconds": {kind: round(value, 2) for kind, value in seconds.items()},
        "stepsSecondsPerEpoch": round(steps / epochs, 2),
        "measuringShareOfSteps": share("Measuring"),
        "samplesShareOfSteps": share("Sampling"),
        "gridShareOfSteps": share("Grid"),
        "restOfEvaluationShareOfSteps": share("Evaluating"),
    }


if __name__ == "__main__":
    main()
