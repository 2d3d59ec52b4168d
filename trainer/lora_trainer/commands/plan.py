"""`lora plan`: what a training would do, without a model or a GPU."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lora_api.spec import LoraTraining
from lora_trainer.checks import check_training
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.options import Overrides, TrainingFile, WorkDir
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.data.placed import PlacedExample
from lora_trainer.plan import TrainingPlan
from lora_trainer.settings import Settings
from lora_trainer.sources import Fetcher, fetch_dataset, plan_dataset, truncation_warning


class OutputFormat(StrEnum):
    """How a command prints its answer."""

    TEXT = "text"
    JSON = "json"


def plan(
    file: TrainingFile,
    *,
    overrides: Overrides = None,
    output: Annotated[OutputFormat, typer.Option("--output", "-o", help="How to print it.")] = OutputFormat.TEXT,
    processes: Annotated[
        int | None, typer.Option(min=1, help="What a run with so many GPUs would do. Default: those of the file.")
    ] = None,
    work_dir: WorkDir = None,
) -> None:
    """Show pictures, captions, buckets, batches, steps and warnings of a training, without model or GPU."""
    with exit_with_code(of_training=True):
        training = load_training_file(file, overrides or ())
        settings = Settings.from_environment()
        settings = replace(settings, work_dir=work_dir or settings.work_dir)
        placed, derived = plan_training(training, settings, processes=processes)
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(to_document(derived, placed), indent=2, ensure_ascii=False))
    else:
        _print(Console(), training, derived)


def plan_training(
    training: LoraTraining, settings: Settings, *, processes: int | None = None
) -> tuple[tuple[PlacedExample, ...], TrainingPlan]:
    """The placed pictures and the plan of a training; fetches its dataset if it lies elsewhere.

    Raises:
        TrainingError: as checking, fetching, scanning, placing or planning says.
    """
    spec = training.spec
    check_training(training)
    sources = fetch_dataset(spec, Fetcher(spec, settings, lambda _: None))
    planned = plan_dataset(spec, sources, processes=processes)
    warning = truncation_warning(planned.scanned.examples, spec, _token_counter(spec.dataset.captions.weighted))
    warnings = planned.plan.warnings if warning is None else (*planned.plan.warnings, warning)
    return planned.pictures, replace(planned.plan, warnings=warnings)


def _token_counter(weighted: bool) -> Callable[[Sequence[str]], Sequence[int]]:
    # Here: transformers takes a second to import, and the other commands do without it.
    from lora_trainer.families.vocabulary import count_tokens  # noqa: PLC0415

    return partial(count_tokens, weighted=weighted)


def to_document(plan: TrainingPlan, placed: Sequence[PlacedExample]) -> dict[str, Any]:
    """The plan under the names of `status.plan`, without the limits of the API, and every picture."""
    document = plan.to_status().to_document()
    document["buckets"] = [summary.to_document() for summary in plan.bucket_summaries()]
    document["warnings"] = list(plan.warnings)
    document["heldOutImages"] = plan.held_out_images
    document["processes"] = plan.processes
    document["warmupSteps"] = plan.warmup_steps
    document["decaySteps"] = plan.decay_steps
    document["pictures"] = [_picture(one) for one in placed]
    return document


def _picture(placed: PlacedExample) -> dict[str, Any]:
    example, placement = placed.example, placed.placement
    return {
        "path": example.key,
        "widthPx": example.width_px,
        "heightPx": example.height_px,
        "bucket": list(placement.bucket),
        "resized": list(placement.resized),
        "crop": list(placement.crop),
        "cropLossPercent": round(100 * placement.crop_loss, 1),
        "caption": example.caption,
        "captionSource": example.caption_source,
        "repeats": example.repeats,
        "isRegularization": example.is_regularization,
        "isHeldOut": example.is_held_out,
    }


def _print(console: Console, training: LoraTraining, plan: TrainingPlan) -> None:
    factors = [str(plan.batch_size)]
    factors += [f"{plan.accumulation} batches a step"] if plan.accumulation > 1 else []
    factors += [f"{plan.processes} processes"] if plan.processes > 1 else []
    regularization = sum(bucket.regularization_samples for bucket in plan.buckets)
    console.print(f"[bold]{training.name}[/bold]")
    facts = Table.grid(padding=(0, 2))
    facts.add_row("pictures", f"{plan.images}, and {plan.regularization_images} for regularisation")
    if plan.held_out_images:
        facts.add_row("held out", f"{plan.held_out_images}, never trained on")
    facts.add_row("captions", f"{plan.captions_found} found, {plan.captions_missing} missing")
    facts.add_row("samples an epoch", f"{plan.samples_per_epoch}, {regularization} of them for regularisation")
    facts.add_row("batch size", " x ".join(factors))
    facts.add_row("batches an epoch", str(plan.batches_per_epoch))
    facts.add_row("steps", f"{plan.steps_per_epoch} an epoch, {plan.epochs} epochs, {plan.total_steps} in all")
    console.print(facts)
    console.print(_bucket_table(plan))
    for warning in plan.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False)


def _bucket_table(plan: TrainingPlan) -> Table:
    table = Table("bucket (px)", title_justify="left")
    for heading in ("pictures", "samples", "batches", "crop loss"):
        table.add_column(heading, justify="right")
    for bucket in plan.bucket_summaries():
        size = f"{bucket.width_px}x{bucket.height_px}"
        loss = f"{bucket.crop_loss_percent} %"
        table.add_row(size, str(bucket.images), str(bucket.samples), str(bucket.batches), loss)
    return table
