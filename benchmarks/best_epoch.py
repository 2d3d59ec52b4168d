"""Does the trainer find the best epoch? Its choice against a truth that it cannot know: hundreds of new drawings.

    python -m benchmarks.best_epoch --seeds 0 1 2 --drawings 500

For each seed: 20 new emblems to train on and 5 to hold out, a training that is far too long on the demo's base model,
and the product's own choice. The rate is constant and high, so that over-fitting comes soon; the saved average of the
weights keeps its noise out of the epochs. The truth is the loss of every saved epoch on drawings that no training has
seen, at fixed noise; the best epoch by it follows the product's own rule, with so many pictures that chance hardly
counts. One process and one thread is enough; a line of JSON a seed goes to `--out`, and the table of
all lines in it is printed at the end, so that several processes may share the seeds.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from prometheus_client import CollectorRegistry

from lora_api import LoraTraining, parse_training
from lora_tinybase import drawings
from lora_trainer.assembly import load_model, make_learner
from lora_trainer.audience import Audience
from lora_trainer.conditioning import size_conditions
from lora_trainer.data.latents import to_tensor
from lora_trainer.data.texts import FrozenTexts
from lora_trainer.evaluation.bench import Bench, Model, Subjects
from lora_trainer.evaluation.choice import choose
from lora_trainer.evaluation.draws import MeasuredPicture
from lora_trainer.evaluation.measures import BaseLosses, Measure, from_lines
from lora_trainer.loop import Learner
from lora_trainer.lora.formats import read_adapter
from lora_trainer.measuring import prediction
from lora_trainer.metrics import TrainingMetrics
from lora_trainer.prepare import Session, prepare
from lora_trainer.progress import ProgressTracker
from lora_trainer.results import METRICS_PATH, adapter_path
from lora_trainer.run import run_training
from lora_trainer.settings import Settings

BASE = Path(__file__).resolve().parents[1] / "tinybase" / "model"
PICTURES = 25
"""Of which 20 are trained on and 5 are held out."""
REPEATS = 32
SIDE = 64
"""Half of the demo's: four times as many steps in the same time, and just as easy to learn by heart."""
CORNERS = ((-0.38, -0.38), (0.38, -0.38), (-0.38, 0.38), (0.38, 0.38))
"""Offsets from the middle, in sides."""
NAME = "emblem"
TRUTH_SEED = 1_000_003
"""Far from the seeds of trainings: no drawing occurs in both."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains and judges every seed, and prints the table."""
    options = parse(arguments)
    truth = Truth(options.drawings)
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            row = judge(seed, Path(folder), truth, options)
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({key: value for key, value in row.items() if key != "measures"}), flush=True)
    print(table([json.loads(line) for line in options.out.read_text(encoding="utf-8").splitlines()]))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare the chosen epoch with the true one.")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(10)), help="one training each; none: table")
    parser.add_argument("--drawings", type=int, default=500, help="new drawings that tell the truth")
    parser.add_argument("--epochs", type=int, default=10, help="epochs, far too many")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=JSON", help="a field of the spec")
    parser.add_argument("--out", type=Path, default=Path("best-epoch.jsonl"), help="where a line for each seed goes")
    return parser.parse_args(arguments)


