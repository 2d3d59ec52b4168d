"""What processes tell each other; each is a thread here, connected by gloo."""

import pytest
import torch
from torch import Tensor

from lora_trainer.world import PeerLost, WeightsDiffer, Word, World
from tests.support.company import raised, together


@pytest.fixture(autouse=True)
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")


def test_the_greatest_word_holds_for_all() -> None:
    words = (Word.GO, Word.STOP, Word.TOO_LARGE)

    assert together(3, lambda world: world.agree(words[world.rank])) == [Word.STOP] * 3


def test_a_flag_is_set_where_one_process_set_it() -> None:
    found = together(2, lambda world: world.any_of([world.rank == 0, world.rank == 5, True]))

    assert found == [[True, False, True]] * 2


def test_tensors_are_added_up_in_all_processes() -> None:
    def add_up(world: World) -> list[float]:
        tensor = torch.tensor([1.0, float(world.rank)])
        world.add_up(tensor)
        return [float(value) for value in tensor]

    assert together(4, add_up) == [[4.0, 6.0]] * 4


@pytest.mark.parametrize("data", [b"", b"what the lead said"])
def test_all_get_what_the_lead_gave(data: bytes) -> None:
    assert together(3, lambda world: world.from_lead(data if world.is_lead else b"others")) == [data] * 3


def test_all_get_what_each_gave() -> None:
    given = [b"one", b"", b"another"]

    assert together(3, lambda world: list(world.from_each(given[world.rank]))) == [given] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_weights_pass_and_one_other_bit_does_not(dtype: torch.dtype) -> None:
    def weights(change: float) -> dict[str, Tensor]:
        return {"a": torch.ones(3, dtype=dtype), "scalar": torch.tensor(1.0 + change, dtype=dtype)}

    equal = together(2, lambda world: raised(lambda: world.check_equal(weights(0), step=7)))
    others = together(2, lambda world: raised(lambda: world.check_equal(weights(world.rank / 64), step=7)))

    assert equal == [None, None]
    assert all(isinstance(error, WeightsDiffer) and "after step 7" in str(error) for error in others)


def test_a_process_that_is_alone_needs_no_connection() -> None:
    world, tensor = World(), torch.ones(2)

    world.add_up(tensor)
    world.wait_for_all()
    world.check_equal({"a": tensor}, step=1)

    assert world.is_lead
    assert (world.agree(Word.GO), world.any_of([True, False]), world.from_lead(b"x")) == (Word.GO, [True, False], b"x")
    assert list(world.from_each(b"x")) == [b"x"]
    assert tensor.tolist() == [1.0, 1.0]


def test_a_wait_ends_when_a_process_is_lost() -> None:
    heard: list[Exception | None] = []

    def work(world: World) -> None:
        if world.rank == 1:
            raise OSError("gone")
        heard.append(raised(world.wait_for_all))

    with pytest.raises(OSError, match="gone"):
        together(2, work, limit_seconds=2)

    assert isinstance(heard[0], PeerLost) and str(heard[0]) == "another process is lost"


def test_a_lost_connection_is_told_in_a_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(
            "[/src/gloo/pair.cc:553] Connection closed by peer [10.0.0.7]:21684. This is typically\nmore"
        )

    monkeypatch.setattr(torch.distributed, "all_reduce", refuse)

    with pytest.raises(PeerLost) as lost:
        World(1, 2).wait_for_all()

    assert (
        str(lost.value) == "process 1 lost its connection to another one (Connection closed by peer [10.0.0.7]:21684)"
    )
