"""Trainings that a GPU with too little memory interrupts: what they give up, and what they still lead to.

Memory is refused by a model that takes no more than so many examples at once while gradients are kept, and by an
optimizer that cannot make its step.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_api import LoraTraining, RunManifest
from lora_trainer.errors import Interrupted, OutOfMemory, Superseded
from lora_trainer.families.stable_diffusion import StableDiffusion
from lora_trainer.lora.formats import read_adapter
from lora_trainer.output import RunOutput
from lora_trainer.run import run_training
from lora_trainer.storage.directory_store import DirectoryStore
from lora_trainer.storage.fence import OWNER_KEY, Fence
from tests.support.tiny_run import FEW_BLOCKS, Observed, make_session, make_session_until, make_training

Predict = Callable[..., torch.Tensor]


def full() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore words")


@contextmanager
def refusing(fits: Callable[[StableDiffusion, int], bool]) -> Iterator[None]:
    """A device on which a forward pass with gradients only `fits` for some models and numbers of examples."""
    inner: Predict = StableDiffusion.predict

    def predict(model: StableDiffusion, noisy: torch.Tensor, *arguments: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and not fits(model, len(noisy)):
            raise full()
        return inner(model, noisy, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StableDiffusion, "predict", predict)
        yield


@pytest.fixture
def training(tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path) -> Callable[..., LoraTraining]:
    """Four steps in two epochs, batches of 4, no pictures."""

    def make(folder: str = "out", **changes: Any) -> LoraTraining:
        sections: dict[str, Any] = {
            "network": {"blocks": FEW_BLOCKS},
            "training": {"epochs": 2, "batchSize": 4, "precision": "fp32", "seed": 3, "maxSteps": 4},
            "samples": {"prompts": []},
            "retry": {"onOutOfMemory": "Ladder"},
        }
        return make_training(tiny_pipeline, tiny_pictures, tmp_path / folder, **(sections | changes))

    return make


def rungs_of(observed: Observed) -> list[tuple[str, int]]:
    return [(rung.name, rung.step) for rung in observed.tracker.snapshot().memory_rungs]


def manifest_of(folder: Path) -> RunManifest:
    return RunManifest.model_validate_json((folder / "manifest.json").read_text())


def test_a_batch_that_does_not_fit_is_trained_in_pieces_to_the_same_adapter(
    training: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    observed = make_session(tmp_path / "work")
    run_training(training("roomy"), make_session(tmp_path / "work-roomy").session)

    with refusing(lambda _, examples: examples <= 1):
        ended = run_training(training(), observed.session)

    manifest, roomy = manifest_of(tmp_path / "out"), manifest_of(tmp_path / "roomy")
    assert ended.reason == "Completed"
    assert rungs_of(observed) == [("HalfBatch", 0), ("HalfBatch", 0)]
    assert [rung.name for rung in manifest.memory_rungs] == ["HalfBatch", "HalfBatch"]
    assert (manifest.step, manifest.spec_digest) == (roomy.step, roomy.spec_digest)
    ours, theirs = (load_file(tmp_path / place / "adapters/tiny.safetensors") for place in ("out", "roomy"))
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


def test_steps_after_the_newest_state_are_made_again(training: Callable[..., LoraTraining], tmp_path: Path) -> None:
    """The optimizer runs out of memory in the third step; one in 8-bit form does not."""
    observed, calls, step = make_session(tmp_path / "work"), [], torch.optim.AdamW.step

    def refuse_third(optimizer: torch.optim.AdamW, *arguments: Any, **named: Any) -> Any:
        calls.append(optimizer)
        if len(calls) >= 3:
            raise full()
        return step(optimizer, *arguments, **named)

    def publish_at_once(output: RunOutput, *arguments: Any, **named: Any) -> None:
        publish(output, *arguments, **named)
        output.wait()

    publish = RunOutput.publish_state
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", refuse_third)
        # A state is passed over while the one before is on its way; the second has to be there.
        patch.setattr(RunOutput, "publish_state", publish_at_once)
        chosen = {
            "epochs": 4,
            "batchSize": 1,
            "precision": "fp32",
            "seed": 3,
            "maxSteps": 4,
            "gradientCheckpointing": True,
        }
        run_training(training(training=chosen, checkpoints={"everySteps": 1}), observed.session)

    assert rungs_of(observed) == [("EightBitOptimizer", 2)]
    assert observed.tracker.snapshot().resumed_from_step == 2
    metadata = read_adapter(tmp_path / "out/adapters/tiny.safetensors").metadata
    assert metadata["ss_optimizer"].startswith("bitsandbytes.optim.adamw.AdamW8bit")


def test_gradient_checkpointing_is_told_in_the_metadata_though_the_user_did_not_ask_for_it(
    training: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    observed = make_session(tmp_path / "work")

    with refusing(lambda model, _: bool(model.unet.is_gradient_checkpointing)):
        run_training(training(), observed.session)

    assert [name for name, _ in rungs_of(observed)] == ["HalfBatch", "HalfBatch", "GradientCheckpointing"]
    metadata = read_adapter(tmp_path / "out/adapters/tiny.safetensors").metadata
    assert metadata["ss_gradient_checkpointing"] == "True"


def test_the_next_start_begins_with_what_was_given_up(training: Callable[..., LoraTraining], tmp_path: Path) -> None:
    with refusing(lambda _, examples: examples <= 2), pytest.raises(Interrupted):
        run_training(training(), make_session_until(tmp_path / "work", step=1).session)
    observed, seen = make_session(tmp_path / "work"), set()

    with refusing(lambda _, examples: seen.add(examples) is None):
        run_training(training(), observed.session)

    assert rungs_of(observed) == [("HalfBatch", 0)]
    assert max(seen) == 2


def test_the_end_of_the_ladder_is_an_error_that_says_what_was_tried(
    training: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    with refusing(lambda *_: False), pytest.raises(OutOfMemory) as caught:
        run_training(training(optimizer={"name": "lion8bit", "learningRate": 1e-3}), make_session(tmp_path).session)

    assert str(caught.value) == (
        "the GPU has too little memory for a step: CUDA out of memory. Tried to allocate 2.00 GiB.; "
        "the ladder has ended, it gave up HalfBatch, HalfBatch, GradientCheckpointing"
    )


def test_without_the_ladder_the_first_step_that_does_not_fit_ends_the_training(
    training: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    with refusing(lambda *_: False), pytest.raises(OutOfMemory) as caught:
        run_training(training(retry={"onOutOfMemory": "Fail"}), make_session(tmp_path / "work").session)

    assert "too little memory for a step" in str(caught.value)
    assert caught.value.hint.endswith("Or set retry.onOutOfMemory: Ladder.")


def test_memory_that_pictures_lack_is_no_rung_and_the_stage_is_named(
    training: Callable[..., LoraTraining], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise full()

    monkeypatch.setattr("lora_trainer.drawing.Painter.draw", refuse)
    samples = {"prompts": [{"prompt": "zwx red shape", "steps": 2}]}

    with pytest.raises(OutOfMemory, match=r"too little memory \(Sampling\): CUDA out of memory"):
        run_training(training(samples=samples), make_session(tmp_path / "work").session)


def test_a_process_that_was_superseded_does_not_take_the_output_back(
    training: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    output = DirectoryStore(tmp_path / "out", "file:///out", on_bytes=lambda _: None)

    def fits(_: StableDiffusion, __: int) -> bool:
        owner = json.loads(output.get_bytes(OWNER_KEY))
        Fence.acquire(output, owner=owner["owner"], attempt=owner["attempt"], pod="successor")
        return False

    with refusing(fits), pytest.raises(Superseded):
        run_training(training(), make_session(tmp_path / "work").session)

    assert json.loads(output.get_bytes(OWNER_KEY))["pod"] == "successor"
