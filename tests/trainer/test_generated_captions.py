"""lora_trainer.generated_captions: a training whose pictures have no captions, with a real BLIP of random weights."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lora_trainer import generated_captions
from lora_trainer.captioning.blip import load_captioner
from lora_trainer.captioning.search import Search
from lora_trainer.data.images import read_rgb
from lora_trainer.errors import BaseModelUnavailable, Interrupted, InvalidConfiguration, InvalidDataset
from lora_trainer.generated_captions import CAPTIONS_PATH, with_generated_captions
from lora_trainer.lora.formats import read_adapter
from lora_trainer.preflight import check_before_training
from lora_trainer.prepare import Prepared, open_output, prepare
from lora_trainer.run import run_training
from lora_trainer.stopping import StopRequested
from tests.support.tiny_blip import write_tiny_blip
from tests.support.tiny_run import FEW_BLOCKS, make_session, make_session_until, make_training

CPU = torch.device("cpu")
SEARCH = Search(beams=2, min_tokens=2, max_tokens=6)
Make = Callable[..., Prepared]


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_blip(tmp_path_factory.mktemp("blip") / "tiny")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures without captions, one with, and a regularisation picture without."""
    root = tmp_path / "data"
    for name, colour in (("2_zwx man/a.png", "red"), ("2_zwx man/b.png", "blue"), ("2_zwx man/c.png", "green")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), colour).save(root / name)
    (root / "2_zwx man" / "c.txt").write_text("zwx man by hand")
    (root / "reg" / "1_man").mkdir(parents=True)
    Image.new("RGB", (64, 64), "white").save(root / "reg" / "1_man" / "r.png")
    return root


@pytest.fixture
def make(tiny_pipeline: Path, pictures: Path, blip: Path, tmp_path: Path) -> Callable[..., Any]:
    """Makes a training with generated captions."""

    def training(output: str = "out", **generate: Any) -> Any:
        settings = {"modelUri": blip.as_uri(), "beams": 2, "minTokens": 2, "maxTokens": 6, **generate}
        dataset = {"captions": {"missing": "Generate", "generate": settings}}
        return make_training(
            tiny_pipeline,
            pictures,
            tmp_path / output,
            dataset=dataset,
            network={"blocks": FEW_BLOCKS},
            training={"epochs": 1},
            samples={"prompts": []},
        )

    return training


def captioned(training: Any, work_dir: Path) -> Prepared:
    session = make_session(work_dir).session
    return with_generated_captions(prepare(training, session), open_output(training.spec, session), CPU, session)


def captions_of(prepared: Prepared) -> dict[str, str]:
    return {example.key: example.caption for example in prepared.dataset.scanned.examples}


def no_model(*_: Any, **__: Any) -> None:
    raise AssertionError("the model was loaded")


def test_every_picture_without_caption_gets_the_models_words_after_its_folders(
    make: Make, pictures: Path, blip: Path, tmp_path: Path
) -> None:
    captioner = load_captioner(blip, CPU, field="x")

    found = captions_of(captioned(make(), tmp_path / "work"))

    assert found.pop("2_zwx man/c.png") == "zwx man by hand"
    assert len(found) == 3
    for key, caption in found.items():
        [description] = captioner.describe([read_rgb(pictures / key)], SEARCH)
        trigger = "man" if key.startswith("reg/") else "zwx man"
        assert caption == (description if trigger in description.split() else f"{trigger}, {description}")


def test_pictures_to_train_on_have_the_same_captions(make: Make, tmp_path: Path) -> None:
    prepared = captioned(make(), tmp_path / "work")

    assert tuple(picture.example for picture in prepared.dataset.pictures) == prepared.dataset.scanned.examples
    assert all(example.caption_lines == (example.caption,) for example in prepared.dataset.scanned.examples)


def test_prefix_and_suffix_are_put_around_generated_captions_only(make: Make, tmp_path: Path) -> None:
    found = captions_of(captioned(make(trigger="None", prefix="photo:", suffix="35 mm"), tmp_path / "work"))

    assert found.pop("2_zwx man/c.png") == "zwx man by hand"
    assert all(caption.startswith("photo: ") and caption.endswith(" 35 mm") for caption in found.values())
    assert not any("zwx" in caption for caption in found.values())


def test_what_was_said_on_this_machine_is_not_asked_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = captions_of(captioned(make(), tmp_path / "work"))
    monkeypatch.setattr(generated_captions, "load_captioner", no_model)

    second = captions_of(captioned(make("other"), tmp_path / "work"))

    assert second == first


