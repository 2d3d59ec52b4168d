"""How fast a training step is, and where its time goes: any family at its real size, with random weights.

    python benchmarks/train_step.py --family sd15 --set dataset.resolution=768 --set network.rank=128
    python benchmarks/train_step.py --base tinybase/model --set parallelism.gpusPerNode=0 --set dataset.resolution=128

Nothing is downloaded. The spec is that of a LoraTraining with its defaults; `--set` changes any field of it. The
steps are those of the product: its loader and latent cache on a few pictures of noise at the resolution, its loop.
First come warm-up steps, which are not counted, then the measured ones without any waiting in between, then as many
again in which the device is waited for after each part: these give the shares. The answer is one JSON document.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from prometheus_client import CollectorRegistry

from lora_api.spec import LoraTraining
from lora_trainer.assembly import load_model, make_learner, make_residence, open_inputs
from lora_trainer.audience import Audience
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.compute import make_accelerator, peak_memory_bytes, prefer_determinism
from lora_trainer.conditioning import TextStates
from lora_trainer.data.loader import TrainingBatch
from lora_trainer.families.architectures import RandomWeights
from lora_trainer.families.opening import open_model
from lora_trainer.loop import Inputs, Trainer
from lora_trainer.metrics import TrainingMetrics
from lora_trainer.prepare import BaseFiles, Prepared, Session
from lora_trainer.progress import ProgressTracker
from lora_trainer.settings import Settings
from lora_trainer.sources import Fetcher, fetch_dataset, plan_dataset

PICTURES = 4
PARTS = ("data", "textEncoder", "unetForward", "backward", "optimizer")
CAPTION = "photo of zwx woman, red scarf, standing, garden"


@dataclass
class Stopwatch:
    """Seconds spent in each part, its inner parts not counted."""

    device: torch.device
    running: bool = False
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _inner: list[float] = field(default_factory=list)

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        """Counts what happens inside for `part`; waits for the device at both ends."""
        if not self.running:
            yield
            return
        synchronize(self.device)
        self._inner.append(0.0)
        begin = time.perf_counter()
        try:
            yield
        finally:
            synchronize(self.device)
            took = time.perf_counter() - begin
            self.seconds[part] += took - self._inner.pop()
            if self._inner:
                self._inner[-1] += took


def synchronize(device: torch.device) -> None:
    """Waits until the device has done everything it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Timed:
    """Something whose one method is measured; everything else is the thing's own."""

    inner: Any
    method: str
    part: str
    watch: Stopwatch

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if name != self.method:
            return value

        def measured(*arguments: Any, **named: Any) -> Any:
            with self.watch.measuring(self.part):
                return value(*arguments, **named)

        return measured


class TimedTrainer(Trainer):
    """The product's trainer, with a watch around the update."""

    watch: Stopwatch

    def _update(self) -> None:
        with self.watch.measuring("optimizer"):
            super()._update()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures one setting and prints the answer."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        training = load_training(options, Path(folder))
        settings = Settings(work_dir=Path(folder), cpu_threads=Settings.from_environment().cpu_threads)
        audience = Audience(ProgressTracker(), TrainingMetrics(CollectorRegistry()), lambda _: None)
        print(json.dumps(measure(training, Session(settings, audience, lambda: False), options), indent=2))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time training steps and their parts.")
    parser.add_argument("--family", choices=("sd15", "sd2", "sdxl"), default="sd15", help="random weights of this one")
    parser.add_argument("--base", type=Path, help="a real base model instead: a diffusers folder or .safetensors file")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="a field of the spec")
    parser.add_argument("--steps", type=int, default=20, help="measured steps")
    parser.add_argument("--warmup", type=int, default=5, help="steps before them that do not count")
    return parser.parse_args(arguments)


def load_training(options: argparse.Namespace, folder: Path) -> LoraTraining:
    """A LoraTraining of nothing but defaults and what `--set` says, and pictures for all its steps."""
    file, data = folder / "lora.yaml", folder / "data"
    file.write_text(
        "apiVersion: lora-operator.io/v1alpha1\nkind: LoraTraining\nmetadata: {name: benchmark}\nspec:\n"
        f"  baseModel: {{uri: hf://random/weights}}\n  dataset: {{uri: '{data.as_uri()}'}}\n"
        "  output: {uri: s3://random/nowhere}\n"
    )
    family = [] if options.base else [f"baseModel.family={options.family}"]
    training = load_training_file(file, [*family, *options.set])
    loop = training.spec.training
    samples = (options.warmup + 2 * options.steps) * loop.batch_size * loop.gradient_accumulation_steps
    write_pictures(data / f"{math.ceil(samples / PICTURES)}_zwx woman", training.spec.dataset.size_px)
    return training


