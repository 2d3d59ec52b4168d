"""Section `output`: name, number format, file format."""

import re

from lora_trainer.migration.arguments import Arguments
from lora_trainer.migration.draft import Draft

_PRECISIONS = {"float": "fp32", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}
_LONGEST_NAME = 52


def translate_output(arguments: Arguments, draft: Draft) -> None:
    """Everything of `output` but its URI."""
    draft.put("output.name", arguments["output_name"])
    precision = arguments["save_precision"]
    if precision is not None:
        draft.put("output.precision", _PRECISIONS.get(precision, precision))
    if arguments["save_model_as"] not in (None, "safetensors"):
        draft.leave("save_model_as", arguments["save_model_as"], "adapters are written as .safetensors")


def object_name(*candidates: str | None) -> str:
    """The first candidate from which a name of a Kubernetes object can be made, made one."""
    for candidate in candidates:
        name = re.sub(r"[^a-z0-9]+", "-", (candidate or "").lower()).strip("-")
        name = name if name[:1].isalpha() or not name else f"lora-{name}"
        if name:
            return name[:_LONGEST_NAME].rstrip("-")
    return "imported"
