"""lora_trainer.preflight: what can't train is found before a GPU is asked for, and nothing is published then."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from PIL import Image

from lora_api import LoraTraining, parse_training, spec_digest
from lora_trainer.errors import (
    AccessDenied,
    BaseModelUnavailable,
    Interrupted,
    InvalidConfiguration,
    InvalidDataset,
    TrainingError,
)
from lora_trainer.preflight import LOG_PATH, check_before_training
from lora_trainer.prepare import Session, prepare
from lora_trainer.results import PLAN_PATH
from lora_trainer.run import run_training
from tests.support.fake_hub import FakeHub, fake_hub
from tests.support.object_store import FaultyStore, faulty_store
from tests.support.tiny_run import Observed, make_session, make_session_until, make_training, write_pictures

SHORT: dict[str, Any] = {"training": {"maxSteps": 1}, "samples": {"prompts": []}}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A dataset of the test's own."""
    return write_pictures(tmp_path / "data")


@pytest.fixture
def training(tiny_pipeline: Path, pictures: Path, tmp_path: Path) -> Callable[..., LoraTraining]:
    """The training of these pictures, with changes."""
    return lambda **changes: make_training(tiny_pipeline, pictures, tmp_path / "out", **(SHORT | changes))


@pytest.fixture
def observed(tmp_path: Path) -> Observed:
    """A session that keeps a log."""
    there = make_session(tmp_path / "work")
    log = tmp_path / "attempt.log"
    log.write_text("what was done\n")
    return replace(there, session=replace(there.session, log_file=log))


def published(tmp_path: Path) -> set[str]:
    """Paths of what lies at the output."""
    out = tmp_path / "out"
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    return {path for path in files if not Path(path).name.startswith(".")}


def test_data_in_order_are_verified_with_their_plan(training: Any, observed: Observed, tmp_path: Path) -> None:
    ended = check_before_training(training(), observed.session)

    document = json.loads((tmp_path / "out" / PLAN_PATH).read_text())
    report = observed.tracker.snapshot()
    assert (ended.reason, published(tmp_path)) == ("Verified", {PLAN_PATH, LOG_PATH})
    assert ended.message == "3 pictures and 2 regularisation pictures, 1 steps in 1 epochs"
    assert report.plan is not None and document["plan"] == report.plan.to_document()
    assert document["datasetDigest"] == report.dataset_digest
    assert document["specDigest"] == spec_digest(training().spec)


def test_the_digest_told_is_that_of_the_training(training: Any, observed: Observed) -> None:
    check_before_training(training(), observed.session)

    prepared = prepare(training(), observed.session)
    assert observed.tracker.snapshot().dataset_digest == prepared.identity.dataset_digest
    assert prepared.identity.dataset_digest == prepared.provenance.dataset_digest
    assert prepared.identity.base_digest == prepared.provenance.base_digest


def _cut_short(folder: Path) -> None:
    path = folder / "0.png"
    Image.effect_noise((64, 64), 80).save(path)
    path.write_bytes(path.read_bytes()[:-900])


def _in_latin(folder: Path) -> None:
    (folder / "0.txt").write_bytes("café".encode("latin-1"))


def _animated(folder: Path) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "0.webp", save_all=True, append_images=frames[1:])


def _large(folder: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(folder / "0.png")


BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "cut short": (_cut_short, "0.png", "replace it"),
    "no picture": (lambda folder: (folder / "0.png").write_text("hello"), "0.png", "convert it to PNG or JPEG"),
    "empty": (lambda folder: (folder / "0.png").write_bytes(b""), "0.png", "convert it to PNG or JPEG"),
    "animation": (_animated, "0.webp", "save the frame you mean"),
    "too large": (_large, "0.png", "make it smaller"),
    "caption not in UTF-8": (_in_latin, "0.txt", "UTF-8"),
    "picture outside": (lambda folder: shutil.copy(folder / "0.png", folder.parent / "a.png"), "a.png", "move it"),
    "nested": (lambda folder: shutil.copytree(folder, folder / "more"), "more/", "move them up"),
    "folder without number": (lambda folder: folder.rename(folder.parent / "zwx"), "zwx", "10_"),
    "no pictures left": (shutil.rmtree, "holds no", "put pictures"),
    "broken metadata": (lambda folder: (folder / "metadata.jsonl").write_text("{"), "metadata.jsonl", "JSON"),
}


@pytest.mark.parametrize(("spoil", "name", "cure"), BAD.values(), ids=BAD.keys())
def test_bad_data_are_named_with_the_cure_and_nothing_but_the_log_is_published(
    spoil: Callable[[Path], object],
    name: str,
    cure: str,
    training: Any,
    pictures: Path,
    observed: Observed,
    tmp_path: Path,
) -> None:
    spoil(pictures / "2_zwx shape")

    with pytest.raises(InvalidDataset) as caught:
        check_before_training(training(), observed.session)

    assert caught.value.exit_code == 65
    assert name in str(caught.value)
    assert cure in str(caught.value)
    assert published(tmp_path) == {LOG_PATH}


