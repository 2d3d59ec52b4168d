"""A completed run by its own documents: all that an evaluation needs which looks at no picture. Used by `evaluate`."""

import json
import logging
from dataclasses import dataclass

from pydantic import ValidationError

from lora_api.run_manifest import result_settings, spec_digest
from lora_api.spec import LoraTraining
from lora_api.status import Plan
from lora_trainer.prepare import BaseFiles, Session, make_fetcher, prepare_base
from lora_trainer.provenance import Provenance
from lora_trainer.results import PLAN_PATH, RunIdentity, find_manifest, read_provenance
from lora_trainer.storage import MissingFile, Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recalled:
    """What `prepare.Prepared` holds, but for the pictures, which count as those that the run was trained on."""

    training: LoraTraining
    base: BaseFiles
    provenance: Provenance
    identity: RunIdentity


def recall(training: LoraTraining, store: Store, session: Session) -> Recalled | None:
    """The run at `store`, and its plan told; the base model is fetched. None: too little is left of its documents.

    Raises:
        TrainingError: as the store says, and as fetching and identifying the base model say.
    """
    manifest, before, plan = find_manifest(store), read_provenance(store), _read_plan(store)
    if manifest is None or before is None or plan is None:
        return None
    base = prepare_base(training.spec, make_fetcher(training.spec, session), session)
    provenance = Provenance(result_settings(training.spec), before.dataset, base.digests)
    identity = RunIdentity(
        name=training.output_name,
        spec_digest=spec_digest(training.spec),
        dataset_digest=manifest.dataset_digest,
        base_digest=provenance.base_digest,
        total_steps=manifest.total_steps,
    )
    session.audience.tracker.set_plan(plan)
    session.audience.tracker.set_dataset_digest(manifest.dataset_digest)
    return Recalled(training, base, provenance, identity)


def _read_plan(store: Store) -> Plan | None:
    try:
        return Plan.model_validate_json(json.dumps(json.loads(store.get_bytes(PLAN_PATH))["plan"]))
    except MissingFile:
        return None
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        logger.warning("%s cannot be read: %s", store.uri_of(PLAN_PATH), error)
        return None