def write_pictures(folder: Path, size: tuple[int, int]) -> None:
    """Captioned pictures of noise."""
    folder.mkdir(parents=True)
    for index in range(PICTURES):
        Image.effect_noise(size, 64).convert("RGB").save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(CAPTION)


def prepare(training: LoraTraining, session: Session, options: argparse.Namespace, device: torch.device) -> Prepared:
    """What the product knows before it loads a model, with random weights instead of fetched ones."""
    spec = training.spec
    files = open_model(options.base, spec.base_model) if options.base else RandomWeights(options.family, device)
    fetcher = Fetcher(spec, session.settings, lambda _: None)
    dataset = plan_dataset(spec, fetch_dataset(spec, fetcher))
    return Prepared(training, BaseFiles(files), dataset)


def measure(training: LoraTraining, session: Session, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one setting."""
    spec = training.spec
    accelerator = make_accelerator(spec)
    prefer_determinism(cpu_threads=session.settings.cpu_threads)
    watch = Stopwatch(accelerator.device)
    prepared = prepare(training, session, options, watch.device)
    model = load_model(prepared, watch.device, session)
    residence = make_residence(model, spec, watch.device)
    trainer = TimedTrainer(
        make_learner(Timed(model, "predict", "unetForward", watch), spec),  # type: ignore[arg-type]
        plan=prepared.dataset.plan,
        spec=spec,
        accelerator=Timed(accelerator, "backward", "backward", watch),  # type: ignore[arg-type]
    )
    trainer.watch = watch
    residence.settle()
    with open_inputs(prepared, residence, accelerator.autocast, session) as untimed:
        inputs = timed(untimed, watch)
        batches = inputs.steps(1, 0)
        run_steps(trainer, inputs, batches, 1)
        first = process_age()
        run_steps(trainer, inputs, batches, options.warmup - 1)
        seconds = run_steps(trainer, inputs, batches, options.steps)
        watch.running = True
        watched = run_steps(trainer, inputs, batches, options.steps)
    watch.seconds["rest"] = watched - sum(watch.seconds.values())
    return answer(training, options, trainer, seconds=seconds, first=first)


def process_age() -> float:
    """Seconds since this process began, so that imports count as well (Linux)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def timed(inputs: Inputs, watch: Stopwatch) -> Inputs:
    """The same inputs with a watch around waiting for a batch and around the text encoders."""

    def steps(epoch: int, made: int) -> Iterator[tuple[TrainingBatch, ...]]:
        batches = inputs.steps(epoch, made)
        while True:
            with watch.measuring("data"):
                step = next(batches)
            yield step

    def text(captions: Sequence[str]) -> TextStates:
        with watch.measuring("textEncoder"):
            return inputs.text(captions)

    return Inputs(steps, text)


def run_steps(trainer: Trainer, inputs: Inputs, batches: Iterator[tuple[TrainingBatch, ...]], count: int) -> float:
    """Seconds that `count` steps took."""
    synchronize(trainer.device)
    begin = time.perf_counter()
    for _ in range(count):
        trainer.train_step(next(batches), inputs, should_stop=lambda: False)
    synchronize(trainer.device)
    return time.perf_counter() - begin


def answer(
    training: LoraTraining, options: argparse.Namespace, trainer: TimedTrainer, *, seconds: float, first: float
) -> dict[str, Any]:
    """The figures as a JSON document."""
    device, watch, spec = trainer.device, trainer.watch, training.spec
    pictures = spec.training.batch_size * spec.training.gradient_accumulation_steps
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpuThreads": torch.get_num_threads(),
        "torch": torch.__version__,
        "model": str(options.base or f"{options.family}, random weights"),
        "resolution": "x".join(map(str, spec.dataset.size_px)),
        "settings": list(options.set),
        "trainedTensors": len(trainer.state().adapters),
        "measuredSteps": options.steps,
        "stepsPerSecond": round(options.steps / seconds, 4),
        "picturesPerSecond": round(options.steps * pictures / seconds, 4),
        "secondsToFirstStep": round(first, 2),
        "peakMemoryBytes": peak_memory_bytes(device),
        "shares": {part: round(spent / sum(watch.seconds.values()), 4) for part, spent in watch.seconds.items()},
    }


if __name__ == "__main__":
    main()
