"""A repository of a hub, fetched by the real client library from a hub on loopback."""

import functools
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from lora_api.cluster_spec import Storage
from lora_trainer.errors import AccessDenied, BaseModelUnavailable, InvalidDataset, StorageUnavailable
from lora_trainer.settings import Settings
from lora_trainer.storage import Connection, Source, fetch
from tests.support.fake_hub import TOKEN, FakeHub, fake_hub

FILES = {"unet/weights.safetensors": b"w" * 100_000, "model_index.json": b"{}", "README.md": b"read me"}


@pytest.fixture(scope="module")
def _hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        hub.repositories = {"owner/sd": FILES, "owner/gated": FILES}
        hub.gated = {"owner/gated"}
        yield hub


@pytest.fixture
def hub(_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    _hub.requests.clear()
    download = functools.partial(huggingface_hub.snapshot_download, endpoint=_hub.endpoint)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "repo_info", huggingface_hub.HfApi(endpoint=_hub.endpoint).repo_info)
    return _hub


def test_pictures_come_from_a_dataset_repository(hub: FakeHub, tmp_path: Path) -> None:
    source = Source("hf://owner/sd", "spec.dataset.uri", InvalidDataset, repository="dataset")
    connection = Connection(Storage(), Settings(work_dir=tmp_path))

    fetch(source, tmp_path / "data", connection, on_bytes=lambda count: None, workers=1)

    assert hub.requests[0] == "GET /api/datasets/owner/sd"
    assert any(request.startswith("GET /datasets/owner/sd/resolve/") for request in hub.requests)


def fetch_from(uri: str, tmp_path: Path, *, token: str | None = None, counted: list[int] | None = None) -> Path:
    source = Source(uri, "spec.baseModel.uri", BaseModelUnavailable, ("*.json", "unet/*"))
    token_file = tmp_path / "token"
    if token:
        token_file.write_text(f"{token}\n")
    settings = Settings(work_dir=tmp_path, hub_token_file=token_file if token else None)
    on_bytes = (counted if counted is not None else []).append
    return fetch(source, tmp_path / "model", Connection(Storage(), settings), on_bytes=on_bytes, workers=2)


def test_only_the_wanted_files_arrive(hub: FakeHub, tmp_path: Path) -> None:
    counted: list[int] = []

    folder = fetch_from("hf://owner/sd", tmp_path, counted=counted)

    assert (folder / "unet" / "weights.safetensors").read_bytes() == FILES["unet/weights.safetensors"]
    assert (folder / "model_index.json").exists()
    assert not (folder / "README.md").exists()
    assert sum(counted) == 100_002


def test_a_second_start_fetches_nothing(hub: FakeHub, tmp_path: Path) -> None:
    fetch_from("hf://owner/sd", tmp_path)
    hub.requests.clear()

    fetch_from("hf://owner/sd", tmp_path)

    assert [request for request in hub.requests if request.startswith("GET") and "/resolve/" in request] == []


def test_a_revision_may_be_named(hub: FakeHub, tmp_path: Path) -> None:
    fetch_from("hf://owner/sd@v1", tmp_path)

    assert "GET /api/models/owner/sd/revision/v1" in hub.requests


def test_a_gated_model_opens_with_the_mounted_token(hub: FakeHub, tmp_path: Path) -> None:
    assert (fetch_from("hf://owner/gated", tmp_path, token=TOKEN) / "model_index.json").exists()


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_a_gated_model_without_the_right_token_is_refused(hub: FakeHub, tmp_path: Path, token: str | None) -> None:
    with pytest.raises(AccessDenied, match=r"spec\.baseModel\.uri: owner/gated is gated, and access was refused") as e:
        fetch_from("hf://owner/gated", tmp_path, token=token)

    assert "spec.baseModel.tokenSecretRef" in e.value.hint


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hf://owner/none", "there is no public repository owner/none"),
        ("hf://owner/sd@v2", "owner/sd has no revision v2"),
        ("hf://owner/sd space", "is no repository name; use hf://owner/repo"),
    ],
)
def test_what_is_not_there_is_the_spec_s_mistake(hub: FakeHub, tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(BaseModelUnavailable, match=rf"spec\.baseModel\.uri: .*{message}"):
        fetch_from(uri, tmp_path)


def test_a_repository_without_wanted_files_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["owner/text"] = {"README.md": b"x"}

    with pytest.raises(BaseModelUnavailable, match=r"hf://owner/text holds none of \*\.json, unet/\*"):
        fetch_from("hf://owner/text", tmp_path)


def test_a_hub_that_does_not_answer_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download = functools.partial(huggingface_hub.snapshot_download, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    with pytest.raises(StorageUnavailable, match="the hub does not answer, so owner/sd cannot be fetched"):
        fetch_from("hf://owner/sd", tmp_path)


def test_a_hub_that_is_switched_off_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub, "repo_info", offline)

    with pytest.raises(BaseModelUnavailable, match="is not here, and the hub is switched off"):
        fetch_from("hf://owner/sd", tmp_path)


def test_what_counting_raises_ends_the_transfer(hub: FakeHub, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(count_bytes: int) -> None:
        raise Stop

    source = Source("hf://owner/sd", "spec.baseModel.uri", BaseModelUnavailable)
    with pytest.raises(Stop):
        fetch(source, tmp_path / "m", Connection(Storage(), Settings(work_dir=tmp_path)), on_bytes=stop)


def test_half_precision_weights_are_left_where_the_full_ones_lie(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["owner/both"] = {
        "unet/a.safetensors": b"full",
        "unet/a.fp16.safetensors": b"half",
        "unet/b.fp16.safetensors": b"half",
    }

    folder = fetch_from("hf://owner/both", tmp_path)

    assert sorted(path.name for path in (folder / "unet").iterdir()) == ["a.safetensors", "b.fp16.safetensors"]
