"""The `lora` command, also `python -m lora_trainer`."""

import os
import sys

from lora_trainer.stopping import catch_signals

_STOPPABLE = ("run", "preflight")
"""Sub-commands that end in order when they are told to stop."""


def main() -> None:
    """Entry point of `lora`."""
    if sys.argv[1:2] and sys.argv[1] in _STOPPABLE:
        catch_signals()
    # cuBLAS gives the same result every time only with a fixed workspace, and reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The commands and what they need take a second to import, on a cold node many: signals must be caught before.
    from lora_trainer.commands.app import app, set_up_logging  # noqa: PLC0415

    set_up_logging()
    app()


if __name__ == "__main__":
    main()
