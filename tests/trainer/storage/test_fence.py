"""The newest start owns the output; whoever was there before finds out before it writes."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lora_api.run_manifest import MANIFEST_NAME, RunManifest
from lora_trainer.errors import InvalidConfiguration, Superseded
from lora_trainer.storage import Fence, Publisher, Store, describe, open_store, read_manifest
from lora_trainer.storage.fence import OWNER_KEY
from lora_trainer.storage.store import ABSENT, Changed
from tests.support.object_store import Fault, FaultyStore

HINA = "lora/hina (uid-1)"


def nothing(count_bytes: int) -> None:
    """Counts nothing."""


@pytest.fixture(params=["s3", "s3 without conditions", "file"])
def open_output(request: pytest.FixtureRequest, store: FaultyStore, tmp_path: Path) -> Callable[[], Store]:
    uri = f"file://{tmp_path}/out/hina" if request.param == "file" else f"s3://{store.make_bucket()}/runs/hina"
    if request.param == "s3 without conditions":
        store.faults.append(Fault("PUT", header="If-", status=501, code="NotImplemented"))
    return lambda: open_store(uri, store.connection(tmp_path), field="spec.output.uri", on_bytes=nothing)


def acquire(store: Store, *, owner: str = HINA, attempt: int = 1, pod: str = "hina-a1-0/uid") -> Fence:
    return Fence.acquire(store, owner=owner, attempt=attempt, pod=pod)


def test_each_start_gets_the_next_token(open_output: Callable[[], Store]) -> None:
    tokens = [acquire(open_output(), attempt=attempt).token for attempt in (1, 1, 2)]

    assert tokens == [1, 2, 3]


def test_the_pods_of_an_owner_that_started_are_counted_each_once(open_output: Callable[[], Store]) -> None:
    pods = [("lora/miku (uid-2)", "a"), ("lora/miku (uid-2)", "b"), (HINA, "c"), (HINA, "d"), (HINA, "d")]

    starts = [acquire(open_output(), owner=owner, pod=pod).starts for owner, pod in pods]

    assert starts == [1, 2, 1, 2, 2]


def test_starts_outside_a_cluster_count_each(open_output: Callable[[], Store]) -> None:
    assert [acquire(open_output(), pod="").starts for _ in range(2)] == [1, 2]


def test_the_newest_start_may_write(open_output: Callable[[], Store]) -> None:
    acquire(open_output())

    acquire(open_output()).check()


def test_an_earlier_pod_of_the_same_training_is_superseded(open_output: Callable[[], Store]) -> None:
    ghost = acquire(open_output(), attempt=1)
    acquire(open_output(), attempt=2, pod="hina-a2-0/uid")

    with pytest.raises(Superseded, match=r"attempt 2, pod hina-a2-0/uid has taken over; this process writes") as caught:
        ghost.check()
    assert caught.value.hint == "Nothing has to be done: the other process goes on."


def test_a_pod_of_an_earlier_attempt_does_not_even_begin(open_output: Callable[[], Store]) -> None:
    newest = acquire(open_output(), attempt=2)

    with pytest.raises(Superseded, match=r"attempt 1 comes after .* attempt 2"):
        acquire(open_output(), attempt=1)

    newest.check()


def test_a_training_learns_that_another_one_took_its_folder(open_output: Callable[[], Store]) -> None:
    first = acquire(open_output())
    acquire(open_output(), owner="lora/miku (uid-2)")

    with pytest.raises(InvalidConfiguration, match=r"another training writes to .*lora/miku.*an output folder of its"):
        first.check()


def test_a_record_that_was_tidied_away_is_no_successor(open_output: Callable[[], Store]) -> None:
    output = open_output()
    fence = acquire(output)
    output.delete(OWNER_KEY)

    fence.check()

    assert acquire(open_output()).token == 2


@pytest.mark.parametrize("open_output", ["s3", "file"], indirect=True)
def test_two_starts_at_once_never_share_a_token(open_output: Callable[[], Store]) -> None:
    together = threading.Barrier(3)

    def start(output: Store) -> int:
        together.wait(timeout=60)
        return acquire(output).token

    with ThreadPoolExecutor(3) as pool:
        tokens = list(pool.map(start, [open_output() for _ in range(3)]))

    assert max(tokens) == len(set(tokens))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"owner": "x"}', b'{"a": 1}', b"\xff"])
def test_a_record_that_is_not_ours_is_refused(open_output: Callable[[], Store], content: bytes) -> None:
    output = open_output()
    output.put_bytes(content, OWNER_KEY)

    with pytest.raises(InvalidConfiguration, match=r"state/owner\.json is not ours; choose another folder or remove"):
        acquire(output)


@pytest.mark.parametrize("changes", [{"starts": None}, {"region": "eu"}], ids=["older", "newer"])
def test_a_record_of_another_version_is_followed_by_the_next_token(
    open_output: Callable[[], Store], changes: dict[str, str | None]
) -> None:
    output, token = open_output(), acquire(open_output()).token
    record = json.loads(output.get_bytes(OWNER_KEY)) | changes
    output.put_bytes(json.dumps({name: value for name, value in record.items() if value}).encode(), OWNER_KEY)

    assert acquire(output).token == token + 1


def test_a_condition_that_does_not_hold_writes_nothing(open_output: Callable[[], Store]) -> None:
    output = open_output()
    output.put_bytes(b"old", "x")
    old = output.get_versioned("x").version
    output.put_bytes(b"new", "x", only_if=old)

    for version in (old, ABSENT):
        with pytest.raises(Changed):
            output.put_bytes(b"other", "x", only_if=version)

    assert output.get_bytes("x") == b"new"


def test_a_lost_answer_to_a_conditional_write_is_no_other_writer(store: FaultyStore, tmp_path: Path) -> None:
    output = open_store(f"s3://{store.make_bucket()}/r", store.connection(tmp_path), field="f", on_bytes=nothing)
    store.faults.append(Fault("PUT", "owner.json", lose_answer=True, times=1))

    assert acquire(output).token == 1


def manifest_of(publisher: Publisher, name: str) -> RunManifest:
    return RunManifest(
        complete=True,
        name=name,
        spec_digest="a",
        dataset_digest="b",
        base_digest="c",
        epoch=1,
        step=10,
        total_steps=10,
        created_time="2026-01-01T00:00:00Z",
        files=publisher.files,
    )


def test_a_ghost_publishes_nothing(open_output: Callable[[], Store], tmp_path: Path) -> None:
    ghost = acquire(open_output())
    output = open_output()
    acquire(output)
    local = tmp_path / "x.bin"
    local.write_bytes(b"x")
    publisher = Publisher(output, check_owner=ghost.check)

    with pytest.raises(Superseded):
        publisher.publish(local, describe(local, "adapters/x.bin", "adapter"))
    with pytest.raises(Superseded):
        publisher.publish_manifest(manifest_of(publisher, "hina"))

    assert output.list() == [OWNER_KEY]


def test_a_manifest_that_appeared_after_the_last_check_is_not_overwritten(
    open_output: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = open_output()
    fence = acquire(output)
    publisher = Publisher(output, check_owner=lambda: fence.check())
    check = fence.check

    def check_then_lose_the_output() -> None:
        check()
        successor = Publisher(output, check_owner=acquire(output).check)
        successor.publish_manifest(manifest_of(successor, "successor"))

    monkeypatch.setattr(fence, "check", check_then_lose_the_output)

    with pytest.raises(Superseded):
        publisher.publish_manifest(manifest_of(publisher, "ghost"))

    kept = read_manifest(output)
    assert kept is not None
    assert kept.name == "successor"
    assert MANIFEST_NAME in output.list()