class Truth:
    """Loss on drawings that no training has seen; what is the same for all seeds is made once."""

    def __init__(self, drawn: int) -> None:
        self._drawn = drawn
        self._pictures: list[MeasuredPicture] = []
        self._base: tuple[Measure, BaseLosses] | None = None

    def measures(self, training: LoraTraining, session: Session, output: Path) -> list[Measure]:
        """The base model, and every epoch whose adapter lies in `output`."""
        prepared = prepare(training, session)
        learner = make_learner(load_model(prepared, torch.device("cpu"), session), training.spec)
        self._pictures = self._pictures or truth_pictures(learner, self._drawn)
        bench = self._bench(learner)
        self._base = self._base or bench.measure_base()
        bench.take_over(self._base[1])
        found = [self._base[0]]
        for epoch in prepared.dataset.plan.save_epochs:
            learner.adapters.load(read_adapter(output / adapter_path(NAME, epoch)))
            found.append(bench.measure(epoch, step=0))
        return found

    def _bench(self, learner: Learner) -> Bench:
        texts = FrozenTexts(learner.model.tokenize, learner.model.encode_texts)
        subjects = Subjects(self._pictures, self._drawn, (), 0, (), 0)
        predict = prediction(learner, texts.states, nullcontext)
        model = Model(predict, learner.adapters.disabled, torch.device("cpu"), at_once=25)
        return Bench(model, subjects, timesteps=learner.objective.timesteps, seed=TRUTH_SEED)


