"""What the trainer tells once: remembered in the status, so that none is told again; pure. Used by `status`."""

from lora_api.redaction import redact
from lora_api.status import Notice

MAX_NOTICES = 8
"""A trainer never tells more than its newest eight, so what it still tells is always among those remembered."""


def merge_notices(before: tuple[Notice, ...], told: tuple[Notice, ...]) -> tuple[Notice, ...]:
    """The newest notices, those that are told now last."""
    shown = tuple(notice.model_copy(update={"message": redact(notice.message)[:1024]}) for notice in told)
    return (*(notice for notice in before if notice not in shown), *shown)[-MAX_NOTICES:]
