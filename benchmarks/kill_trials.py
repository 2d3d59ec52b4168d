"""Kills a training at random moments until it is done: the result must be that of a run that nobody disturbed.

    python -m benchmarks.kill_trials --trials 200 --seed 1
    python -m benchmarks.kill_trials --trials 50 --signal TERM

The training is examples/demo.yaml, shrunk so that it takes seconds: its base model, a few of its pictures at 64 px,
two epochs of three steps (batches of 2, accumulation 2), a warm-up of two steps, rank 4 with dropout, one sample of
three denoising steps, a state every two
steps beside that of every epoch; see `document`. The store is a SeaweedFS server on loopback. A trial is killed up to
three times, each time at a random moment of a stage drawn by lot, and then runs to its end. With KILL (SIGKILL to the
whole process group) adapters, pictures and metrics must be equal, bit by bit, to those of the undisturbed run, and
after each kill every manifest in the bucket must be true. With TERM it must besides end with exit code 75 within the
grace period, and no step may be lost. Any miss makes the exit code 1.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.bucket import Bucket, problems_of, results
from benchmarks.forked_training import ROOT, STAGES, Command, Ended, ForkServer, Moment, Stretch, stretches
from lora_demo.seaweed import ObjectStore, seaweed

BUCKET = "trials"
GRACE_SECONDS = 30
MOST_KILLS = 3
SIDE_BY_SIDE = 2
EMBLEMS, SHAPES = 6, 3
INTERRUPTED = 75
VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "plain": {},
    "workers": {"dataset": {"workers": 2, "latentCache": "Disk"}},
    "average": {"dataset": {"workers": 1, "latentCache": "None"}, "training": {"ema": {"decay": 0.9}}},
}
"""What a trial's training differs in; they take turns."""


@dataclass(frozen=True)
class Reference:
    """The undisturbed run of a variant."""

    results: Mapping[str, str]
    stretches: Sequence[Stretch]
    steps: int


@dataclass
class Trial:
    """What one trial showed."""

    name: str
    aims: list[Moment] = field(default_factory=list)
    starts: list[Ended] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def hits(self) -> list[str]:
        """What the training was doing when it was killed, one for each kill."""
        return [start.hit for start in self.starts if start.hit is not None]

    @property
    def resumed_from(self) -> list[int]:
        """Step from which each start but the first went on, as far as it came so far."""
        return [start.resumed_from for start in self.starts[1:] if start.resumed_from is not None]

    @property
    def lost_steps(self) -> list[int]:
        """Steps that each start but the first had to make again."""
        lost, made = [], 0
        for place, start in enumerate(self.starts):
            if start.resumed_from is not None and start.last_step is not None:
                lost += [made - start.resumed_from] if place else []
                made = start.last_step
        return lost

    @property
    def steps_made(self) -> int:
        """Steps that the newest start had behind it."""
        return next((start.last_step for start in reversed(self.starts) if start.last_step is not None), 0)


