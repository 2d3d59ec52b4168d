"""Everything that can be found out about a training before a GPU is asked for. Called by `lora preflight`; no torch.

fetch the pictures -> decode every one -> plan -> compare with what the output holds -> publish the plan
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from lora_api.run_manifest import RunManifest, spec_digest
from lora_api.spec import LoraTraining, LoraTrainingSpec
from lora_trainer.checks import check_training
from lora_trainer.errors import Interrupted, TrainingError
from lora_trainer.families.vocabulary import count_tokens
from lora_trainer.prepare import (
    BaseFiles,
    Session,
    base_sources,
    identity_of,
    make_fetcher,
    open_output,
    prepare_base,
    prepare_dataset,
    provenance_of,
)
from lora_trainer.provenance import Provenance
from lora_trainer.results import (
    LOGS_FOLDER,
    PLAN_PATH,
    PROVENANCE_PATH,
    Ended,
    completed,
    evaluation_of,
    find_manifest,
    is_evaluated,
    read_provenance,
    tell_already_trained,
)
from lora_trainer.sources import Fetcher, PlannedDataset, truncation_warning
from lora_trainer.state_places import StatePlace, Wanted, is_changed, state_places
from lora_trainer.stopping import StopRequested
from lora_trainer.storage import Connection, Store, UnreadableManifest, read_manifest
from lora_trainer.storage.probe import check_readable

logger = logging.getLogger(__name__)

_ON_DISK = ("pvc://", "file://")
LOG_PATH = f"{LOGS_FOLDER}/preflight.log"


def check_before_training(training: LoraTraining, session: Session) -> Ended:
    """Checks pictures, output, base model and plan, and leaves the plan at `output.uri`.

    Gives `Verified`, or `AlreadyTrained` where this very run lies there already.

    Raises:
        TrainingError: what the training would end with; `Interrupted` when `session.should_stop` became true.
    """
    try:
        check_training(training)
        store = open_output(training.spec, session)
        with _kept_log(store, session):
            return _Check(training, session, make_fetcher(training.spec, session), store).run()
    except StopRequested as stop:
        message = "told to stop before the data were checked; nothing was lost"
        raise Interrupted(message, hint="The next pod checks them.") from stop


@contextmanager
def _kept_log(store: Store, session: Session) -> Iterator[None]:
    """Stores the log at the end, as well as can be: a lost log is no reason to fail."""
    try:
        yield
    finally:
        if session.log_file is not None:
            try:
                store.put_bytes(session.log_file.read_bytes(), LOG_PATH)
            except (OSError, TrainingError) as error:
                logger.warning("the log could not be stored: %s", error)


@dataclass(frozen=True)
class _Check:
    training: LoraTraining
    session: Session
    fetcher: Fetcher
    store: Store

    @property
    def _spec(self) -> LoraTrainingSpec:
        return self.training.spec

    def run(self) -> Ended:
        """All of it, what is cheap first."""
        self._check_base_is_there()
        dataset = prepare_dataset(self._spec, self.fetcher, self.session)
        self._warn_of_cut_captions(dataset)
        base = self._fetch_base() if self._keeps_base else None
        finished = self._finished(dataset, base)
        if finished is not None:
            return self._ended_before(finished)
        self._check_newest_state(dataset, base)
        self._publish_plan(dataset)
        plan = dataset.plan
        return Ended(
            "Verified",
            f"{plan.images} pictures and {plan.regularization_images} regularisation pictures, {plan.total_steps} "
            f"steps in {plan.epochs} epochs",
        )

    def _ended_before(self, finished: RunManifest) -> Ended:
        """Of a run that is complete: whether its evaluation is as well."""
        evaluation = None if self._spec.evaluation is None else evaluation_of(self.store, self._spec)
        ended = tell_already_trained(finished, self.session.audience.tracker, self.store, evaluation=evaluation)
        if is_evaluated(self.store, self._spec):
            return ended
        return Ended("Verified", f"{ended.message}; its evaluation is left to do")

    def _check_base_is_there(self) -> None:
        self.session.say("CheckingData", "base model and output")
        for source in base_sources(self._spec).values():
            check_readable(source, Connection.for_field(self._spec, self.session.settings, source.field))
            self.session.check_stop()

    @property
    def _keeps_base(self) -> bool:
        """Whether the training finds the base where this step has it; else it would be fetched twice."""
        uris = (source.uri for source in base_sources(self._spec).values())
        return self.session.settings.cache_dir is not None or all(uri.startswith(_ON_DISK) for uri in uris)

    def _fetch_base(self) -> BaseFiles:
        return prepare_base(self._spec, self.fetcher, self.session)

    def _warn_of_cut_captions(self, dataset: PlannedDataset) -> None:
        count = partial(count_tokens, weighted=self._spec.dataset.captions.weighted)
        warning = truncation_warning(dataset.scanned.examples, self._spec, count)
        if warning:
            logger.warning("%s", warning)
            plan = replace(dataset.plan, warnings=(*dataset.plan.warnings, warning))
            self.session.audience.tracker.set_plan(plan.to_status())

    def _finished(self, dataset: PlannedDataset, base: BaseFiles | None) -> RunManifest | None:
        """The manifest of this very run; the base is fetched only where all else is the same."""
        manifest = find_manifest(self.store)
        if manifest is None:
            return None
        known = (spec_digest(self._spec), dataset.scanned.digest)
        if base is None and (manifest.spec_digest, manifest.dataset_digest) == known:
            base = self._fetch_base()
        wanted = self._wanted(dataset, base, manifest, read_provenance(self.store))
        return completed(self.store, wanted.identity, wanted.provenance)

    def _check_newest_state(self, dataset: PlannedDataset, base: BaseFiles | None) -> None:
        """Raises what the training would raise when it goes on from the newest state."""
        for place in state_places(self.store):
            manifest = self._manifest_of(place)
            if manifest is not None:
                before = read_provenance(self.store, f"{place.folder}/{PROVENANCE_PATH}")
                is_changed(self.store, place, manifest, self._wanted(dataset, base, manifest, before))
                return

    def _manifest_of(self, place: StatePlace) -> RunManifest | None:
        try:
            return read_manifest(self.store, folder=place.folder)
        except UnreadableManifest as error:
            logger.warning("%s", error)
            return None

    def _wanted(
        self, dataset: PlannedDataset, base: BaseFiles | None, manifest: RunManifest, before: Provenance | None
    ) -> Wanted:
        """This run; a base that was not fetched counts as that of `manifest`: the training itself compares it."""
        provenance = provenance_of(self.training, dataset, base)
        base_digest = provenance.base_digest
        if base is None:
            provenance = replace(provenance, base=before.base if before else {})
            base_digest = manifest.base_digest
        identity = identity_of(self.training, dataset, base_digest=base_digest)
        return Wanted(identity, provenance, self._spec.resume.on_change)

    def _publish_plan(self, dataset: PlannedDataset) -> None:
        document = {
            "specDigest": spec_digest(self._spec),
            "datasetDigest": dataset.scanned.digest,
            "plan": dataset.plan.to_status().to_document(),
        }
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        self.store.put_bytes(text.encode(), PLAN_PATH)
        logger.info("stored %s", self.store.uri_of(PLAN_PATH))
