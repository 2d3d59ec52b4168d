"""The contract between user, operator and trainer: spec, status, messages, exit codes, names."""

from lora_api.exit_codes import OUTCOMES, ExitCode, Outcome, codes_with, outcome_of
from lora_api.load import InvalidTraining, Problem, load_training, parse_training
from lora_api.progress import ProgressReport, TerminationMessage
from lora_api.run_manifest import MANIFEST_NAME, ManifestFile, RunManifest, evaluation_digest, spec_digest
from lora_api.spec import LoraTraining, LoraTrainingSpec
from lora_api.status import LoraTrainingStatus

__all__ = [
    "MANIFEST_NAME",
    "OUTCOMES",
    "ExitCode",
    "InvalidTraining",
    "LoraTraining",
    "LoraTrainingSpec",
    "LoraTrainingStatus",
    "ManifestFile",
    "Outcome",
    "Problem",
    "ProgressReport",
    "RunManifest",
    "TerminationMessage",
    "codes_with",
    "evaluation_digest",
    "load_training",
    "outcome_of",
    "parse_training",
    "spec_digest",
]