class Laboratory:
    """The store, the fork server and the folder in which trials are made."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        """Puts model and pictures into the store."""
        self._store, self._folder = store, folder
        self._bucket = Bucket(store, BUCKET)
        self._server = ForkServer()
        self._bucket.upload(ROOT / "tinybase" / "model", "models/tiny-sd")
        self._bucket.upload(_few_pictures(folder / "pictures"), "data/train")

    def reference(self, variant: str) -> Reference:
        """Runs a variant undisturbed. Raises RuntimeError if that fails."""
        trial = Trial(f"reference-{variant}")
        ended = self.start(trial, variant)
        content = self._bucket.content(f"runs/{trial.name}")
        if ended.exit_code or problems_of(content):
            raise RuntimeError(f"the undisturbed run failed: {self._log(trial)}")
        return Reference(results(content), stretches(ended.events), trial.steps_made)

    def trial(self, index: int, *, seed: int, number: signal.Signals, references: Mapping[str, Reference]) -> Trial:
        """Kills up to three times, then lets it end; the variants of `references` take turns."""
        variant = list(references)[index % len(references)]
        reference, lot = references[variant], random.Random(f"{seed} {index}")
        trial = Trial(f"{index:04}-{variant}")
        for _ in range(lot.randint(1, MOST_KILLS)):
            share_left = 1 - trial.steps_made / reference.steps
            trial.aims.append(draw_moment(lot, reference, share_left=share_left))
            ended = self.start(trial, variant, moment=trial.aims[-1], number=number)
            trial.problems += problems_of(self._bucket.content(f"runs/{trial.name}"))
            trial.problems += _problems_of_stop(ended) if number == signal.SIGTERM else []
            if ended.hit is None:
                break
        if trial.starts[-1].exit_code != 0:
            trial.problems += _problems_of_end(self.start(trial, variant))
        trial.problems += self._differences(trial, reference)
        if number == signal.SIGTERM and any(trial.lost_steps):
            trial.problems.append(f"steps were lost: {trial.lost_steps}")
        if trial.problems:
            trial.problems.append(f"the log ends with:\n{self._log(trial)}")
        else:
            shutil.rmtree(self._folder / trial.name)
        return trial

    def start(
        self, trial: Trial, variant: str, *, moment: Moment | None = None, number: signal.Signals = signal.SIGKILL
    ) -> Ended:
        """Starts the trial's training once more, in a new pod, as it were."""
        folder, attempt = self._folder / trial.name, len(trial.starts) + 1
        folder.mkdir(exist_ok=True)
        file = folder / "training.yaml"
        file.write_text(yaml.safe_dump(document(variant, self._store.endpoint, f"s3://{BUCKET}/runs/{trial.name}")))
        environment = {
            "AWS_ACCESS_KEY_ID": self._store.access_key,
            "AWS_SECRET_ACCESS_KEY": self._store.secret_key,
            "LORA_WORK_DIR": str(folder / f"work-{attempt}"),
            "LORA_ATTEMPT": str(attempt),
            "LORA_POD_NAME": f"{trial.name}-a{attempt}",
            "LORA_POD_UID": f"{trial.name}-{attempt}",
            "LORA_GRACE_SECONDS": str(GRACE_SECONDS),
        }
        command = Command(file, folder / "log", environment)
        trial.starts.append(self._server.run(command, moment=moment, number=number))
        shutil.rmtree(folder / f"work-{attempt}", ignore_errors=True)
        return trial.starts[-1]

    def _differences(self, trial: Trial, reference: Reference) -> list[str]:
        content = self._bucket.content(f"runs/{trial.name}")
        got = results(content)
        paths = sorted(got.keys() | reference.results.keys())
        other = [path for path in paths if got.get(path) != reference.results.get(path)]
        return problems_of(content) + [f"{path} is not that of the undisturbed run" for path in other]

    def _log(self, trial: Trial) -> str:
        return "\n".join((self._folder / trial.name / "log").read_text(errors="replace").splitlines()[-40:])


def document(variant: str, endpoint: str, output: str) -> dict[str, Any]:
    """The demo's LoraTraining, shrunk."""
    training: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "demo.yaml").read_text())
    small: dict[str, Any] = {
        "storage": {"endpoint": endpoint},
        "baseModel": {"uri": f"s3://{BUCKET}/models/tiny-sd"},
        "dataset": {
            "uri": f"s3://{BUCKET}/data/train",
            "resolution": 64,
            "buckets": {"minPx": 64, "maxPx": 128, "stepPx": 16},
            "workers": 0,
        },
        "optimizer": {"schedule": {"name": "cosine", "warmupSteps": 2}},
        "network": {"rank": 4, "alpha": 4, "dropout": 0.1},
        "training": {"epochs": 2, "batchSize": 2, "gradientAccumulationSteps": 2},
        "checkpoints": {"everySteps": 2},
        "samples": {"prompts": [{**training["spec"]["samples"]["prompts"][0], "steps": 3}]},
        "evaluation": {
            "bestEpoch": {"heldOutPasses": 8, "trainingPasses": 4, "driftPasses": 4},
            "grid": {"weights": [0.5, 1.0]},
        },
        "output": {"uri": output},
    }
    spec = training["spec"]
    for changes in (small, VARIANTS[variant]):
        for section, fields in changes.items():
            spec[section] = spec.get(section, {}) | fields
    return training


