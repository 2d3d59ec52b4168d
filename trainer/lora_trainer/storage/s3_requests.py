"""Asks the store again when a request failed in a way that may pass. Used by everything that talks to S3."""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lora_trainer.storage.connection import Connection
from lora_trainer.storage.s3_errors import CredentialsExpired, Transient, s3_errors

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 30.0
_SLICE_SECONDS = 1.0
T = TypeVar("T")


def _nothing() -> None:
    """Goes on."""


@dataclass(frozen=True)
class S3Requests:
    """Requests for one URI of the spec; `field` is its YAML path."""

    connection: Connection
    field: str
    keep_on: Callable[[], None] = _nothing
    """Called before each repetition and every second of a pause; what it raises ends the waiting."""

    def ask(self, operation: str, place: str, call: Callable[[], T]) -> T:
        """What `call` returns, which is called again after failures that may pass. `operation` is a verb.

        The n-th pause lasts between half and all of 2^(n-1) seconds, so that many pods do not come back at once.
        Expired credentials are read once more from their files.

        Raises:
            AccessDenied, InvalidConfiguration: at once.
            StorageUnavailable: at once, or after `connection.attempts`.
        """
        attempt, renewed = 1, False
        while True:
            try:
                with s3_errors(operation, place=place, field=self.field, storage=self.connection.field):
                    return call()
            except CredentialsExpired:
                if renewed:
                    raise
                renewed = True
            except Transient as error:
                if attempt == self.connection.attempts:
                    raise
                attempt += 1
                logger.warning("%s; try %s of %s follows", error, attempt, self.connection.attempts)
                self.connection.on_retry()
                self._wait(min(2.0 ** (attempt - 2), _LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0))

    def _wait(self, seconds: float) -> None:
        while seconds > 0:
            # Whoever wants to stop need not wait for a dead store.
            self.keep_on()
            self.connection.pause(min(seconds, _SLICE_SECONDS))
            seconds -= _SLICE_SECONDS
        self.keep_on()
