"""What is made of a run that is complete: a copy of the best adapter, the grid, similarities, the report.

Called by `run` after the training, and by `lora evaluate` and `lora run` for a run that has ended before. Its own
manifest is written last; what is there already is not made again. It never fails a training: what goes wrong is told.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from pathlib import Path

import torch
from PIL import Image

from lora_api.evaluation_spec import Evaluation, Grid, Similarity
from lora_api.model_spec import Family
from lora_api.run_manifest import (
    EVALUATION_MANIFEST_NAME,
    EvaluationManifest,
    ManifestFile,
    RunManifest,
    evaluation_digest,
)
from lora_api.spec import LoraTraining, LoraTrainingSpec
from lora_api.status import EvaluationStatus
from lora_trainer.assembly import base_name, load_model, make_learner, make_painter, make_residence
from lora_trainer.checks import check_training
from lora_trainer.compute import make_accelerator, prefer_determinism
from lora_trainer.data.images import read_rgb
from lora_trainer.drawing import Painter
from lora_trainer.errors import Interrupted, InterruptedUnsaved, InvalidConfiguration, TrainingError
from lora_trainer.evaluation.choice import choose
from lora_trainer.evaluation.measures import Measure, from_lines
from lora_trainer.grid.axes import FOLDER, Axes, Cell, GridAdapter, make_axes
from lora_trainer.grid.pictures import Base, Listener, draw_grid, index_of
from lora_trainer.grid.sheet import write_sheet
from lora_trainer.late_measures import as_trained, heading, lines_below, measure_epochs, measured_while_training
from lora_trainer.lora.block_weights import BlockVector, block_vector
from lora_trainer.lora.formats import read_adapter
from lora_trainer.lora.inject import Adapters
from lora_trainer.lora.strength import Strength
from lora_trainer.output import RunOutput
from lora_trainer.prepare import Known, Prepared, Session, make_fetcher, open_output, prepare
from lora_trainer.recall import recall
from lora_trainer.report import write_report
from lora_trainer.results import (
    GRID_PATH,
    MEASURES_PATH,
    REPORT_PATH,
    SIMILARITY_PATH,
    Ended,
    best_paths,
    checkpoint_of,
    completed_apart_from_evaluation,
    epoch_adapters,
    epoch_paths,
    evaluation_of,
    is_checkpoint,
    is_evaluated,
    run_sha256,
    tell_already_trained,
    tell_artifacts,
)
from lora_trainer.run_log import record_failure
from lora_trainer.samples import Moment, Picture, model_name, picture_of
from lora_trainer.similarity import FILES as JUDGE_FILES
from lora_trainer.similarity import DrawnPicture, ModelFolder, TrainingPicture, load_clip, load_dino, measure
from lora_trainer.stopping import StopRequested
from lora_trainer.storage import DamagedFile, MissingFile, Source, Store
from lora_trainer.takeover import taking_over

logger = logging.getLogger(__name__)

_WEBP_PATH = "evaluation/grid.webp"
_INDEX_PATH = "evaluation/grid.json"
_LONGEST_PROBLEM = 1000


@dataclass(frozen=True)
class Studio:
    """What draws with the adapters of the run."""

    painter: Painter
    adapters: Adapters
    """Live, of the run's network; they hold whatever was loaded last."""


@dataclass(frozen=True)
class CompletedRun:
    """A run that has ended well, and the right to write beside it."""

    prepared: Known
    store: Store
    output: RunOutput
    manifest: RunManifest
    look: Callable[[], Prepared]
    """The same with its pictures."""

    @property
    def spec(self) -> LoraTrainingSpec:
        """What was asked for."""
        return self.prepared.training.spec


def evaluate_training(training: LoraTraining, session: Session) -> Ended:
    """Evaluates the completed run of `training` as its `evaluation` says, unless that was done.

    Raises:
        InvalidConfiguration: nothing is asked for, or there is no completed run of this training at `output.uri`.
        TrainingError: as fetching, the store and the fence say; `Interrupted` when `session.should_stop` became true.
    """
    check_training(training)
    if training.spec.evaluation is None:
        raise InvalidConfiguration("spec.evaluation is not set, so nothing is asked for; `evaluation: {}` asks for all")
    make_accelerator(training.spec)  # Without a GPU nothing needs to be fetched.
    prefer_determinism(cpu_threads=session.settings.cpu_threads)
    store = open_output(training.spec, session)
    look = cache(partial(prepare, training, session, planned_as=as_trained(training.spec, store)))
    recalled = None if _looks_at_pictures(training.spec, store) else recall(training, store, session)
    prepared: Known = recalled or look()
    manifest = completed_apart_from_evaluation(store, prepared.identity, prepared.provenance)
    if manifest is None:
        raise InvalidConfiguration(
            f"spec.output.uri is {training.spec.output.uri}, where no completed run of this training lies; "
            "train first (`lora run`)"
        )
    ended = evaluate_finished(manifest, store, prepared, session, look=look)
    return replace(ended, reason="Evaluated")


