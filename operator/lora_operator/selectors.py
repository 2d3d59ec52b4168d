"""Which Jobs and pods are the operator's: a label selector. Used by `informer` and `handlers`."""

from lora_api import names

MANAGED = f"{names.LABEL_MANAGED_BY}={names.MANAGER},{names.LABEL_TRAINING}"