def test_a_missing_caption_is_found_where_it_is_not_allowed(training: Any, pictures: Path, observed: Observed) -> None:
    (pictures / "2_zwx shape" / "1.txt").unlink()
    document = training().to_document()
    document["spec"]["dataset"]["captions"] = {"missing": "Fail"}

    with pytest.raises(InvalidDataset, match=r"2_zwx shape/1\.png has no caption file"):
        check_before_training(parse_training(document), observed.session)


def test_a_plan_that_cannot_be_is_refused(training: Any, observed: Observed, tmp_path: Path) -> None:
    changes = {"optimizer": {"schedule": {"warmupSteps": 50}}, "training": {"epochs": 1}}

    with pytest.raises(InvalidConfiguration, match="lower it or train longer"):
        check_before_training(training(**changes), observed.session)

    assert published(tmp_path) == {LOG_PATH}


def test_cut_captions_are_told_in_the_plan(training: Any, pictures: Path, observed: Observed) -> None:
    (pictures / "2_zwx shape" / "1.txt").write_text("cat, " * 100)

    check_before_training(training(), observed.session)

    plan = observed.tracker.snapshot().plan
    assert plan is not None and any("longer than 75 tokens" in warning for warning in plan.warnings)


def test_a_missing_base_model_is_found_before_the_pictures_are_fetched(
    training: Any, pictures: Path, observed: Observed
) -> None:
    shutil.rmtree(pictures)

    with pytest.raises(BaseModelUnavailable, match=r"spec\.baseModel\.uri: .* does not exist"):
        check_before_training(training(baseModel={"uri": "file:///nowhere/model"}), observed.session)


def test_a_base_model_of_another_family_is_found(training: Any, observed: Observed) -> None:
    base = training().spec.base_model.uri

    with pytest.raises(InvalidConfiguration, match=r"spec\.baseModel\.family is sdxl"):
        check_before_training(training(baseModel={"uri": base, "family": "sdxl"}), observed.session)


