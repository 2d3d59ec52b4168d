"""What several sub-commands take, they take alike."""

import inspect

from lora_trainer.commands.preflight import preflight
from lora_trainer.commands.run import run


def test_a_check_takes_what_the_run_after_it_takes() -> None:
    assert inspect.signature(preflight) == inspect.signature(run)
