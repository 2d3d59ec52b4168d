"""The launcher with small programs in the place of `lora`: who is started how, and which end explains the run."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lora_api import TerminationMessage
from lora_api.cluster_spec import Parallelism
from lora_trainer.launcher import Company, Ended, company_of, explain, last_word, launch
from lora_trainer.settings import Address, Node, Ranks, Settings, environment_of

PLAIN = Settings(work_dir=Path("/w"))


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.fixture
def company(tmp_path: Path) -> Callable[..., Company]:
    """Two processes, with a place for the last word."""

    def make(**changes: object) -> Company:
        settings = replace(PLAIN, termination_log=tmp_path / "word", **changes)  # type: ignore[arg-type]
        made = company_of(Parallelism(nodes=2, gpus_per_node=0), settings)
        assert made is not None
        return made

    return make


def word(tmp_path: Path) -> TerminationMessage:
    return TerminationMessage.model_validate_json((tmp_path / "word").read_bytes())


@pytest.mark.parametrize(
    ("nodes", "gpus", "settings"),
    [
        (1, 1, PLAIN),
        (1, 0, PLAIN),
        (2, 0, replace(PLAIN, ranks=Ranks(0, 2, 0, 2, Address("127.0.0.1", 1)))),
        (2, 4, PLAIN),
    ],
    ids=["one GPU", "one CPU", "torchrun has started it", "nobody knows where the other node is"],
)
def test_nothing_is_started_where_this_process_trains_itself(nodes: int, gpus: int, settings: Settings) -> None:
    assert company_of(Parallelism(nodes=nodes, gpus_per_node=gpus), settings) is None


def test_each_gpu_gets_a_process_and_each_node_its_own_ranks() -> None:
    meeting = Address("node-0.nodes.ml.svc", 29500)

    second = company_of(Parallelism(nodes=2, gpus_per_node=4), replace(PLAIN, node=Node(1, meeting)))

    assert second is not None
    assert [(ranks.rank, ranks.local_rank) for ranks in second.ranks] == [(4, 0), (5, 1), (6, 2), (7, 3)]
    assert {(ranks.size, ranks.local_size, ranks.meeting) for ranks in second.ranks} == {(8, 4, meeting)}


@pytest.mark.parametrize("node", [None, Node(0, Address("node-0", 29500))], ids=["one machine", "two nodes"])
def test_without_gpus_a_node_is_a_process(node: Node | None) -> None:
    made = company_of(Parallelism(nodes=3, gpus_per_node=0), replace(PLAIN, node=node))

    assert made is not None
    assert [ranks.rank for ranks in made.ranks] == ([0, 1, 2] if node is None else [0])


def test_a_process_is_told_its_place_as_torchrun_tells_it() -> None:
    ranks = Ranks(5, 8, 1, 4, Address("node-0", 29500), launcher=77)

    environment = environment_of(
        ranks, termination_log=Path("/tmp/word"), environment={"OMP_NUM_THREADS": "10", "KEPT": "yes"}
    )

    assert Settings.from_environment(environment).ranks == ranks
    assert (environment["OMP_NUM_THREADS"], environment["KEPT"]) == ("2", "yes")
    assert "GLOO_SOCKET_IFNAME" not in environment


def test_processes_of_one_machine_listen_on_loopback_only() -> None:
    ranks = Ranks(0, 2, 0, 2, Address("127.0.0.1", 29500))

    environment = environment_of(ranks, termination_log=Path("/tmp/word"), environment={"NCCL_SOCKET_IFNAME": "eth0"})

    assert (environment["GLOO_SOCKET_IFNAME"], environment["NCCL_SOCKET_IFNAME"]) == ("lo", "eth0")


def test_all_that_end_well_end_with_0_and_the_word_of_the_first(
    company: Callable[..., Company], tmp_path: Path
) -> None:
    code = (
        "import json, os; json.dump({'exitCode': 0, 'reason': 'Completed', 'message': os.environ['RANK']}, "
        "open(os.environ['LORA_TERMINATION_LOG'], 'w'))"
    )

    assert launch([], company(), program=python(code)) == 0
    assert word(tmp_path).message == "0"


def test_the_first_to_fail_explains_the_end_and_the_others_are_told_to_stop(
    company: Callable[..., Company], tmp_path: Path
) -> None:
    code = (
        "import json, os, signal, sys, threading\n"
        "rank, told = int(os.environ['RANK']), threading.Event()\n"
        "signal.signal(signal.SIGTERM, lambda *_: told.set())\n"
        "if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        "while not told.wait(0.01): pass\n"
        "json.dump({'exitCode': 75, 'reason': 'Interrupted', 'message': 'saved', 'starts': 3}, "
        "open(os.environ['LORA_TERMINATION_LOG'], 'w'))\n"
        "sys.exit(75)"
    )

    assert launch([], company(), program=python(code)) == 137
    said = word(tmp_path)
    assert (said.exit_code, said.reason, said.starts) == (137, "Killed", 3)
    assert said.message == "process 1 ended with exit code 137 (signal 9)"


def test_who_does_not_end_after_another_has_failed_is_killed(company: Callable[..., Company]) -> None:
    code = (
        "import os, signal, sys, threading\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.environ['RANK'] == '1': sys.exit(65)\n"
        "threading.Event().wait()"
    )

    assert launch([], company(grace_seconds=0.1), program=python(code)) == 65


def test_who_hears_no_sigterm_is_killed_before_the_grace_period_is_over(
    company: Callable[..., Company], tmp_path: Path
) -> None:
    code = (
        "import os, pathlib, signal, threading\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(tmp_path)!r}, 'ready-' + os.environ['RANK']).touch()\n"
        "threading.Event().wait()"
    )
    threading.Thread(target=stop_when_ready, args=(tmp_path,)).start()

    assert launch([], company(grace_seconds=0.6), program=python(code)) == 76
    assert word(tmp_path).exit_code == 76


def stop_when_ready(folder: Path) -> None:
    """Tells this process to stop as soon as both children have their handlers."""
    while len(list(folder.glob("ready-*"))) < 2:
        threading.Event().wait(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_reaches_every_process(company: Callable[..., Company], tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys, threading\n"
        "told = threading.Event()\n"
        "signal.signal(signal.SIGTERM, lambda *_: told.set())\n"
        f"pathlib.Path({str(tmp_path)!r}, 'ready-' + os.environ['RANK']).touch()\n"
        "while not told.wait(0.01): pass\n"
        "sys.exit(75)"
    )

    threading.Thread(target=stop_when_ready, args=(tmp_path,)).start()

    assert launch([], company(), program=python(code)) == 75


@pytest.mark.parametrize(
    ("codes", "explained_by"),
    [
        ([(1, 75), (0, 75)], (0, 75)),
        ([(1, 76), (0, 75)], (0, 75)),
        ([(1, 0), (0, 75)], (0, 75)),
        ([(0, 0), (1, 76)], (1, 76)),
        ([(1, 76), (0, 71)], (0, 71)),
        ([(3, 137), (1, 65), (0, 75)], (3, 137)),
        ([(1, 0), (0, 0)], (0, 0)),
    ],
)
def test_a_failure_explains_more_than_an_interruption(
    codes: list[tuple[int, int]], explained_by: tuple[int, int]
) -> None:
    cause = explain([Ended(rank, code) for rank, code in codes])

    assert (cause.rank, cause.code) == explained_by


def test_the_last_word_keeps_what_the_first_process_knew() -> None:
    lead = TerminationMessage(exit_code=75, reason="Interrupted", message="saved", hint="none", starts=4)
    own = TerminationMessage(exit_code=65, reason="InvalidDataset", message="a.png", hint="repair it", log_tail="x")

    said = last_word(Ended(2, 65, own), lead)

    assert json.loads(said.to_bytes())["starts"] == 4
    assert (said.exit_code, said.reason, said.message, said.hint) == (65, "InvalidDataset", "a.png", "repair it")
