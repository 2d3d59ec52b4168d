"""The `lora` command, also `python -m lora_trainer`."""

import logging
import os
import sys

from lora_trainer.stopping import catch_signals

_STOPPABLE = ("run", "preflight", "evaluate")
"""Sub-commands that end in order when they are told to stop."""


def main() -> None:
    """Entry point of `lora`."""
    stop = catch_signals() if sys.argv[1:2] and sys.argv[1] in _STOPPABLE else None
    # cuBLAS gives the same result every time only with a fixed workspace, and reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The commands and what they need take a second to import, on a cold node many: signals must be caught before.
    from lora_trainer.commands.app import app, set_up_logging  # noqa: PLC0415

    set_up_logging()
    is_one_of_many = "RANK" in os.environ
    try:
        app()
    except SystemExit as end:
        if is_one_of_many or (stop is not None and stop()):
            _end_at_once(end.code)
        raise
    except Exception:
        if is_one_of_many:
            sys.excepthook(*sys.exc_info())
            _end_at_once(1)
        raise


def _end_at_once(code: str | int | None) -> None:
    """Ends the process without waiting for its threads.

    One may hang at a store longer than the grace period lasts, or wait for ever for a sum with a process that is lost.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    main()