def test_other_settings_are_asked_anew(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioned(make(), tmp_path / "work")
    monkeypatch.setattr(generated_captions, "load_captioner", no_model)

    with pytest.raises(AssertionError, match="the model was loaded"):
        captioned(make(beams=1), tmp_path / "work")


def test_a_stop_keeps_what_was_said(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated_captions, "_BATCH", 1)
    training, session = make(), make_session(tmp_path / "work").session
    prepared, store = prepare(training, session), open_output(training.spec, session)
    kept = tmp_path / "work" / "captions"

    with pytest.raises(StopRequested):
        stopping = replace(session, should_stop=lambda: kept.is_dir() and len(list(kept.glob("*.txt"))) == 2)
        with_generated_captions(prepared, store, CPU, stopping)

    assert len(list(kept.glob("*.txt"))) == 2
    captioned(training, tmp_path / "work")
    assert len(list(kept.glob("*.txt"))) == 3


def test_a_model_without_words_for_a_picture_is_told(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated_captions.Captioner, "describe", lambda self, images, search: [""] * len(images))

    with pytest.raises(InvalidDataset, match=r"2_zwx man/a\.png has no caption file, and the model .* has no words"):
        captioned(make(trigger="None"), tmp_path / "work")


def test_the_model_is_part_of_what_the_run_is_made_of(make: Make, tmp_path: Path) -> None:
    other = write_tiny_blip(tmp_path / "other", seed=1)

    ours = prepare(make(), make_session(tmp_path / "work").session)
    theirs = prepare(make(modelUri=other.as_uri()), make_session(tmp_path / "work").session)

    assert ours.identity.spec_digest == theirs.identity.spec_digest
    assert ours.identity.dataset_digest == theirs.identity.dataset_digest
    assert ours.identity.base_digest != theirs.identity.base_digest


def test_another_wording_is_another_run(make: Make, tmp_path: Path) -> None:
    ours = prepare(make(), make_session(tmp_path / "work").session)
    theirs = prepare(make(prefix="photo:"), make_session(tmp_path / "work").session)

    assert ours.identity.spec_digest != theirs.identity.spec_digest


def test_the_plan_counts_them_and_says_that_they_are_generated(make: Make, tmp_path: Path) -> None:
    plan = prepare(make(), make_session(tmp_path / "work").session).dataset.plan

    assert (plan.captions_found, plan.captions_missing) == (1, 3)
    assert (
        "3 pictures have no .txt file and get a generated caption: 2_zwx man/a.png, 2_zwx man/b.png, reg/1_man/r.png."
        in plan.warnings
    )


def test_the_preflight_needs_no_model_but_that_it_is_there(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated_captions, "load_captioner", no_model)

    assert check_before_training(make(), make_session(tmp_path / "work").session).reason == "Verified"
    with pytest.raises(BaseModelUnavailable, match=r"^spec\.dataset\.captions\.generate\.modelUri: .* does not exist"):
        gone = make(modelUri=(tmp_path / "gone").as_uri())
        check_before_training(gone, make_session(tmp_path / "work").session)


def test_a_run_trains_on_them_and_publishes_them(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = make()
    wanted = captions_of(captioned(training, tmp_path / "work"))
    wanted.pop("2_zwx man/c.png")

    ended = run_training(training, make_session(tmp_path / "work").session)

    assert ended.reason == "Completed"
    lines = [json.loads(line) for line in (tmp_path / "out" / CAPTIONS_PATH).read_text().splitlines()]
    assert {line["file"]: line["caption"] for line in lines} == wanted
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [file["kind"] for file in manifest["files"] if file["path"] == CAPTIONS_PATH] == ["captions"]
    metadata = read_adapter(tmp_path / "out" / "adapters" / "tiny.safetensors").metadata
    tags = {tag for folder in json.loads(metadata["ss_tag_frequency"]).values() for tag in folder}
    assert {tag.strip() for caption in wanted.values() for tag in caption.split(",")} <= tags
    # A later start, on another machine and with another device, takes them from there.
    monkeypatch.setattr(generated_captions, "load_captioner", no_model)
    assert captions_of(captioned(training, tmp_path / "elsewhere")) == captions_of(
        captioned(training, tmp_path / "work")
    )


def test_a_run_that_was_stopped_goes_on_with_its_captions_on_another_machine(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        run_training(make(), make_session_until(tmp_path / "work", step=1).session)
    before = (tmp_path / "out" / CAPTIONS_PATH).read_bytes()
    monkeypatch.setattr(generated_captions, "load_captioner", no_model)

    ended = run_training(make(), make_session(tmp_path / "elsewhere").session)

    assert ended.reason == "Completed"
    assert (tmp_path / "out" / CAPTIONS_PATH).read_bytes() == before


def test_a_damaged_file_of_captions_is_not_used(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / CAPTIONS_PATH).write_text("{")

    found = captions_of(captioned(make(), tmp_path / "work"))

    assert all(found.values())
    assert "captions.jsonl is damaged and not used" in caplog.text


def test_another_model_does_not_go_on_with_a_state(make: Make, tmp_path: Path) -> None:
    run_training(make(), make_session(tmp_path / "work").session)
    other = write_tiny_blip(tmp_path / "other", seed=1)

    with pytest.raises(InvalidConfiguration, match=r"captioner/model\.safetensors changed"):
        run_training(make(modelUri=other.as_uri()), make_session(tmp_path / "work").session)
