"""`python -m lora_operator.waiting`: waits for the end of one training and says how it ended. Run by `helm test`."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lora_api.status import ConditionType, LoraTrainingStatus, Phase
from lora_operator.cluster import TRAININGS, open_cluster
from lora_operator.connection import Connection
from lora_operator.errors import ClusterUnavailable, OperatorError
from lora_operator.subject import Key, Manifest, Subject, parse_subject

PAUSE_SECONDS = 2.0

Look = Callable[[], Awaitable[Manifest | None]]
"""Reads the training; None: there is none."""
Tell = Callable[[str], None]


class NotSucceeded(Exception):
    """The training failed, is not there, or takes too long; the message says which, and why."""


@dataclass(frozen=True)
class Patience:
    """How long is waited, and how often is looked."""

    seconds: float
    pause_seconds: float = PAUSE_SECONDS


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: the training has succeeded."""
    parser = argparse.ArgumentParser(prog="lora_operator.waiting", description="Wait for the end of a LoraTraining.")
    parser.add_argument("namespace")
    parser.add_argument("name")
    parser.add_argument("--timeout", type=float, default=900.0, metavar="SECONDS", help="Give up after this time.")
    given = parser.parse_args(arguments)
    try:
        asyncio.run(_wait(Key(given.namespace, given.name), Patience(given.timeout)))
    except (NotSucceeded, OperatorError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def _wait(key: Key, patience: Patience) -> None:
    connection = await Connection.open(os.environ.get("KUBECONFIG"))
    async with open_cluster(connection, lambda *_: None) as cluster:
        await wait_for_success(lambda: cluster.get(TRAININGS, *key), patience, _tell)


def _tell(words: str) -> None:
    print(words, flush=True)


async def wait_for_success(look: Look, patience: Patience, tell: Tell) -> None:
    """Returns when the training has succeeded; tells what it does meanwhile, each change once.

    Raises:
        NotSucceeded: it has failed, is not there, or `patience` is over.
        OperatorError: it cannot be read, for good.
    """
    end, told = time.monotonic() + patience.seconds, ""
    while True:
        words, subject = await _look(look)
        if words != told:
            tell(words)
            told = words
        if subject is not None and subject.is_finished:
            return _judge(subject)
        if time.monotonic() >= end:
            raise NotSucceeded(f"not finished after {patience.seconds:g} s: {words}")
        await asyncio.sleep(patience.pause_seconds)


async def _look(look: Look) -> tuple[str, Subject | None]:
    """The training in words and as it is; a server that does not answer now is asked again."""
    try:
        body = await look()
    except ClusterUnavailable as error:
        return f"the API server does not answer: {error}", None
    if body is None:
        raise NotSucceeded("there is no such training")
    subject = parse_subject(body)
    return f"{subject.key}: {_describe(subject.status)}", subject


def _describe(status: LoraTrainingStatus) -> str:
    """Phase, how far it is, and what it waits for."""
    step = f", step {status.summary.step}" if status.summary and status.summary.step else ""
    waits = next((c for c in status.conditions if c.status == "False" and c.message), None)
    why = f" ({waits.reason}: {waits.message})" if waits and not step else ""
    return f"{status.phase or 'not looked at by an operator'}{step}{why}"


def _judge(subject: Subject) -> None:
    """Raises NotSucceeded with the operator's words about the end, unless it was a good one."""
    ended = next(condition for condition in subject.status.conditions if condition.type == ConditionType.FINISHED)
    if subject.status.phase != Phase.SUCCEEDED:
        raise NotSucceeded(f"{subject.key}: {ended.reason}: {ended.message}")


if __name__ == "__main__":
    sys.exit(main())
