"""Who lives, who was told to stop, who ended: each process hears it of all others."""

import threading
from dataclasses import dataclass, field

import pytest
from torch.distributed import HashStore, Store  # type: ignore[attr-defined]

from lora_trainer import heartbeat as heartbeat_module
from lora_trainer.heartbeat import LOST_SECONDS, Heartbeat, beating
from lora_trainer.settings import Address, Ranks
from lora_trainer.stopping import StopSignal


@dataclass
class Member:
    """One of two processes, on a clock that is set by hand."""

    rank: int
    store: Store
    launcher: int | None = None
    parent: int = 1
    now: float = 0.0
    stop: StopSignal = field(default_factory=StopSignal)

    def __post_init__(self) -> None:
        ranks = Ranks(self.rank, 2, self.rank, 2, Address("127.0.0.1", 1), launcher=self.launcher)
        self.store.set(f"beat/{self.rank}", "go 0")
        self.heartbeat = Heartbeat(self.store, ranks, self.stop, clock=lambda: self.now, parent=lambda: self.parent)


def pair(*, launcher: int | None = None, parent: int = 1) -> tuple[Member, Member]:
    store = HashStore()
    return Member(0, store), Member(1, store, launcher=launcher, parent=parent)


class BrokenStore:
    """What is left of the store when its process is gone."""

    def set(self, key: str, value: str) -> None:
        raise RuntimeError("Connection reset by peer\nmore")

    def multi_get(self, keys: list[str]) -> list[bytes]:
        raise RuntimeError("Connection reset by peer")


def test_two_that_beat_do_not_lose_each_other() -> None:
    one, other = pair()

    for moment in range(0, 10 * int(LOST_SECONDS), 20):
        for member in (one, other):
            member.now = float(moment)
            member.heartbeat.beat()

    assert (one.heartbeat.lost, other.heartbeat.lost) == (None, None)
    assert not one.stop() and not other.stop()


def test_one_that_falls_silent_is_lost_and_the_other_stops() -> None:
    one, other = pair()
    other.heartbeat.beat()
    one.heartbeat.beat()
    one.now = LOST_SECONDS - 1
    one.heartbeat.beat()
    assert one.heartbeat.lost is None

    one.now = LOST_SECONDS
    one.heartbeat.beat()

    assert one.heartbeat.lost == "process 1 has not been heard of for 45 s"
    assert one.stop()


def test_when_one_is_told_to_stop_all_are() -> None:
    one, other = pair()
    other.stop.tell()

    other.heartbeat.beat()
    one.heartbeat.beat()

    assert one.stop() and one.heartbeat.lost is None


def test_who_ends_badly_says_why_and_who_ends_well_is_not_missed() -> None:
    one, other = pair()
    other.heartbeat.leave("")
    one.heartbeat.beat()
    one.now = 10 * LOST_SECONDS
    one.heartbeat.beat()
    assert one.heartbeat.lost is None

    other.heartbeat.leave("InvalidDataset: a.png cannot be read")
    one.heartbeat.beat()

    assert one.heartbeat.lost == "process 1 ended (InvalidDataset: a.png cannot be read)"


def test_who_ends_because_all_were_told_to_stop_is_not_lost() -> None:
    one, other = pair()
    one.stop.tell()

    other.heartbeat.leave("Interrupted: told to stop at step 4")
    one.heartbeat.beat()

    assert one.heartbeat.lost is None


def test_all_are_lost_when_the_store_is_gone() -> None:
    stop = StopSignal()
    heartbeat = Heartbeat(BrokenStore(), Ranks(1, 2, 1, 2, Address("127.0.0.1", 1)), stop)

    heartbeat.beat()
    heartbeat.leave("nobody hears this")

    assert heartbeat.lost == "the place where the processes meet is gone (Connection reset by peer)"
    assert stop()


class SilentStore:
    """The store of a machine that is gone without a word: what is asked is never answered."""

    def __init__(self) -> None:
        self.is_asked, self.is_over = threading.Event(), threading.Event()

    def set(self, key: str, value: str) -> None:
        self.is_asked.set()
        self.is_over.wait()

    def multi_get(self, keys: list[str]) -> list[bytes]:
        raise RuntimeError("the test is over")


def test_a_store_that_does_not_answer_is_noticed_beside_the_beat_and_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat_module, "_LAST_BEAT_SECONDS", 0.01)
    store, stop, now = SilentStore(), StopSignal(), 0.0
    heartbeat = Heartbeat(store, Ranks(1, 2, 0, 1, Address("node-0", 1)), stop, clock=lambda: now)
    beat = threading.Thread(target=heartbeat.beat)
    beat.start()
    store.is_asked.wait()
    heartbeat.look()
    assert heartbeat.lost is None

    now = LOST_SECONDS
    heartbeat.look()
    heartbeat.leave("PeerLost")

    assert heartbeat.lost == "the place where the processes meet has not answered for 45 s"
    assert stop() and beat.is_alive()
    store.is_over.set()
    beat.join()


def test_a_beat_that_comes_too_late_does_not_take_the_last_word_back() -> None:
    one, other = pair()
    other.heartbeat.leave("")
    other.heartbeat.beat()

    assert other.store.get("beat/1") == b"end "
    one.heartbeat.beat()
    one.now = LOST_SECONDS
    one.heartbeat.beat()
    assert one.heartbeat.lost is None


def test_a_process_whose_launcher_is_gone_stops() -> None:
    _, other = pair(launcher=77, parent=77)
    other.heartbeat.beat()
    assert not other.stop()

    other.parent = 1
    other.heartbeat.beat()

    assert other.stop()


def test_the_thread_ends_with_the_context() -> None:
    one, _ = pair()

    with beating(one.heartbeat) as nothing:
        pass

    assert nothing is None and one.heartbeat.lost is None
