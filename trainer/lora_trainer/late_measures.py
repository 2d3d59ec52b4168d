"""Measures the epochs of a run that was trained without being measured, from its adapters; used by `evaluate`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from lora_api.evaluation_spec import Evaluation
from lora_api.run_manifest import ManifestFile
from lora_api.spec import LoraTrainingSpec
from lora_trainer.assembly import load_model, make_learner, make_residence, open_inputs
from lora_trainer.compute import make_accelerator
from lora_trainer.evaluation.measures import Measure, from_lines, to_line
from lora_trainer.lora.formats import read_adapter
from lora_trainer.measuring import make_bench, wanted_measure
from lora_trainer.prepare import Prepared, Session
from lora_trainer.results import MEASURES_PATH, METRICS_PATH, read_provenance
from lora_trainer.storage import DamagedFile, MissingFile, Store


def as_trained(spec: LoraTrainingSpec, store: Store) -> LoraTrainingSpec:
    """`spec` with the pictures held out that the run at `store` held out, whatever its evaluation says by now.

    An `evaluation` that was added later would hold out pictures that were trained on.
    """
    provenance = read_provenance(store)
    if provenance is None:
        return spec
    fraction = provenance.spec.get("dataset", {}).get("validationFraction", 0.0)
    dataset = spec.dataset.model_copy(update={"validation_fraction": fraction})
    # The default is that of a training that is measured; and it is too late to stop early.
    return spec.model_copy(update={"dataset": dataset, "evaluation": Evaluation()})


def measured_while_training(store: Store) -> tuple[Measure, ...]:
    """What the run at `store` has measured itself. Raises DamagedFile."""
    try:
        return from_lines(store.get_bytes(METRICS_PATH).decode().splitlines())[0]
    except MissingFile:
        return ()
    except ValueError as error:
        message = f"{store.uri_of(METRICS_PATH)} is damaged: {error}"
        cure = "Put back the file that manifest.json names; or delete it, and the adapters are measured anew."
        raise DamagedFile(message, hint=cure) from error


def heading(run_sha256: str, spec: LoraTrainingSpec) -> str:
    """First line of the file of late measures: they are used again as long as it stays the same."""
    best = wanted_measure(spec)
    wanted = best.to_document() if best is not None else None
    return json.dumps({"run": run_sha256, "bestEpoch": wanted}, sort_keys=True)


def lines_below(heading: str, store: Store) -> list[str]:
    """What an earlier evaluation has measured under the same heading; nothing where there is none."""
    try:
        first, *lines = store.get_bytes(MEASURES_PATH).decode().splitlines() or [""]
    except MissingFile:
        return []
    return lines if first == heading else []


def measure_epochs(
    prepared: Prepared,
    adapters: Mapping[int, ManifestFile],
    fetch: Callable[[ManifestFile], Path],
    session: Session,
) -> list[str]:
    """A line for the base model and for each epoch, as `metrics.jsonl` has them.

    Args:
        prepared: the run as it was trained.
        adapters: the adapter of each epoch.
        fetch: gives the local copy of an adapter.
        session: who is told, and may ask to stop.

    Raises:
        StopRequested: told to stop.
        TrainingError: as loading and encoding say.
    """
    spec = prepared.training.spec
    accelerator = make_accelerator(spec)
    learner = make_learner(load_model(prepared, accelerator.device, session), spec)
    residence = make_residence(learner.model, spec, accelerator.device)
    residence.settle()
    with open_inputs(prepared, residence, accelerator.autocast, session) as inputs:
        bench = make_bench(
            prepared,
            learner,
            inputs,
            autocast=accelerator.autocast,
            device=accelerator.device,
            on_batch=session.check_stop,
        )
        assert bench is not None, "asked to measure where nothing is measured"
        lines = [to_line(*bench.measure_base())]
        for epoch, file in adapters.items():
            session.say("Measuring", f"epoch {epoch}")
            with torch.no_grad():
                learner.adapters.load(read_adapter(fetch(file)))
            lines.append(to_line(bench.measure(epoch, file.step or 0)))
    return lines
