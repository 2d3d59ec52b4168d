"""`python -m lora_operator`: reads the environment, logs to standard output, runs until SIGTERM or SIGINT."""

import asyncio
import logging
import os
import signal
import sys

from lora_operator.application import Application
from lora_operator.errors import OperatorError
from lora_operator.settings import Settings

log = logging.getLogger("lora_operator")


def main() -> int:
    """Runs the operator; the exit code of the process."""
    try:
        settings = Settings.from_environment(os.environ)
        _set_up_logging(settings.log_level)
        asyncio.run(_run(Application(settings)))
    except OperatorError as error:
        print(f"lora-operator: {error}", file=sys.stderr)
        return 1
    log.info("stopped")
    return 0


async def _run(application: Application) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await application.run(stop)


def _set_up_logging(level: str) -> None:
    logging.basicConfig(
        level=level, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    # kopf's own lines are about its insides; its errors still show.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLevelName(level)))
    # It warns that signals do not reach its thread; they are handled here.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