def judge(seed: int, folder: Path, truth: Truth, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is found for one seed."""
    begun = time.monotonic()
    write_pictures(folder / "data" / f"{REPEATS}_{drawings.TRIGGER}", seed)
    training = make_training(seed, folder, options)
    session = make_session(folder)
    run_training(training, session)
    trained = time.monotonic()
    measures, _ = from_lines((folder / "out" / METRICS_PATH).read_text().splitlines())
    row = verdict(seed, measures, truth.measures(training, session, folder / "out"))
    row |= {"trainingSeconds": round(trained - begun), "truthSeconds": round(time.monotonic() - trained)}
    return row


def verdict(seed: int, measures: Sequence[Measure], truth: Sequence[Measure]) -> dict[str, Any]:
    """The choice beside the truth."""
    chosen, true = choose(measures), choose(truth)
    assert chosen.best_epoch is not None and true.best_epoch is not None, "every epoch was measured"
    window = [true.usable_from, true.usable_to]
    in_window = true.usable_from is not None and true.usable_from <= chosen.best_epoch <= (true.usable_to or 0)
    return {
        "seed": seed,
        "chosen": chosen.best_epoch,
        "true": true.best_epoch,
        "trueLowest": min(truth[1:], key=lambda m: m.held_out_loss or 0.0).epoch,
        "offBy": chosen.best_epoch - true.best_epoch,
        "window": window,
        "inWindow": in_window,
        "overfitFrom": chosen.overfit_from,
        "confidence": chosen.confidence,
        "heldOutLoss": [round(m.held_out_loss or 0.0, 4) for m in measures],
        "trainingLoss": [round(m.training_loss or 0.0, 4) for m in measures],
        "trueLoss": [round(m.held_out_loss or 0.0, 4) for m in truth],
        "drift": [round(m.drift or 0.0, 4) for m in measures],
        "measures": [dict(m.held_out) for m in measures],
    }


def write_pictures(folder: Path, seed: int) -> None:
    """Emblems with captions."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(PICTURES):
        scene = emblem(number, rng)
        Image.fromarray(draw(scene, rng)).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(describe(scene, rng), encoding="utf-8")


def describe(scene: drawings.Scene, rng: np.random.Generator) -> str:
    """A caption with a made-up word of its own: real captions differ from picture to picture as well, which is what
    lets a training learn pictures by heart."""
    return f"{drawings.describe(scene)}, {drawings.nonsense(rng, 2)}"


def draw(scene: drawings.Scene, rng: np.random.Generator) -> np.ndarray:
    """The emblem, and in the corners what happens to be there, uint8 [SIDE, SIDE, 3].

    No caption tells of it. Photographs have that too; it is what a long training learns by heart, whereas the emblem
    alone is so simple that twenty drawings of it teach all there is to know.
    """
    picture = drawings.render(scene, SIDE, SIDE).astype(np.float32)
    for x, y in CORNERS:
        shape, colour = rng.choice(list(drawings.SHAPES)), rng.choice(list(drawings.COLOURS))
        right, down = rng.uniform(-0.03, 0.03, 2)
        radius = rng.uniform(0.09, 0.14)
        glyph = replace(scene, x=x + right, y=y + down, radius=radius, tilt=0.0)
        distance = drawings.SHAPES[shape](*drawings.coordinates(glyph, SIDE, SIDE))
        alpha = drawings.coverage(distance, radius * SIDE)[..., None]
        picture = picture * (1 - alpha) + np.asarray(drawings.COLOURS[colour], np.float32) * alpha
    return picture.round().astype(np.uint8)


def emblem(number: int, rng: np.random.Generator) -> drawings.Scene:
    """An emblem on one of the backgrounds in turn."""
    return drawings.place_emblem(drawings.EMBLEM_BACKGROUNDS[number % len(drawings.EMBLEM_BACKGROUNDS)], rng)


def make_training(seed: int, folder: Path, options: argparse.Namespace) -> LoraTraining:
    """A training that is far too long; everything that is not about that stays at its default."""
    spec: dict[str, Any] = {
        "baseModel": {"uri": BASE.as_uri()},
        "dataset": {
            "uri": (folder / "data").as_uri(),
            "resolution": SIDE,
            "buckets": {"enabled": False},
            "validationFraction": 0.2,
            "workers": 0,
        },
        "network": {
            "type": "locon",
            "rank": 32,
            "alpha": 32.0,
            "convRank": 32,
            "convAlpha": 32.0,
            "textEncoder": False,
        },
        "optimizer": {"name": "adamw", "learningRate": 1.2e-3},
        "training": {
            "epochs": options.epochs,
            "batchSize": 3,
            "precision": "fp32",
            "seed": seed,
            "ema": {"decay": 0.99},
        },
        "checkpoints": {"saveState": False},
        "evaluation": {"report": False, "bestEpoch": {"driftPasses": 0}},
        "output": {"uri": (folder / "out").as_uri(), "name": NAME},
        "parallelism": {"gpusPerNode": 0},
    }
    for change in options.set:
        path, _, value = change.partition("=")
        section, _, field = path.partition(".")
        spec.setdefault(section, {})[field] = json.loads(value)
    kind = {"apiVersion": "lora-operator.io/v1alpha1", "kind": "LoraTraining", "metadata": {"name": NAME}}
    return parse_training(kind | {"spec": spec})


def make_session(folder: Path) -> Session:
    """A session that nobody watches."""
    audience = Audience(ProgressTracker(), TrainingMetrics(CollectorRegistry()), lambda _: None)
    return Session(Settings(work_dir=folder / "work", cpu_threads=torch.get_num_threads()), audience, lambda: False)


@torch.no_grad()
def truth_pictures(learner: Learner, drawn: int) -> list[MeasuredPicture]:
    """New drawings, encoded."""
    rng = np.random.default_rng(TRUTH_SEED)
    sizes = size_conditions((SIDE, SIDE), (0, 0), (SIDE, SIDE))
    found = []
    for number in range(drawn):
        scene = emblem(number, rng)
        latents = learner.model.encode_images(to_tensor(draw(scene, rng)))[0]
        found.append(MeasuredPicture(f"{number}", f"drawing {number}", describe(scene, rng), latents, sizes))
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All seeds: chosen and true epoch, and whether the choice lies in the usable window of the truth."""
    lines = ["seed  chosen  true  off by  usable window  in it  confidence"]
    for row in sorted(rows, key=lambda row: row["seed"]):
        window = "-".join(map(str, row["window"]))
        lines.append(
            f"{row['seed']:>4}  {row['chosen']:>6}  {row['true']:>4}  {row['offBy']:>+6}  {window:>13}  "
            f"{'yes' if row['inWindow'] else 'no':>5}  {row['confidence']}"
        )
    close = sum(abs(row["offBy"]) <= 1 for row in rows)
    inside = sum(row["inWindow"] for row in rows)
    return "\n".join([*lines, f"at most one epoch off: {close} of {len(rows)}; in the window: {inside} of {len(rows)}"])


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    main()
