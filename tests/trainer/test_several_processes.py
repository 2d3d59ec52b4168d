"""Trainings by several processes, from the spec to the manifest; each process is a thread here, connected by gloo.

What is left is compared with what one process leaves that makes the same batches one after the other.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_api import LoraTraining
from lora_trainer.data.augment import Pixels, View
from lora_trainer.data.latents import EncodedOnDemand
from lora_trainer.errors import Interrupted, InvalidConfiguration, TrainingError
from lora_trainer.families.stable_diffusion import StableDiffusion
from lora_trainer.loop import Trainer
from lora_trainer.lora.formats import read_adapter
from lora_trainer.prepare import Session
from lora_trainer.run import run_training, train_in
from lora_trainer.settings import Address, Ranks
from lora_trainer.workshop import Workshop, set_up
from lora_trainer.world import World
from tests.support.company import raised, together
from tests.support.tiny_run import FEW_BLOCKS, make_session, make_training, write_pictures

CHANGES: dict[str, Any] = {
    "network": {"blocks": FEW_BLOCKS, "dropout": 0.1},
    "samples": {"prompts": []},
    "checkpoints": {"everySteps": 1},
    "training": {"epochs": 2, "batchSize": 2, "precision": "fp32", "seed": 3},
}
"""An epoch has 6 batches: 3 steps of 2 processes, or 2 steps of 4, and then two have no batch in the second."""
Work = Callable[[World, LoraTraining, Session], Any]
FINAL = "adapters/tiny.safetensors"


@dataclass
class Company:
    """Trains with several processes, again and again at the same output."""

    make: Callable[..., LoraTraining]
    folder: Path
    encoded: list[tuple[str, View]] = field(default_factory=list)
    """Which process encoded which view."""

    def training(self, processes: int, accumulation: int = 1, **changes: Any) -> LoraTraining:
        training = CHANGES["training"] | {"gradientAccumulationSteps": accumulation} | changes.get("training", {})
        sections = {"training": training, "parallelism": {"nodes": processes, "gpusPerNode": 0}}
        return self.make(self.folder / "out", **CHANGES | changes | sections)

    def session(self, rank: int, size: int, should_stop: Callable[[], bool] = lambda: False) -> Session:
        session = make_session(self.folder / f"work-{rank}", should_stop=should_stop).session
        ranks = Ranks(rank, size, rank, size, Address("127.0.0.1", 1))
        return replace(session, settings=replace(session.settings, ranks=ranks, cache_dir=self.folder / "cache"))

    def run(
        self, processes: int, work: Callable[[World, LoraTraining, Session], Any] = train_in, **changes: Any
    ) -> list[Any]:
        training, lock = self.training(processes, **changes), threading.Lock()

        def set_up_alone(*arguments: Any) -> Workshop:
            # Accelerate's loading replaces methods of torch for all threads; processes do not see that of each other.
            with lock:
                return set_up(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GLOO_SOCKET_IFNAME", "lo")
            for module in ("run", "follow"):
                patch.setattr(f"lora_trainer.{module}.set_up", set_up_alone)
            return together(processes, lambda world: work(world, training, self.session(world.rank, processes)))

    def run_alone(self, accumulation: int, **changes: Any) -> None:
        run_training(self.training(1, accumulation, **changes), self.session_alone())

    def session_alone(self) -> Session:
        return make_session(self.folder / "work-0").session

    @property
    def weights(self) -> dict[str, Tensor]:
        modules = read_adapter(self.folder / "out" / FINAL).modules
        return {name: module.delta for name, module in modules.items()}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        lines = (self.folder / "out" / "evaluation/metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "out" / "manifest.json").read_text())
        return found

    @property
    def content(self) -> dict[str, bytes]:
        folders = (self.folder / "out" / name for name in ("adapters", "evaluation"))
        return {path.name: path.read_bytes() for folder in folders for path in sorted(folder.glob("*.*"))}


def make_company(base: Path, data: Path, folder: Path) -> Company:
    return Company(lambda output, **changes: make_training(base, data, output, **changes), folder)


@pytest.fixture
def company(tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path) -> Callable[[str], Company]:
    def make(name: str) -> Company:
        return Company(
            lambda output, **changes: make_training(tiny_pipeline, tiny_pictures, output, **changes), tmp_path / name
        )

    return make


@pytest.fixture(scope="module")
def whole(tiny_pipeline: Path, tiny_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Company:
    """What two processes leave that nobody interrupts; read only."""
    folder = tmp_path_factory.mktemp("whole")
    made = make_company(tiny_pipeline, tiny_pictures, folder)
    inner = EncodedOnDemand.encode

    def encode(source: EncodedOnDemand, view: View, pixels: Pixels) -> Tensor:
        made.encoded.append((threading.current_thread().name, view))
        return inner(source, view, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncodedOnDemand, "encode", encode)
        patch.setattr("lora_trainer.assembly._SENT_AT_ONCE", 1)
        made.run(2)
    return made


def test_two_processes_leave_what_one_leaves_with_twice_the_accumulation(
    whole: Company, company: Callable[[str], Company]
) -> None:
    alone = company("alone")

    alone.run_alone(accumulation=2)

    assert_close(whole, alone)


def test_each_process_encodes_its_share_of_the_pictures(whole: Company) -> None:
    processes, views = zip(*whole.encoded, strict=True)

    assert len(set(processes)) == 2
    assert len(set(views)) == len(views)


def test_the_order_of_a_sum_of_more_than_two_changes_its_last_bits_only(company: Callable[[str], Company]) -> None:
    four, alone = company("four"), company("alone")

    four.run(4, training={"epochs": 1})
    alone.run_alone(accumulation=4, training={"epochs": 1})

    assert [line["step"] for line in four.metrics] == [1, 2]
    assert_close(four, alone)


def assert_close(one: Company, other: Company) -> None:
    """Losses and weights are equal but for the last bits: sums depend on their order, and on where numbers lie."""
    losses = [[line["loss"] for line in company.metrics] for company in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert one.weights.keys() == other.weights.keys()
    for name, delta in one.weights.items():
        torch.testing.assert_close(delta, other.weights[name], rtol=1e-2, atol=1e-5)


def interrupting(monkeypatch: pytest.MonkeyPatch, *, rank: int, step: int, what: Callable[[], bool]) -> None:
    """Lets `what` happen in one process before a batch of the step that follows `step` steps."""
    inner = Trainer.train_step

    def train_step(trainer: Trainer, batches: Any, inputs: Any, *, should_stop: Callable[[], bool]) -> None:
        is_there = trainer.world.rank == rank and trainer.step == step
        inner(trainer, batches, inputs, should_stop=what if is_there else should_stop)

    monkeypatch.setattr(Trainer, "train_step", train_step)


def test_told_to_stop_in_one_process_all_stop_at_the_same_step_and_go_on_to_the_same_bytes(
    whole: Company, company: Callable[[str], Company]
) -> None:
    stopped = company("stopped")

    def work(world: World, training: LoraTraining, session: Session) -> Exception | None:
        return raised(lambda: train_in(world, training, session))

    with pytest.MonkeyPatch.context() as patch:
        interrupting(patch, rank=1, step=4, what=lambda: True)
        errors = stopped.run(2, work)
    stopped.run(2)

    assert [type(error) for error in errors] == [Interrupted, Interrupted]
    assert all("told to stop at step 4" in str(error) for error in errors)
    assert stopped.content == whole.content


def test_when_a_process_is_lost_the_first_saves_what_is_there_and_all_go_on_to_the_same_bytes(
    whole: Company, company: Callable[[str], Company]
) -> None:
    broken, ends = company("broken"), {}

    def work(world: World, training: LoraTraining, session: Session) -> None:
        try:
            train_in(world, training, session)
        except TrainingError as error:
            ends[world.rank] = error

    def be_lost() -> bool:
        raise OSError("killed")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="killed"):
        interrupting(patch, rank=1, step=4, what=be_lost)
        broken.run(2, work)
    saved = sorted(path.name for path in (broken.folder / "out/state").glob("step-*"))
    broken.run(2)

    assert [type(ends[0]), str(ends[0]).split(";")[0]] == [Interrupted, "another process is lost at step 4"]
    assert saved[-1].startswith("step-4-")
    assert broken.content == whole.content


def test_where_one_device_has_too_little_memory_all_give_the_same_up(company: Callable[[str], Company]) -> None:
    tight, roomy = company("tight"), company("roomy")
    inner = StableDiffusion.predict

    def predict(model: StableDiffusion, noisy: Tensor, *arguments: Any) -> Tensor:
        if torch.is_grad_enabled() and len(noisy) > 1 and threading.current_thread().name == "member 1":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return inner(model, noisy, *arguments)

    changes: dict[str, Any] = {"training": {"maxSteps": 2}, "retry": {"onOutOfMemory": "Ladder"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StableDiffusion, "predict", predict)
        tight.run(2, **changes)
    roomy.run(2, **changes)

    assert [rung["name"] for rung in tight.manifest["memoryRungs"]] == ["HalfBatch"]
    for name, delta in tight.weights.items():
        torch.testing.assert_close(delta, roomy.weights[name], rtol=1e-2, atol=1e-5)


def test_a_state_goes_on_with_other_processes_where_the_batches_of_a_step_are_as_many(
    whole: Company, company: Callable[[str], Company]
) -> None:
    moved = company("moved")
    with pytest.MonkeyPatch.context() as patch:
        interrupting(patch, rank=1, step=3, what=lambda: True)
        moved.run(2, lambda world, training, session: raised(lambda: train_in(world, training, session)))

    moved.run_alone(accumulation=2)

    assert_close(moved, whole)


def test_a_state_of_more_or_fewer_batches_a_step_is_refused(company: Callable[[str], Company]) -> None:
    moved = company("moved")
    with pytest.MonkeyPatch.context() as patch:
        interrupting(patch, rank=0, step=3, what=lambda: True)
        moved.run(2, lambda world, training, session: raised(lambda: train_in(world, training, session)))

    error = raised(lambda: moved.run_alone(accumulation=1))

    assert isinstance(error, InvalidConfiguration)
    assert "spec.training.gradientAccumulationSteps x processes of spec.parallelism was 2 and is 1" in str(error)


def test_the_first_process_measures_and_draws_while_the_others_wait(company: Callable[[str], Company]) -> None:
    measured = company("measured")
    changes: dict[str, Any] = {
        "training": {"epochs": 1, "maxSteps": 2},
        "samples": {"prompts": [{"prompt": "zwx red shape", "steps": 2, "seed": 1}]},
        "dataset": {"latentCache": "Memory"},
        "evaluation": {"bestEpoch": {"by": "ValidationLoss"}},
    }

    ended = measured.run(2, **changes)

    assert [end.reason for end in ended] == ["Completed", "Completed"]
    assert ended[1].message == "process 1 made its part of 2 steps"
    assert {"tiny-sheet.png"} <= {path.name for path in (measured.folder / "out/samples").iterdir()}


def test_processes_that_find_other_pictures_do_not_train_together(
    company: Callable[[str], Company], tmp_path: Path
) -> None:
    mixed = company("mixed")
    other = write_pictures(tmp_path / "other")
    (other / "2_zwx shape" / "1.txt").write_text("other words")

    def work(world: World, training: LoraTraining, session: Session) -> object:
        if world.rank == 1:
            section = training.spec.dataset.model_copy(update={"uri": other.as_uri()})
            training = training.model_copy(update={"spec": training.spec.model_copy(update={"dataset": section})})
        return train_in(world, training, session)

    with pytest.raises(InvalidConfiguration, match=r"process 1 finds something else .*dataset_digest"):
        mixed.run(2, work)
