"""Every fault at every stage: a passing one is survived; after a lasting one what the bucket names still verifies.

Against a server that checks signatures and digests (SeaweedFS), behind a proxy that makes requests go wrong.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from lora_api.cluster_spec import Storage
from lora_api.run_manifest import RunManifest
from lora_demo.seaweed import ObjectStore
from lora_trainer.errors import AccessDenied, BaseModelUnavailable, InvalidDataset, StorageUnavailable
from lora_trainer.settings import Settings
from lora_trainer.storage import (
    Connection,
    Fence,
    Publisher,
    Source,
    describe,
    fetch,
    fetch_published,
    open_store,
    read_manifest,
)
from tests.support.fault_proxy import PASSING, FaultProxy, Kind, Rule, fault_proxy

BUCKET = "faults"
WEIGHTS = hashlib.sha256(b"weights").digest() * 5000
STATE = "state/step-10"
DENYING = (Kind.DENIED, Kind.EXPIRED_TOKEN)


@pytest.fixture(scope="module")
def proxy(real_store: ObjectStore) -> Iterator[FaultProxy]:
    client = boto3.client(
        "s3",
        endpoint_url=real_store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=real_store.access_key,
        aws_secret_access_key=real_store.secret_key,
    )
    client.create_bucket(Bucket=BUCKET)
    for key in ("base/model.safetensors", "data/1_a/x.png", "data/1_a/y.png"):
        client.put_object(Bucket=BUCKET, Key=key, Body=WEIGHTS)
    with fault_proxy(real_store.endpoint) as proxy:
        yield proxy


@dataclass(frozen=True)
class Place:
    """Where one test writes, through the proxy and past it."""

    folder: Path
    uri: str
    faulty: Connection
    straight: Connection

    def publisher(self, folder: str = "", *, straight: bool = False) -> Publisher:
        connection = self.straight if straight else self.faulty
        return Publisher(open_store(self.uri, connection, field="spec.output.uri", on_bytes=nothing), folder=folder)


@pytest.fixture
def place(real_store: ObjectStore, proxy: FaultProxy, tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text(real_store.access_key)
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text(real_store.secret_key)
    settings = Settings(work_dir=tmp_path / "work", credentials_dir=tmp_path)

    def connect(endpoint: str) -> Connection:
        return Connection(
            Storage(endpoint=endpoint), settings, attempts=2, pause=lambda _: None, read_timeout_seconds=0.3
        )

    yield Place(tmp_path, f"s3://{BUCKET}/{tmp_path.name}", connect(proxy.endpoint), connect(real_store.endpoint))
    proxy.reset()


def nothing(count_bytes: int) -> None:
    """Counts nothing."""


def publish(publisher: Publisher, place: Place, path: str) -> None:
    local = place.folder / "local.bin"
    local.write_bytes(WEIGHTS)
    publisher.publish(local, describe(local, path, "adapter"))


def manifest_of(publisher: Publisher) -> RunManifest:
    return RunManifest(
        complete=True,
        name="hina",
        spec_digest="a",
        dataset_digest="b",
        base_digest="c",
        epoch=1,
        step=10,
        total_steps=10,
        created_time="2026-01-01T00:00:00Z",
        files=publisher.files,
    )


def fetch_base(place: Place) -> None:
    source = Source(f"s3://{BUCKET}/base/model.safetensors", "spec.baseModel.uri", BaseModelUnavailable)
    assert fetch(source, place.folder / "base", place.faulty, on_bytes=nothing).read_bytes() == WEIGHTS


def fetch_data(place: Place) -> None:
    source = Source(f"s3://{BUCKET}/data", "spec.dataset.uri", InvalidDataset)
    folder = fetch(source, place.folder / "data", place.faulty, on_bytes=nothing, workers=2)
    assert [path.read_bytes() for path in folder.rglob("*.png")] == [WEIGHTS, WEIGHTS]


def upload_adapter(place: Place) -> None:
    publish(place.publisher(), place, "adapters/hina.safetensors")


def upload_state(place: Place) -> None:
    publisher = place.publisher(STATE)
    publish(publisher, place, "training.pt")
    publisher.publish_manifest(manifest_of(publisher))


def read_state(place: Place) -> None:
    writer = place.publisher(STATE, straight=True)
    publish(writer, place, "training.pt")
    writer.publish_manifest(manifest_of(writer))
    store = open_store(place.uri, place.faulty, field="spec.output.uri", on_bytes=nothing)
    manifest = read_manifest(store, folder=STATE)
    assert manifest is not None
    fetch_published(store, manifest, place.folder / "back", folder=STATE)
    assert (place.folder / "back" / "training.pt").read_bytes() == WEIGHTS


def write_final_manifest(place: Place) -> None:
    writer = place.publisher(straight=True)
    publish(writer, place, "adapters/hina.safetensors")
    publisher = place.publisher()
    publisher.restore(writer.files)
    publisher.publish_manifest(manifest_of(publisher))


@dataclass(frozen=True)
class Stage:
    """A step of a run, and the request of it that goes wrong."""

    run: Callable[[Place], None]
    method: str
    key: str


STAGES = {
    "fetch base": Stage(fetch_base, "GET", r"/base/model\.safetensors$"),
    "fetch data": Stage(fetch_data, "GET", r"/data/1_a/y\.png$"),
    "upload adapter": Stage(upload_adapter, "PUT", r"/adapters/hina\.safetensors$"),
    "upload state": Stage(upload_state, "PUT", r"/step-10/training\.pt$"),
    "upload state's manifest": Stage(upload_state, "PUT", r"/step-10/manifest\.json$"),
    "read state": Stage(read_state, "GET", r"/step-10/training\.pt$"),
    "read state's manifest": Stage(read_state, "GET", r"/step-10/manifest\.json$"),
    "final manifest": Stage(write_final_manifest, "PUT", r"/manifest\.json$"),
}


def combinations(kinds: tuple[Kind, ...]) -> list[tuple[str, Kind]]:
    return [
        (stage, kind)
        for stage in STAGES
        for kind in kinds
        if kind is not Kind.LOST_UPLOAD or STAGES[stage].method == "PUT"
    ]


def check_bucket(place: Place) -> int:
    """Every file that a manifest in the bucket names verifies; how many manifests there are."""
    store = open_store(place.uri, place.straight, field="spec.output.uri", on_bytes=nothing)
    found = 0
    for folder in ("", STATE):
        manifest = read_manifest(store, folder=folder)
        if manifest is not None:
            fetch_published(store, manifest, place.folder / "verified", folder=folder)
            found += 1
    return found


@pytest.mark.parametrize(("name", "kind"), combinations(PASSING))
def test_a_passing_fault_is_survived(proxy: FaultProxy, place: Place, name: str, kind: Kind) -> None:
    stage = STAGES[name]
    proxy.rules.append(Rule(kind, stage.method, stage.key))

    stage.run(place)

    assert proxy.injected == [kind]
    check_bucket(place)


@pytest.mark.parametrize(("name", "kind"), combinations((*PASSING, *DENYING)))
def test_after_a_lasting_fault_nothing_wrong_is_published(
    proxy: FaultProxy, place: Place, name: str, kind: Kind
) -> None:
    stage = STAGES[name]
    proxy.rules.append(Rule(kind, stage.method, stage.key, times=1000))

    if kind is Kind.LOST_ANSWER and stage.method == "PUT":
        # The store did it, and is asked: that is no failure.
        proxy.rules[0].times = 1
        stage.run(place)
    else:
        with pytest.raises(AccessDenied if kind in DENYING else StorageUnavailable):
            stage.run(place)

    done = stage.run is read_state
    if kind is Kind.LOST_ANSWER:
        done |= stage.run in {upload_state, write_final_manifest}
    assert check_bucket(place) == int(done)


@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_right_that_is_lost_half_way_ends_the_fetch_at_once(proxy: FaultProxy, place: Place, first: int) -> None:
    proxy.rules.append(Rule(Kind.DENIED, "GET", first=first, times=1000))

    with pytest.raises(AccessDenied, match=r"spec\.dataset\.uri: not allowed to (list|read) s3://faults/data"):
        fetch_data(place)

    assert proxy.injected.count(Kind.DENIED) <= 2


def test_an_expired_token_is_read_again_once(proxy: FaultProxy, place: Place) -> None:
    proxy.rules.append(Rule(Kind.EXPIRED_TOKEN, "GET", r"model\.safetensors$"))

    fetch_base(place)

    assert proxy.injected == [Kind.EXPIRED_TOKEN]


def test_a_wrong_clock_is_named_with_its_difference(proxy: FaultProxy, place: Place) -> None:
    proxy.rules.append(Rule(Kind.CLOCK_SKEW, "GET", times=1000))

    with pytest.raises(StorageUnavailable, match=r"this machine's clock is 3(600|599) s behind the store's") as caught:
        fetch_base(place)

    assert caught.value.hint == "Set the clock of the node, or of the store (NTP)."


@pytest.mark.parametrize("kind", [kind for kind in PASSING if kind is not Kind.LOST_UPLOAD])
def test_a_fence_survives_a_hiccup(proxy: FaultProxy, place: Place, kind: Kind) -> None:
    store = open_store(place.uri, place.faulty, field="spec.output.uri", on_bytes=nothing)
    proxy.rules += [Rule(kind, "PUT", r"owner\.json"), Rule(kind, "GET", r"owner\.json")]

    fence = Fence.acquire(store, owner="lora/hina", attempt=1, pod="p")
    fence.check()

    assert fence.token == 1
    assert len(proxy.injected) == 2