def draw_moment(lot: random.Random, reference: Reference, *, share_left: float) -> Moment:
    """A moment of a stage drawn by lot; occurrences and their length are those of the undisturbed run.

    A run that has only a share of its steps before it passes through each stage less often.
    """
    known = {stretch.stage for stretch in reference.stretches}
    stage = lot.choice([stage for stage in STAGES if stage in known])
    times = [stretch.seconds for stretch in reference.stretches if stretch.stage == stage]
    occurrence = lot.randint(1, max(1, round(len(times) * share_left)))
    return Moment(stage, occurrence, lot.uniform(0, times[occurrence - 1]))


def _few_pictures(target: Path) -> Path:
    """Some of the demo's pictures, each used once an epoch."""
    source = ROOT / "examples" / "demo" / "data" / "train"
    for folder, copy, count in (("5_zwx emblem", "1_zwx emblem", EMBLEMS), ("reg/1_shape", "reg/1_shape", SHAPES)):
        (target / copy).mkdir(parents=True)
        for picture in sorted((source / folder).glob("*.png"))[:count]:
            for file in (picture, picture.with_suffix(".txt")):
                shutil.copy(file, target / copy)
    return target


def _problems_of_stop(ended: Ended) -> list[str]:
    """Whether a start that was told to stop did so in time; one that was just done may end as completed."""
    if ended.hit is None:
        return []
    found = []
    if ended.exit_code not in (INTERRUPTED, 0):
        found.append(f"told to stop while {ended.hit}, it ended with exit code {ended.exit_code}")
    if ended.seconds_to_end > GRACE_SECONDS:
        found.append(f"told to stop while {ended.hit}, it took {ended.seconds_to_end:.0f} s")
    return found


def _problems_of_end(ended: Ended) -> list[str]:
    return [] if ended.exit_code == 0 else [f"the last start ended with exit code {ended.exit_code}"]


def one_line(trial: Trial) -> str:
    """What happened in a trial."""
    verdict = "; ".join(trial.problems) if trial.problems else "equal"
    return f"{trial.name}: killed {trial.hits}, resumed from {trial.resumed_from}, lost {trial.lost_steps}: {verdict}"


def table(trials: Sequence[Trial], number: signal.Signals, seconds: float) -> str:
    """All trials, as a person reads them."""
    aimed = Counter(aim.stage for trial in trials for aim in trial.aims)
    hits = Counter(hit for trial in trials for hit in trial.hits)
    resumed = Counter(step for trial in trials for step in trial.resumed_from)
    lost = [steps for trial in trials for steps in trial.lost_steps]
    slowest = max((start.seconds_to_end for trial in trials for start in trial.starts if start.hit), default=0.0)
    bad = [trial.name for trial in trials if trial.problems]
    lines = [
        f"{len(trials)} trials with {number.name} in {seconds:.0f} s, {sum(hits.values())} kills that hit",
        "",
        f"{'stage':12} {'aimed at':>9} {'hit':>5}",
        *(f"{stage:12} {aimed[stage]:9} {hits[stage]:5}" for stage in [*STAGES, *sorted(set(hits) - set(STAGES))]),
        "",
        "resumed from step: " + ", ".join(f"{step} ({count}x)" for step, count in sorted(resumed.items())),
        f"lost steps: {sum(lost)} in all, {max(lost, default=0)} at most",
        f"from the signal to the end: {slowest:.1f} s at most",
        f"mismatches: {len(bad)}" + (f" ({', '.join(bad)})" if bad else ""),
    ]
    return "\n".join(lines)


def run_trials(count: int, *, seed: int, number: signal.Signals, folder: Path) -> list[Trial]:
    """All trials, `SIDE_BY_SIDE` at a time, each told in a line; `folder` is empty."""
    (folder / "trials").mkdir()
    with seaweed(folder / "store", folder) as store, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        laboratory = Laboratory(store, folder / "trials")
        references = dict(zip(VARIANTS, pool.map(laboratory.reference, VARIANTS), strict=True))
        trials = []
        one = partial(laboratory.trial, seed=seed, number=number, references=references)
        for trial in pool.map(one, range(count)):
            print(one_line(trial), flush=True)
            trials.append(trial)
    return trials


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the trials and prints the table; 1 if any result differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    options = parser.parse_args(arguments)
    number, begin = signal.Signals[f"SIG{options.signal}"], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trials = run_trials(options.trials, seed=options.seed, number=number, folder=Path(folder))
    print(table(trials, number, time.monotonic() - begin))
    return int(any(trial.problems for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