def evaluate_finished(
    manifest: RunManifest, store: Store, prepared: Known, session: Session, *, look: Callable[[], Prepared]
) -> Ended:
    """Evaluates a run that has ended before, unless that was done, and tells all that it made; `look` fetches its
    pictures where they are needed. Raises as `evaluate`."""
    spec, tracker = prepared.training.spec, session.audience.tracker
    if is_evaluated(store, spec):
        evaluation = None if spec.evaluation is None else evaluation_of(store, spec)
        ended = tell_already_trained(manifest, tracker, store, evaluation=evaluation)
        return ended if evaluation is None else _with_findings(ended, evaluation.status)
    ended = tell_already_trained(manifest, tracker, store)
    with taking_over(store, prepared, manifest.memory_rungs, session) as output:
        run = CompletedRun(prepared, store, output, manifest, look)
        return _with_findings(ended, evaluate(run, partial(open_studio, prepared, session), session))


def _with_findings(ended: Ended, status: EvaluationStatus) -> Ended:
    return replace(ended, message=f"{ended.message}; evaluated: {status.message}")


def open_studio(prepared: Known, session: Session) -> Studio:
    """The base model, loaded anew, with adapters of the run's network in it."""
    accelerator = make_accelerator(prepared.training.spec)
    model = load_model(prepared, accelerator.device, session)
    learner = make_learner(model, prepared.training.spec)
    residence = make_residence(model, prepared.training.spec, accelerator.device)
    residence.settle()
    painter = make_painter(learner, residence, accelerator.autocast, session)
    check_grid(prepared.training.spec, painter)
    return Studio(painter, learner.adapters)


def evaluate(run: CompletedRun, open_studio: Callable[[], Studio], session: Session) -> EvaluationStatus:
    """Makes what `spec.evaluation` asks for and tells it; a failure is told as well, and nothing else.

    Args:
        run: the completed run.
        open_studio: called once if anything has to be drawn.
        session: who is told.

    Raises:
        Interrupted: told to stop; the next start goes on with the picture after the last one.
        InterruptedUnsaved: another process has taken the output over.
    """
    evaluation, tracker = run.spec.evaluation, session.audience.tracker
    if evaluation is None:
        return EvaluationStatus()
    work = _Evaluation(run, evaluation, open_studio, session)
    try:
        manifest = work.make()
    except StopRequested as stop:
        raise _interrupted() from stop
    except InterruptedUnsaved:
        raise
    except Exception as error:
        if session.should_stop():
            # A preemption: the store had no more time to come back.
            raise _interrupted() from error
        # Whatever it is: the training is complete, and must not be made again or called a failure because of this.
        record_failure(error)
        cure = f" {error.hint}" if isinstance(error, TrainingError) and error.hint else ""
        status = work.failed(f"{type(error).__name__}: {error}.{cure}")
        tracker.set_evaluation(status)
        tracker.add_notice("EvaluationFailed", status.message)
        return status
    tell_artifacts(run.manifest, tracker, run.store.uri_of, evaluation=manifest)
    logger.info("%s", manifest.status.message)
    return manifest.status


def _interrupted() -> Interrupted:
    message = "told to stop during the evaluation; the training is complete"
    return Interrupted(message, hint="The next start goes on with the evaluation.")


