"""How fast a training step is, and where its time goes: any family at its real size, with random weights.

    python benchmarks/train_step.py --family sd15 --set dataset.resolution=768 --set network.rank=128
    python benchmarks/train_step.py --base tinybase/model --set parallelism.gpusPerNode=0 --set dataset.resolution=128

Nothing is downloaded. The spec is that of a LoraTraining with its defaults; `--set` changes any field of it. The
steps are those of the product's own loop on random latents of the resolution's size, with captions of ten words.
First come warm-up steps, which are not counted, then the measured ones without any waiting in between, then as many
again in which the device is waited for after each part: these give the shares. The answer is one JSON document.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lora_api.spec import LoraTrainingSpec
from lora_trainer.assembly import make_learner
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.compute import DTYPES, make_accelerator, peak_memory_bytes, prefer_determinism
from lora_trainer.conditioning import TextStates, size_conditions
from lora_trainer.data.loader import TrainingBatch
from lora_trainer.families import architectures, catalogue
from lora_trainer.families.base import BaseModel
from lora_trainer.loop import Inputs, Trainer
from lora_trainer.plan import PlannedPicture, derive_plan
from lora_trainer.settings import Settings

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
        spec = load_spec(options, Path(folder))
    print(json.dumps(measure(spec, options), indent=2))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time training steps and their parts.")
    parser.add_argument("--family", choices=("sd15", "sd2", "sdxl"), default="sd15", help="random weights of this one")
    parser.add_argument("--base", type=Path, help="a real base model instead: a diffusers folder or .safetensors file")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="a field of the spec")
    parser.add_argument("--steps", type=int, default=20, help="measured steps")
    parser.add_argument("--warmup", type=int, default=5, help="steps before them that do not count")
    return parser.parse_args(arguments)


def load_spec(options: argparse.Namespace, folder: Path) -> LoraTrainingSpec:
    """A LoraTraining's spec of nothing but defaults, and what `--set` says."""
    file = folder / "lora.yaml"
    file.write_text(
        "apiVersion: lora-operator.io/v1alpha1\nkind: LoraTraining\nmetadata: {name: benchmark}\nspec:\n"
        "  baseModel: {uri: hf://random/weights}\n  dataset: {uri: s3://random/latents}\n"
        "  output: {uri: s3://random/nowhere}\n"
    )
    overrides = [f"baseModel.family={options.family}", *options.set]
    return load_training_file(file, overrides).spec


def measure(spec: LoraTrainingSpec, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one setting."""
    accelerator = make_accelerator(spec)
    prefer_determinism(cpu_threads=Settings.from_environment().cpu_threads)
    device: torch.device = accelerator.device
    watch = Stopwatch(device)
    model = load_model(spec, options, device)
    planned = [PlannedPicture(0, spec.dataset.size_px, repeats=10_000_000)]
    plan = derive_plan(planned, spec)
    learner = make_learner(Timed(model, "predict", "unetForward", watch), spec)  # type: ignore[arg-type]
    trainer = TimedTrainer(
        learner,
        plan=plan,
        spec=spec,
        accelerator=Timed(accelerator, "backward", "backward", watch),  # type: ignore[arg-type]
    )
    trainer.watch = watch
    inputs = make_inputs(model, spec, watch)
    batches = inputs.steps(1, 0)
    run_steps(trainer, inputs, batches, 1)
    first = process_age()
    run_steps(trainer, inputs, batches, options.warmup - 1)
    seconds = run_steps(trainer, inputs, batches, options.steps)
    watch.running = True
    watched = run_steps(trainer, inputs, batches, options.steps)
    watch.seconds["rest"] = watched - sum(watch.seconds.values())
    return answer(spec, options, trainer, seconds=seconds, first=first)


def process_age() -> float:
    """Seconds since this process began, so that imports count as well (Linux)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def load_model(spec: LoraTrainingSpec, options: argparse.Namespace, device: torch.device) -> BaseModel:
    """The model to train: real architecture and random weights, or the one in `--base`."""
    reading = {
        "precision": DTYPES[spec.training.precision],
        "clip_skip": spec.base_model.clip_skip,
        "max_tokens": spec.dataset.captions.max_tokens,
    }
    if options.base is not None:
        model: BaseModel = catalogue.load(options.base, device, **reading)
    else:
        model = architectures.random_model(options.family, device, **reading)
    if spec.training.gradient_checkpointing:
        model.checkpoint_gradients()
    if spec.training.attention == "xformers":
        model.use_xformers()
    return model


def make_inputs(model: BaseModel, spec: LoraTrainingSpec, watch: Stopwatch) -> Inputs:
    """Random latents of the resolution's size, the same caption every time."""
    cell, batch_size = model.pixels_per_latent, spec.training.batch_size
    width, height = spec.dataset.size_px
    shape = (batch_size, model.latent_channels, height // cell, width // cell)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(watch.device)
    sizes = size_conditions((width, height), (0, 0), (width, height)).expand(batch_size, 6)
    batch = TrainingBatch(
        latents=latents,
        captions=(CAPTION,) * batch_size,
        weights=torch.ones(batch_size),
        masks=None,
        from_base=torch.zeros(batch_size, dtype=torch.bool),
        sizes=sizes,
    )
    encode = text_source(model, spec, watch.device)

    def steps(_: int, __: int) -> Iterator[tuple[TrainingBatch, ...]]:
        while True:
            with watch.measuring("data"):
                batches = (batch,) * spec.training.gradient_accumulation_steps
            yield batches

    def text(captions: Sequence[str]) -> TextStates:
        with watch.measuring("textEncoder"):
            return encode(captions)

    return Inputs(steps, text)


def text_source(
    model: BaseModel, spec: LoraTrainingSpec, device: torch.device
) -> Callable[[Sequence[str]], TextStates]:
    """Encoded anew each time if a text encoder is trained, else once."""
    if spec.network.text_encoder:
        return lambda captions: model.encode_texts(model.tokenize(captions).to(device))
    with torch.no_grad():
        states = model.encode_texts(model.tokenize([CAPTION] * spec.training.batch_size).to(device))
    return lambda _: states


def run_steps(trainer: Trainer, inputs: Inputs, batches: Iterator[tuple[TrainingBatch, ...]], count: int) -> float:
    """Seconds that `count` steps took."""
    synchronize(trainer.device)
    begin = time.perf_counter()
    for _ in range(count):
        trainer.train_step(next(batches), inputs, should_stop=lambda: False)
    synchronize(trainer.device)
    return time.perf_counter() - begin


def answer(
    spec: LoraTrainingSpec, options: argparse.Namespace, trainer: TimedTrainer, *, seconds: float, first: float
) -> dict[str, Any]:
    """The figures as a JSON document."""
    device, watch, training = trainer.device, trainer.watch, spec.training
    pictures = training.batch_size * training.gradient_accumulation_steps
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
