"""How processes come together: what is refused, and what ends the waiting. Whole companies are in
test_several_processes (threads) and in tests/e2e (processes)."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed import TCPStore, distributed_c10d  # type: ignore[attr-defined]

from lora_api.spec import LoraTrainingSpec
from lora_trainer import heartbeat, rendezvous
from lora_trainer.errors import InterruptedUnsaved, InvalidConfiguration
from lora_trainer.prepare import Session
from lora_trainer.rendezvous import joined
from lora_trainer.settings import Address, Ranks
from lora_trainer.stopping import StopRequested
from tests.support.tiny_run import make_session, make_training


def spec(nodes: int) -> LoraTrainingSpec:
    return make_training(Path("/base"), Path("/data"), Path("/out"), parallelism={"nodes": nodes}).spec


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def session(tmp_path: Path, ranks: Ranks | None, *, is_told: bool = False) -> Session:
    made = make_session(tmp_path, should_stop=lambda: is_told).session
    return replace(made, settings=replace(made.settings, ranks=ranks))


def ranks(rank: int, size: int = 2, host: str = "127.0.0.1") -> Ranks:
    return Ranks(rank, size, rank, size, Address(host, free_port()))


def test_one_process_is_alone(tmp_path: Path) -> None:
    with joined(spec(1), session(tmp_path, None)) as world:
        assert (world.rank, world.size) == (0, 1)


def test_other_processes_than_the_spec_asks_for_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidConfiguration, match=r"asks for 4 processes \(nodes 4.* but WORLD_SIZE is 2"),
        joined(spec(4), session(tmp_path, ranks(0))),
    ):
        pass


def test_a_process_that_does_not_know_the_others_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidConfiguration, match=r"asks for 2 processes .* LORA_RENDEZVOUS"),
        joined(spec(2), session(tmp_path, None)),
    ):
        pass


@pytest.mark.parametrize("rank", [0, 1])
def test_who_waits_for_the_others_hears_that_it_is_to_stop(rank: int, tmp_path: Path) -> None:
    with pytest.raises(StopRequested), joined(spec(2), session(tmp_path, ranks(rank), is_told=True)):
        pass


@pytest.mark.parametrize(
    ("rank", "words"), [(0, "1 of 2 processes are missing"), (1, "the first process does not answer at 127.0.0.1")]
)
def test_others_that_do_not_come_are_not_waited_for_for_ever(
    rank: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "_PATIENCE_SECONDS", 0.0)

    with pytest.raises(InterruptedUnsaved, match=words), joined(spec(2), session(tmp_path, ranks(rank))):
        pass


def test_the_first_process_listens_at_its_own_address_only(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidConfiguration, match="MASTER_ADDR must be an address of its machine"),
        joined(spec(2), session(tmp_path, ranks(0, host="192.0.2.1"))),
    ):
        pass


def test_who_waits_while_the_first_process_ends_is_interrupted_and_has_not_failed(tmp_path: Path) -> None:
    waiting = ranks(1, size=3)
    keeper = subprocess.Popen([sys.executable, "-c", _KEEPER, str(waiting.meeting.port)])
    try:
        with (
            pytest.raises(InterruptedUnsaved, match="the first process ended while"),
            joined(spec(3), session(tmp_path, waiting)),
        ):
            pass
    finally:
        keeper.kill()
        keeper.wait()


@pytest.fixture
def first_process() -> Iterator[Address]:
    """Where a first process has said that it is there, and has ended before it was connected; its store answers."""
    port = free_port()
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    store.set("lora/0/beat/0", "go 0")
    yield Address("127.0.0.1", port)
    del store


def test_a_process_that_is_lost_before_it_is_connected_is_not_waited_for_for_ever(
    first_process: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "_PATIENCE_TO_CONNECT", timedelta(seconds=1))
    waiting = replace(ranks(1), meeting=first_process)

    with (
        pytest.raises(InterruptedUnsaved, match="process 1 could not be connected to all others") as raised,
        joined(spec(2), session(tmp_path, waiting)),
    ):
        pass

    assert "See whether one ended meanwhile" in raised.value.hint


def test_who_is_lost_before_it_is_connected_is_named(
    first_process: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "_PATIENCE_TO_CONNECT", timedelta(seconds=1))
    monkeypatch.setattr(heartbeat, "_BEAT_SECONDS", 0.05)
    monkeypatch.setattr(heartbeat, "LOST_SECONDS", 0.2)
    waiting = replace(ranks(1), meeting=first_process)

    with (
        pytest.raises(InterruptedUnsaved, match="process 0 has not been heard of"),
        joined(spec(2), session(tmp_path, waiting)),
    ):
        pass


def test_once_connected_there_is_no_limit_to_the_wait_for_another(tmp_path: Path) -> None:
    with joined(spec(1), session(tmp_path, ranks(0, size=1))):
        group = distributed_c10d._get_default_group()
        limit = group._get_backend(torch.device("cpu")).options._timeout

    assert limit >= timedelta(days=30)


def test_gpus_are_connected_before_anything_is_on_them_and_nobody_waits_for_the_others_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch is asked on GPUs; there are none here."""
    asked: list[str] = []
    monkeypatch.setattr(rendezvous, "check_device", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: asked.append(f"device {number}"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: asked.append("synchronize"))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: asked.append(backend))
    monkeypatch.setattr(rendezvous, "_set_pg_timeout", lambda limit: asked.append(f"limit {limit.days} days"))
    monkeypatch.setattr(torch, "zeros", lambda *_, device: f"zeros on {device}")
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: asked.append(f"sum of {tensor}"))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: asked.append("destroy"))
    training = make_training(Path("/base"), Path("/data"), Path("/out"), parallelism={"gpusPerNode": 1})

    with joined(training.spec, session(tmp_path, ranks(0, size=1))):
        asked.append("train")

    assert asked == ["device 0", "cpu:gloo,cuda:nccl", "limit 30 days", "sum of zeros on cuda", "synchronize", "train"]


_KEEPER = """
import os, sys
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", int(sys.argv[1]), is_master=True, wait_for_workers=False)
store.get("lora/0/beat/1")
os._exit(75)
"""
"""A first process that is told to stop as soon as another one is there."""
