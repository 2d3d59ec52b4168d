"""A process that was told to stop ends, whatever its threads wait for."""

import subprocess
import sys

PROGRAM = """
import os, signal, sys, threading
from concurrent.futures import ThreadPoolExecutor
from lora_trainer import __main__
from lora_trainer.commands import app as commands

def run():
    ThreadPoolExecutor().submit(threading.Event().wait)  # Part of an upload to a store that does not answer.
    os.kill(os.getpid(), signal.SIGTERM)
    print("the last word")
    sys.exit(76)

commands.app = run
sys.argv = ["lora", "run"]
__main__.main()
"""


def test_an_upload_that_hangs_does_not_outlive_the_grace_period() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)

    assert (ended.returncode, ended.stdout) == (76, "the last word\n")