def test_an_output_that_cannot_be_written_is_found(training: Any, observed: Observed, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    with pytest.raises(TrainingError, match=re.escape(str(tmp_path / "out"))):
        check_before_training(training(), observed.session)


def test_told_to_stop_it_ends_as_interrupted(training: Any, tmp_path: Path) -> None:
    questions = iter(range(100))
    session = replace(make_session(tmp_path / "work").session, should_stop=lambda: next(questions) > 2)

    with pytest.raises(Interrupted, match="nothing was lost") as caught:
        check_before_training(training(), session)

    assert caught.value.exit_code == 75


@pytest.fixture(scope="module")
def _trained(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    training = make_training(tiny_pipeline, write_pictures(folder / "data"), folder / "out", **SHORT)
    run_training(training, make_session(folder / "work").session)
    return folder / "out"


@pytest.fixture
def trained(_trained: Path, tmp_path: Path) -> None:
    """The output holds the finished training."""
    shutil.copytree(_trained, tmp_path / "out")


@pytest.mark.usefixtures("trained")
def test_a_trained_run_is_told_with_its_results(training: Any, observed: Observed) -> None:
    ended = check_before_training(training(), observed.session)

    report = observed.tracker.snapshot()
    assert ended.reason == "AlreadyTrained"
    assert [checkpoint.step for checkpoint in report.checkpoints] == [1]
    assert report.artifacts is not None and str(report.artifacts.adapter_uri).endswith("adapters/tiny.safetensors")


@pytest.mark.usefixtures("trained")
def test_the_output_of_another_run_is_refused_with_what_differs(
    training: Any, pictures: Path, observed: Observed
) -> None:
    (pictures / "2_zwx shape" / "1.txt").write_text("another caption")

    with pytest.raises(InvalidConfiguration) as caught:
        check_before_training(training(network={"rank": 2}), observed.session)

    assert "spec.network.rank was 4 and is 2" in str(caught.value)
    assert "1 picture or its caption changed: 2_zwx shape/1.png" in str(caught.value)


@pytest.fixture
def interrupted(training: Any, tmp_path: Path) -> None:
    """The output holds a state after the first of two steps."""
    with pytest.raises(Interrupted):
        run_training(training(training={"maxSteps": 2}), make_session_until(tmp_path / "work", step=1).session)


@pytest.mark.usefixtures("interrupted")
def test_a_state_of_the_same_run_is_in_order(training: Any, observed: Observed) -> None:
    assert check_before_training(training(training={"maxSteps": 2}), observed.session).reason == "Verified"


@pytest.mark.usefixtures("interrupted")
def test_a_state_of_other_pictures_is_refused_unless_told_otherwise(
    training: Any, pictures: Path, observed: Observed
) -> None:
    Image.new("RGB", (64, 64), "white").save(pictures / "2_zwx shape" / "new.png")
    changes: dict[str, Any] = {"training": {"maxSteps": 2}}

    with pytest.raises(InvalidConfiguration, match=r"1 picture is new: 2_zwx shape/new\.png"):
        check_before_training(training(**changes), observed.session)

    ended = check_before_training(training(**changes, resume={"onChange": "Continue"}), observed.session)
    assert ended.reason == "Verified"


@pytest.fixture(scope="module")
def _server() -> Iterator[FaultyStore]:
    with faulty_store() as store:
        yield store


@pytest.fixture
def remote(_server: FaultyStore, tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path) -> "Remote":
    """Base and pictures in a bucket."""
    _server.reset()
    bucket = _server.make_bucket()
    for prefix, folder in (("base", tiny_pipeline), ("data", tiny_pictures)):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            _server.client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")
    _server.reset()
    return Remote(_server, bucket, _server.connection(tmp_path).settings.credentials_dir)


class Remote:
    """A bucket with a training's base and pictures."""

    def __init__(self, store: FaultyStore, bucket: str, credentials: Path | None) -> None:
        self.store, self.bucket, self.credentials = store, bucket, credentials

    def training(self, base: str | None = None) -> LoraTraining:
        """The training, its output in the same bucket."""
        places = {name: f"s3://{self.bucket}/{name}" for name in ("base", "data", "out")}
        document = make_training(Path("/base"), Path("/data"), Path("/out"), **SHORT).to_document()
        document["spec"]["baseModel"]["uri"] = base or places["base"]
        document["spec"]["dataset"]["uri"] = places["data"]
        document["spec"]["output"]["uri"] = places["out"]
        document["spec"]["storage"] = {"endpoint": self.store.endpoint}
        return parse_training(document)

    def session(self, folder: Path, cache: Path | None) -> Session:
        """A session of a pod with a work directory of its own."""
        session = make_session(folder).session
        settings = replace(session.settings, cache_dir=cache, credentials_dir=self.credentials)
        return replace(session, settings=settings)

    def fetched(self, prefix: str) -> list[str]:
        """Requests since the last reset that read an object below `prefix`."""
        return [request for request in self.store.requests if request.startswith(f"GET /{self.bucket}/{prefix}/")]


def test_with_a_cache_the_training_fetches_nothing_more(remote: Remote, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    check_before_training(remote.training(), remote.session(tmp_path / "first", cache))
    assert remote.fetched("base") and remote.fetched("data")
    remote.store.reset()

    prepare(remote.training(), remote.session(tmp_path / "second", cache))

    assert remote.fetched("base") == remote.fetched("data") == []


def test_without_a_cache_the_base_is_asked_for_but_not_fetched(remote: Remote, tmp_path: Path) -> None:
    check_before_training(remote.training(), remote.session(tmp_path / "first", None))

    assert remote.fetched("base") == []
    assert remote.fetched("data")


def test_a_bucket_without_the_base_is_found_without_a_cache(remote: Remote, tmp_path: Path) -> None:
    training = remote.training(base=f"s3://{remote.bucket}/bas")

    with pytest.raises(BaseModelUnavailable, match=r"spec\.baseModel\.uri: there are no files"):
        check_before_training(training, remote.session(tmp_path / "first", None))

    assert remote.fetched("data") == []


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with an open and a gated model."""
    with fake_hub() as hub:
        api = huggingface_hub.HfApi(endpoint=hub.endpoint)
        monkeypatch.setattr(huggingface_hub, "repo_info", api.repo_info)
        monkeypatch.setattr(huggingface_hub, "auth_check", api.auth_check)
        for name in ("owner/open", "owner/gated"):
            hub.repositories[name] = {"model_index.json": b"{}"}
        hub.gated.add("owner/gated")
        yield hub


def test_a_gated_model_is_found_without_fetching_it(hub: FakeHub, remote: Remote, tmp_path: Path) -> None:
    session = remote.session(tmp_path / "first", None)

    with pytest.raises(AccessDenied, match="owner/gated is gated"):
        check_before_training(remote.training(base="hf://owner/gated"), session)


def test_a_model_of_the_hub_is_asked_for_but_not_fetched(hub: FakeHub, remote: Remote, tmp_path: Path) -> None:
    ended = check_before_training(remote.training(base="hf://owner/open"), remote.session(tmp_path / "first", None))

    assert ended.reason == "Verified"
    assert not any("/resolve/" in request for request in hub.requests)
