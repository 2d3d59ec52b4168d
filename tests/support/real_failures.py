"""Failures as the trainer's own code raises them, and the last words that it would leave."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from botocore.exceptions import ClientError, EndpointConnectionError

from lora_api import ExitCode, outcome_of
from lora_api.cluster_spec import Storage
from lora_api.dataset_spec import Dataset
from lora_trainer import run
from lora_trainer.commands.session import describe_crash
from lora_trainer.data.dataset import DatasetSources, scan
from lora_trainer.errors import BaseModelUnavailable, TrainingError
from lora_trainer.loop import Trainer
from lora_trainer.progress import ProgressTracker
from lora_trainer.settings import Settings
from lora_trainer.storage import Connection, Source, fetch
from lora_trainer.storage.s3_errors import s3_errors
from lora_trainer.watchdog import Watchdog, Watched
from tests.support.fake_hub import fake_hub
from tests.support.pictures import write_picture

_LOG = "INFO step 5/10\nERROR {message}"
_CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.78 GiB of which 1.10 GiB is free."
)


def last_words(folder: Path) -> dict[str, str]:
    """The termination message of each failure, by its name."""
    raised = {
        "broken picture": lambda: _scan_broken_picture(folder / "pictures"),
        "gated model": lambda: _fetch_model("hf://owner/gated", folder / "gated"),
        "missing model": lambda: _fetch_model("hf://owner/nothing", folder / "missing"),
        "access denied": lambda: _read_pictures(_denial()),
        "store unreachable": lambda: _read_pictures(EndpointConnectionError(endpoint_url="https://s3.example.com")),
        "device memory": _run_out_of_device_memory,
        "diverged": _diverge,
    }
    words = {name: _word_of(_caught(action)) for name, action in raised.items()}
    return words | {"stalled": _stalled(), "crashed": _crashed()}


def _caught(action: Callable[[], object]) -> TrainingError:
    with pytest.raises(TrainingError) as caught:
        action()
    return caught.value


def _word_of(error: TrainingError) -> str:
    return _word(error.exit_code, error.reason, str(error), error.hint)


def _word(code: int, reason: str, message: str, hint: str) -> str:
    log = _LOG.format(message=message)
    word = ProgressTracker().termination(code, reason=reason, message=message, hint=hint, log_tail=log)
    return json.dumps(json.loads(word.to_bytes()) | {"step": 5})


def _scan_broken_picture(folder: Path) -> None:
    write_picture(folder / "50_hina" / "a.png")
    (folder / "50_hina" / "broken.png").write_bytes(b"no picture")
    scan(DatasetSources(root=folder), Dataset(uri="s3://lora/TrainData"))


def _fetch_model(uri: str, folder: Path) -> None:
    source = Source(uri, "spec.baseModel.uri", BaseModelUnavailable, ("*.json",))
    with fake_hub() as hub, pytest.MonkeyPatch.context() as patch:
        hub.repositories, hub.gated = {"owner/gated": {"model_index.json": b"{}"}}, {"owner/gated"}
        api = huggingface_hub.HfApi(endpoint=hub.endpoint)
        download = functools.partial(huggingface_hub.snapshot_download, endpoint=hub.endpoint)
        patch.setattr(huggingface_hub, "snapshot_download", download)
        patch.setattr(huggingface_hub, "repo_info", api.repo_info)
        fetch(source, folder, Connection(Storage(), Settings(work_dir=folder)), on_bytes=lambda _: None, workers=1)


def _denial() -> ClientError:
    answer = {"Error": {"Code": "AccessDenied", "Message": "Access Denied."}}
    return ClientError({**answer, "ResponseMetadata": {"HTTPStatusCode": 403}}, "ListObjectsV2")  # type: ignore[typeddict-item]


def _read_pictures(error: Exception) -> None:
    with s3_errors("read", place="s3://lora/TrainData", field="spec.dataset.uri"):
        raise error


def _run_out_of_device_memory() -> None:
    def allocate(*_: object) -> None:
        raise torch.OutOfMemoryError(_CUDA)

    tracker = ProgressTracker()
    tracker.set_reason("Training", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "check_training", allocate)
        session = SimpleNamespace(audience=SimpleNamespace(tracker=tracker))
        run.run_training(SimpleNamespace(spec=None), session)  # type: ignore[arg-type]


def _diverge() -> None:
    here = SimpleNamespace(step=5, plan=SimpleNamespace(total_steps=10))
    Trainer._check_finite(here, float("nan"))  # type: ignore[arg-type]


def _stalled() -> str:
    ends: list[tuple[ExitCode, str]] = []
    watched = Watched(
        silence_seconds=lambda: 1801.0,
        patience_seconds=lambda: 900.0,
        is_overdue=lambda: False,
        on_silence=lambda _: None,
        on_end=lambda code, sentence: ends.append((code, sentence)),
    )
    watchdog = Watchdog(watched, end=lambda _: None)
    watchdog.look()
    watchdog.look()
    ((code, sentence),) = ends
    return _word(code, outcome_of(code).reason, sentence, outcome_of(code).hint)


def _crashed() -> str:
    try:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    except RuntimeError as error:
        return _word(1, outcome_of(1).reason, describe_crash(error), outcome_of(1).hint)
    raise AssertionError("torch multiplied matrices that do not fit")
