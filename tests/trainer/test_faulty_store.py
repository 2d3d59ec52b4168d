"""Whole runs against a store that fails: a passing fault changes no byte, a lasting one leaves only what verifies.

Pictures and output lie in SeaweedFS behind a proxy; every run goes on from a state of step 1 and makes step 2.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from lora_api import MANIFEST_NAME, LoraTraining, RunManifest
from lora_demo.seaweed import ObjectStore, seaweed
from lora_trainer import prepare
from lora_trainer.errors import AccessDenied, Interrupted, StorageUnavailable, TrainingError
from lora_trainer.run import run_training
from lora_trainer.storage import Connection
from tests.support.fault_proxy import FaultProxy, Kind, Rule, fault_proxy
from tests.support.tiny_run import FEW_BLOCKS, Observed, make_session, make_session_until, make_training

BUCKET = "runs"
LASTING = 1_000_000
TRIES = 4
READ_TIMEOUT_SECONDS = 0.5
CHANGES: dict[str, Any] = {
    "network": {"blocks": FEW_BLOCKS},
    "training": {"epochs": 1, "maxSteps": 2, "batchSize": 2, "precision": "fp32", "seed": 3},
    "samples": {"prompts": []},
}

STAGES: dict[str, tuple[str, str]] = {
    "fetch the pictures": ("GET", r"/data/2_zwx shape/1\.png$"),
    "read the owner": ("GET", r"/state/owner\.json$"),
    "write the owner": ("PUT", r"/state/owner\.json$"),
    "read the state": ("GET", r"/state/step-1-[^/]*/training\.pt$"),
    "upload the adapter": ("PUT", r"/adapters/tiny-000001\.safetensors$"),
    "upload the state": ("PUT", r"/state/step-2-[^/]*/training\.pt$"),
    "write the state's manifest": ("PUT", r"/state/step-2-[^/]*/manifest\.json$"),
    "write the final manifest": ("PUT", rf"^/{BUCKET}/[^/]+/manifest\.json$"),
}
"""Method and path of the request that goes wrong."""

PASSING = (
    Kind.INTERNAL_ERROR,
    Kind.SLOW_DOWN,
    Kind.CUT_BODY,
    Kind.WRONG_BYTES,
    Kind.STALL,
    Kind.CLOCK_SKEW,
    Kind.RESET,
    Kind.LOST_ANSWER,
)
LASTING_FAULTS: list[tuple[str, Kind, type[TrainingError]]] = [
    ("fetch the pictures", Kind.DENIED, AccessDenied),
    ("read the owner", Kind.STALL, StorageUnavailable),
    ("write the owner", Kind.SLOW_DOWN, StorageUnavailable),
    ("read the state", Kind.CUT_BODY, StorageUnavailable),
    ("upload the adapter", Kind.WRONG_BYTES, StorageUnavailable),
    ("upload the state", Kind.RESET, StorageUnavailable),
    ("write the state's manifest", Kind.DENIED, AccessDenied),
    ("write the final manifest", Kind.CLOCK_SKEW, StorageUnavailable),
]
"""In the order of a run; the second picture is refused after the first one was given."""


@dataclass(frozen=True)
class Bucket:
    """The store past the proxy, and what an undisturbed run leaves."""

    client: Any
    credentials: Path
    base: Path

    def keys(self, prefix: str) -> list[str]:
        answer = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for entry in answer.get("Contents", [])]

    def read(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def results(self, output: str) -> dict[str, bytes]:
        """Adapters and the history of the metrics, by their path in the output."""
        keys = [key for folder in ("adapters/", "evaluation/") for key in self.keys(f"{output}/{folder}")]
        return {key.removeprefix(f"{output}/"): self.read(key) for key in keys}

    def copy(self, source: str, target: str) -> None:
        for key in self.keys(f"{source}/"):
            place = {"Bucket": BUCKET, "Key": key}
            self.client.copy_object(Bucket=BUCKET, Key=target + key.removeprefix(source), CopySource=place)

    def manifests(self, output: str) -> dict[str, RunManifest]:
        """Every manifest of an output, once each file that it names was read and compared."""
        keys = [key for key in self.keys(f"{output}/") if key.endswith(f"/{MANIFEST_NAME}")]
        manifests = {key: RunManifest.model_validate_json(self.read(key)) for key in keys}
        for key, manifest in manifests.items():
            folder = key.rpartition("/")[0]
            for file in manifest.files:
                assert hashlib.sha256(self.read(f"{folder}/{file.path}")).hexdigest() == file.sha256, file.path
        return manifests

    def is_complete(self, output: str) -> bool:
        return any(manifest.complete for manifest in self.manifests(output).values())

    def training(self, endpoint: str, output: str) -> LoraTraining:
        places = {
            "dataset": {"uri": f"s3://{BUCKET}/data"},
            "output": {"uri": f"s3://{BUCKET}/{output}", "name": "tiny"},
            "storage": {"endpoint": endpoint},
        }
        return make_training(self.base, self.base, self.base, **CHANGES, **places)

    def admit(self, observed: Observed) -> Observed:
        """`observed` with the credentials of the store."""
        settings = replace(observed.session.settings, credentials_dir=self.credentials)
        return replace(observed, session=replace(observed.session, settings=settings))


@pytest.fixture(scope="module", autouse=True)
def _impatient() -> Iterator[None]:
    """Few tries without pauses, for every connection of a run."""
    connect = Connection.for_section

    def connect_impatiently(*place: Any) -> Connection:
        return replace(connect(*place), attempts=TRIES, pause=lambda _: None, read_timeout_seconds=READ_TIMEOUT_SECONDS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "for_section", connect_impatiently)
        patch.setattr(prepare, "_PATIENT_ATTEMPTS", TRIES)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    folder = tmp_path_factory.mktemp("seaweed")
    with seaweed(folder / "data", folder) as store:
        yield store


@pytest.fixture(scope="module")
def bucket(
    server: ObjectStore, tiny_pipeline: Path, tiny_pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bucket:
    """With the pictures, an undisturbed run at `whole`, and one that was interrupted after step 1 at `begun`."""
    folder = tmp_path_factory.mktemp("credentials")
    (folder / "AWS_ACCESS_KEY_ID").write_text(server.access_key)
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(server.secret_key)
    client: Any = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    client.create_bucket(Bucket=BUCKET)
    for path in (path for path in tiny_pictures.rglob("*") if path.is_file()):
        client.upload_file(str(path), BUCKET, f"data/{path.relative_to(tiny_pictures).as_posix()}")
    bucket = Bucket(client, folder, tiny_pipeline)
    work = tmp_path_factory.mktemp("work")
    run_training(bucket.training(server.endpoint, "whole"), bucket.admit(make_session(work / "whole")).session)
    assert {"adapters/tiny-000001.safetensors", "adapters/tiny.safetensors"} < bucket.results("whole").keys()
    begun = bucket.admit(make_session_until(work / "begun", step=1))
    with pytest.raises(Interrupted):
        run_training(bucket.training(server.endpoint, "begun"), begun.session)
    return bucket


@pytest.fixture(scope="module")
def _proxy(server: ObjectStore) -> Iterator[FaultProxy]:
    with fault_proxy(server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def proxy(_proxy: FaultProxy) -> Iterator[FaultProxy]:
    """No fault at first."""
    yield _proxy
    _proxy.reset()


@pytest.fixture
def output(bucket: Bucket, tmp_path: Path) -> str:
    """An output of its own, with the state of step 1."""
    bucket.copy("begun", tmp_path.name)
    return tmp_path.name


@pytest.fixture
def start(bucket: Bucket, proxy: FaultProxy, output: str, tmp_path: Path) -> Callable[[str], tuple[str, int | None]]:
    """Runs behind the proxy with a work folder of this name; how it ended, and the step it went on from."""

    def run(work: str) -> tuple[str, int | None]:
        observed = bucket.admit(make_session(tmp_path / work))
        ended = run_training(bucket.training(proxy.endpoint, output), observed.session)
        return ended.reason, observed.tracker.snapshot().resumed_from_step

    return run


@pytest.mark.parametrize("shift", (0, 4))
def test_a_run_survives_one_fault_at_each_stage_without_a_trace(
    bucket: Bucket, proxy: FaultProxy, output: str, start: Callable[[str], tuple[str, int | None]], shift: int
) -> None:
    kinds = PASSING[shift:] + PASSING[:shift]
    proxy.rules += [Rule(kind, *stage) for kind, stage in zip(kinds, STAGES.values(), strict=True)]

    ended = start("work")

    assert ended == ("Completed", 1)
    assert sorted(proxy.injected) == sorted(PASSING)
    assert bucket.results(output) == bucket.results("whole")
    assert bucket.is_complete(output)


def test_every_start_that_a_lasting_fault_ends_names_only_what_is_there_and_the_last_completes(
    bucket: Bucket, proxy: FaultProxy, output: str, start: Callable[[str], tuple[str, int | None]]
) -> None:
    for number, (stage, kind, error) in enumerate(LASTING_FAULTS):
        proxy.reset()
        proxy.rules.append(Rule(kind, *STAGES[stage], times=LASTING))

        with pytest.raises(error):
            start(f"work-{number}")

        assert set(proxy.injected) == {kind}, stage
        manifests = bucket.manifests(output)
        assert manifests and not any(manifest.complete for manifest in manifests.values()), stage

    proxy.reset()
    assert start("after") == ("Completed", 2)
    assert bucket.results(output) == bucket.results("whole")
    assert bucket.is_complete(output)