class _Evaluation:
    """One evaluation of one run."""

    def __init__(
        self, run: CompletedRun, evaluation: Evaluation, open_studio: Callable[[], Studio], session: Session
    ) -> None:
        self._run, self._evaluation, self._session = run, evaluation, session
        self._store, self._output, self._spec = run.store, run.output, run.spec
        self._easel = _Easel(run, open_studio)
        self._late_lines: list[str] = []

    def make(self) -> EvaluationManifest:
        """All of it; the manifest last."""
        # It names files that are about to be replaced.
        self._output.remove(EVALUATION_MANIFEST_NAME)
        if self._evaluation.best_epoch.by != "None" and not self._measures_of_training:
            self._measure_late()
        self._publish_best()
        if self._evaluation.grid is not None:
            self._publish_grid(self._evaluation.grid)
        if self._evaluation.similarity is not None:
            self._publish_similarity(self._evaluation.similarity)
        if self._evaluation.report:
            self._publish_report()
        manifest = self._manifest()
        self._output.finish_evaluation(manifest)
        self._remove_others(manifest)
        return manifest

    def failed(self, problem: str) -> EvaluationStatus:
        """What is known although the evaluation failed."""
        try:
            known = self._chosen
        except Exception as error:  # noqa: BLE001  (perhaps the very reason of the failure)
            logger.warning("the best epoch cannot be told: %s", error)
            known = EvaluationStatus()
        message = f"The evaluation failed, the training is complete: {problem[:_LONGEST_PROBLEM]}"
        return known.model_copy(update={"digest": self._digest, "reason": "Failed", "message": message})

    @property
    def _digest(self) -> str:
        return evaluation_digest(self._spec)

    @property
    def _measures(self) -> tuple[Measure, ...]:
        """What was measured while training, or else now."""
        return self._measures_of_training or tuple(from_lines(self._late_lines)[0])

    def _measure_late(self) -> None:
        """Measures a run that was not measured while it was trained, unless an earlier evaluation did."""
        first = heading(run_sha256(self._store), self._spec)
        lines = lines_below(first, self._store)
        if not lines:
            adapters = epoch_adapters(self._run.manifest)
            lines = measure_epochs(self._run.look(), adapters, self._easel.fetch, self._session)
        self._late_lines = lines
        text = "".join(f"{line.rstrip()}\n" for line in (first, *lines))
        self._output.write(MEASURES_PATH, lambda path: path.write_text(text, encoding="utf-8"))
        self._output.publish(MEASURES_PATH, "measures")

    @cached_property
    def _measures_of_training(self) -> tuple[Measure, ...]:
        return measured_while_training(self._store)

    @cached_property
    def _chosen(self) -> EvaluationStatus:
        if self._evaluation.best_epoch.by == "None":
            found = EvaluationStatus(message="No epoch is chosen: evaluation.bestEpoch.by is None.")
        else:
            found = choose(self._measures)
        return found.model_copy(update={"digest": self._digest, "reason": "Completed"})

    @property
    def _files(self) -> tuple[ManifestFile, ...]:
        """What this evaluation published."""
        of_the_run = {file.path for file in self._run.manifest.files}
        return tuple(file for file in self._output.files if file.path not in of_the_run)

    def _publish_best(self) -> None:
        best, name = self._chosen.best_epoch, self._run.manifest.name
        if best is None:
            return
        self._session.say("Evaluating", f"adapter of epoch {best}")
        losses = {measure.epoch: measure.held_out_loss for measure in self._measures}
        for file in self._run.manifest.files:
            if is_checkpoint(file, name) and file.epoch == best:
                checkpoint = checkpoint_of(file, self._store.uri_of, losses.get(best))
                self._session.audience.tracker.set_best_checkpoint(checkpoint)
            for source, path in zip(epoch_paths(name, best), best_paths(name), strict=True):
                if file.path == source:
                    self._copy(file, path)

    def _copy(self, file: ManifestFile, path: str) -> None:
        self._output.write(path, partial(self._store.get_file, file.path, sha256=file.sha256))
        self._output.publish(path, "adapter", epoch=file.epoch, step=file.step, loss=file.loss)

    def _publish_grid(self, grid: Grid) -> None:
        pictures, blocks = grid_pictures(self._spec, grid), grid_blocks(grid, self._run.prepared.base.model.family)
        axes = make_axes(self._grid_adapters(grid), grid, pictures, blocks)
        self._session.say("Sampling", f"grid of {len(axes)} pictures")
        folder = self._output.local(FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        self._fetch_pictures(axes)
        listener = Listener(self._on_picture, self._on_progress)
        draw_grid(axes, folder, _base(self._run.prepared), self._easel.draw, listener=listener)
        self._session.say("Evaluating", "sheet of the grid")
        webp, check_stop = self._output.local(_WEBP_PATH), self._session.check_stop
        self._output.write(GRID_PATH, lambda png: write_sheet(axes, folder, png, webp, on_row=check_stop))
        self._output.write(_INDEX_PATH, lambda path: path.write_text(index_of(axes, FOLDER), encoding="utf-8"))
        for path in (GRID_PATH, _WEBP_PATH, _INDEX_PATH):
            self._output.publish(path, "grid")

    def _grid_adapters(self, grid: Grid) -> list[GridAdapter]:
        """The rows: the epochs that are asked for, as far as there are adapters of them."""
        name, files = self._run.manifest.name, epoch_adapters(self._run.manifest)
        wanted = grid.epochs or tuple(files)
        absent = [epoch for epoch in wanted if epoch not in files]
        if absent:
            logger.warning("the grid leaves out epochs %s, of which there is no adapter", absent)
        rows = [GridAdapter(f"{name}-{epoch:06d}", files[epoch].sha256, epoch) for epoch in files if epoch in wanted]
        if not rows:
            raise InvalidConfiguration(
                f"spec.evaluation.grid.epochs is {[*wanted]}, but there are adapters of epochs {[*files]}; correct it"
            )
        return rows

    def _fetch_pictures(self, axes: Axes) -> None:
        """Fetches pictures that an earlier start stored; whether they are the right ones is told by their digests."""
        stored = set(self._store.list(f"{FOLDER}/"))
        for cell in axes.cells():
            path = f"{FOLDER}/{cell.path}"
            if path in stored:
                self._session.check_stop()
                self._output.local(path).write_bytes(self._store.get_bytes(path))

    def _on_picture(self, cell: Cell, is_new: bool) -> None:
        path, epoch = f"{FOLDER}/{cell.path}", cell.adapter.epoch
        if is_new:
            self._output.publish(path, "grid", epoch=epoch)
        else:
            self._output.take_over(path, "grid", epoch=epoch)

    def _on_progress(self, done: int, total: int) -> None:
        self._session.audience.tracker.set_reason("Sampling", f"grid {done} of {total}")
        self._session.check_stop()

    def _publish_similarity(self, wanted: Similarity) -> None:
        self._session.say("Evaluating", "similarity of the sample pictures")
        device = make_accelerator(self._spec).device
        clip = load_clip(self._fetch_judge(wanted.clip_uri, "clipUri"), device) if wanted.clip_uri else None
        dino = load_dino(self._fetch_judge(wanted.dino_uri, "dinoUri"), device) if wanted.dino_uri else None
        trained = self._trained() if dino else []
        found = measure(self._drawn(), trained, clip=clip, dino=dino, on_picture=self._session.check_stop)
        content = {"clip": {"uri": wanted.clip_uri}, "dino": {"uri": wanted.dino_uri}} | found
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        self._output.write(SIMILARITY_PATH, lambda path: path.write_text(text, encoding="utf-8"))
        self._output.publish(SIMILARITY_PATH, "measures")

    def _fetch_judge(self, uri: str, name: str) -> ModelFolder:
        field = f"spec.evaluation.similarity.{name}"
        fetcher = make_fetcher(self._spec, self._session)
        return ModelFolder(fetcher.fetch(Source(uri, field, InvalidConfiguration, JUDGE_FILES)), field)

    def _drawn(self) -> list[DrawnPicture]:
        """The sample pictures of the epochs, on this machine."""
        name, prompts, found = self._run.manifest.name, self._spec.samples.prompts, []
        for file in self._run.manifest.files:
            for place, prompt in enumerate(prompts):
                epoch, local = file.epoch or 0, self._output.local(file.path)
                if file.kind == "sample" and Path(file.path).name == Moment(0, epoch).picture_name(name, place):
                    if not local.is_file():
                        self._store.get_file(file.path, local, sha256=file.sha256)
                    found.append(DrawnPicture(file.path, epoch, prompt.prompt, local))
        return found

    def _trained(self) -> list[TrainingPicture]:
        """What was trained on, without regularisation pictures and what is held out."""
        return [
            TrainingPicture(example.key, partial(read_rgb, example.path, drop_alpha=example.drops_alpha))
            for example in self._run.look().dataset.scanned.examples
            if not example.is_regularization and not example.is_held_out
        ]

    def _publish_report(self) -> None:
        self._session.say("Evaluating", "report")
        # It reads what lies in the store.
        self._output.wait()
        self._output.write(REPORT_PATH, lambda path: write_report(self._store, path, evaluation=self._manifest()))
        self._output.publish(REPORT_PATH, "report")

    def _manifest(self) -> EvaluationManifest:
        return EvaluationManifest(
            run_sha256=run_sha256(self._store),
            evaluation_digest=self._digest,
            created_time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            status=self._chosen,
            files=self._files,
        )

    def _remove_others(self, manifest: EvaluationManifest) -> None:
        """What an earlier evaluation made and no manifest names any more."""
        name = self._run.manifest.name
        singles = {GRID_PATH, _WEBP_PATH, _INDEX_PATH, SIMILARITY_PATH, REPORT_PATH, *best_paths(name)}
        for path in {*singles, *self._store.list(f"{FOLDER}/")} - {file.path for file in manifest.files}:
            self._output.remove(path)


class _Easel:
    """Draws with the adapters of the run's epochs, each loaded once in a row."""

    def __init__(self, run: CompletedRun, open_studio: Callable[[], Studio]) -> None:
        self._run, self._open_studio = run, open_studio
        self._files = {file.sha256: file for file in epoch_adapters(run.manifest).values()}
        self._loaded = ""

    @cached_property
    def _studio(self) -> Studio:
        return self._open_studio()

    def draw(self, adapter: GridAdapter, strength: Strength, pictures: Sequence[Picture]) -> Sequence[Image.Image]:
        """Pictures with an epoch's adapter at a strength."""
        studio = self._studio
        if self._loaded != adapter.sha256:
            self._load(self._files[adapter.sha256], studio.adapters)
        with studio.adapters.at(strength):
            return studio.painter.draw(pictures, None)

    def fetch(self, file: ManifestFile) -> Path:
        """The local copy of an epoch's adapter."""
        local = self._run.output.local(f"evaluation/{Path(file.path).name}")
        self._run.store.get_file(file.path, local, sha256=file.sha256)
        return local

    def _load(self, file: ManifestFile, adapters: Adapters) -> None:
        local = self.fetch(file)
        try:
            with torch.no_grad():
                adapters.load(read_adapter(local))
        finally:
            local.unlink()
        self._loaded = file.sha256


def _looks_at_pictures(spec: LoraTrainingSpec, store: Store) -> bool:
    """Whether an evaluation of the run at `store` needs its pictures."""
    evaluation = spec.evaluation
    assert evaluation is not None, "nothing is asked for"
    if evaluation.similarity is not None and evaluation.similarity.dino_uri is not None:
        return True
    if evaluation.best_epoch.by == "None":
        return False
    try:
        return not (measured_while_training(store) or lines_below(heading(run_sha256(store), spec), store))
    except (DamagedFile, MissingFile):
        return False  # Whoever needs that file says what is wrong.


def check_grid(spec: LoraTrainingSpec, painter: Painter) -> None:
    """Raises InvalidConfiguration if the model cannot draw the grid: better before the training than after it."""
    grid = spec.evaluation.grid if spec.evaluation is not None else None
    if grid is not None:
        painter.check(grid_pictures(spec, grid), field="spec.evaluation.grid.prompts")
        grid_blocks(grid, painter.model.family)


def grid_pictures(spec: LoraTrainingSpec, grid: Grid) -> tuple[Picture, ...]:
    """What the grid draws: its own prompts, or the first of the samples'."""
    prompts = grid.prompts or spec.samples.prompts[:1]
    return tuple(picture_of(prompt, spec, place) for place, prompt in enumerate(prompts))


def grid_blocks(grid: Grid, family: Family) -> tuple[BlockVector, ...]:
    """The block weights that the grid compares. Raises InvalidConfiguration: one does not fit the family."""
    field = "spec.evaluation.grid.blockWeights"
    return tuple(
        block_vector(entry.name, entry.values, family, field=f"{field}[{place}]")
        for place, entry in enumerate(grid.block_weights)
    )


def _base(prepared: Known) -> Base:
    """The base model, and everything in the spec on which a picture depends beside its own settings."""
    spec = prepared.training.spec
    reading = (spec.training.precision, spec.dataset.captions.max_tokens, spec.dataset.captions.weighted)
    decisive = repr((prepared.provenance.base_digest, reading, spec.training.loss.zero_terminal_snr))
    return Base(model_name(base_name(prepared)), hashlib.sha256(decisive.encode()).hexdigest())
