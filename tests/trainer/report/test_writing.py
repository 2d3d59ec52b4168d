"""The report of a run, and of several, as one HTML file."""

import base64
import hashlib
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from lora_api.status import MemoryRung
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.report import write_comparison, write_report
from lora_trainer.report.writing import SAMPLES_BYTES
from lora_trainer.storage.directory_store import DirectoryStore
from tests.support.pages import Page, read
from tests.support.stored_run import StoredRun, store_run

ATTACK = "<script>alert(1)</script>\" onload='x'"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report of an over-trained run."""
    return read(report_of(tmp_path_factory.mktemp("run"), StoredRun()))


def report_of(folder: Path, run: StoredRun) -> str:
    path = folder / "evaluation" / "report.html"
    write_report(store_run(folder, run), path)
    return path.read_text()


def pictures(page: Page) -> list[Image.Image]:
    sources = [element.attributes["src"] or "" for element in page.of("img") if "src" in element.attributes]
    return [Image.open(BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def test_the_page_is_well_formed(page: Page) -> None:
    assert page.problems == []


def test_the_result_comes_first(page: Page) -> None:
    first = next(text.strip() for text in page.texts[page.texts.index("Best epoch") + 1 :] if text.strip().isdigit())

    assert first == "4"
    assert "Use epoch 4." in page.text
    assert "from epoch 5" in page.text


@pytest.mark.parametrize(
    ("losses", "doubt", "window"),
    [
        ((1.0, 0.9, 0.8), "training longer may be better", "only 2"),
        ((1.0, 1.2, 1.3), "No epoch is better on held-out pictures", "none"),
        ((1.0, 0.8, 0.9), "How sure the choice is", "1 to 2"),
    ],
)
def test_how_sure_the_choice_is_is_told(tmp_path: Path, losses: tuple[float, ...], doubt: str, window: str) -> None:
    page = read(report_of(tmp_path, StoredRun(losses=losses)))

    assert doubt in page.text
    assert page.text.split("Usable epochs", 1)[1].split("可用週期", 1)[1].lstrip().startswith(window)


def test_every_section_has_its_anchor(page: Page) -> None:
    ids = {element.attributes.get("id") for element in page.of("section")}

    hrefs = [element.attributes["href"] or "" for element in page.of("a")]
    linked = {href[1:] for href in hrefs if href.startswith("#")}
    assert linked == ids


def test_every_sample_is_inside_the_page(page: Page) -> None:
    # 8 moments of 2 prompts, the grid's sheet and two pictures of a preset.
    assert len(pictures(page)) == 16 + 1 + 2


def test_nothing_is_fetched_from_elsewhere(page: Page) -> None:
    links = [
        value
        for element in page.elements
        for name, value in element.attributes.items()
        if name in ("src", "href", "srcset", "action", "data") and value
    ]

    assert [link for link in links if not link.startswith(("data:image/", "#", "../"))] == []
    assert "://" not in "".join(page.texts[: page.texts.index("Best epoch")])


def test_links_lead_to_files_of_the_run(tmp_path: Path) -> None:
    page = read(report_of(tmp_path, StoredRun()))

    links = [element.attributes["href"] or "" for element in page.of("a")]

    files = [link for link in links if not link.startswith("#")]
    assert files
    assert all((tmp_path / "evaluation" / link).is_file() for link in files)


def test_only_the_pages_own_script_may_run(page: Page) -> None:
    policy = next(e.attributes["content"] for e in page.of("meta") if "http-equiv" in e.attributes) or ""
    style, script = sorted((text for text in page.texts if len(text) > 1000), key=lambda text: "use strict" in text)[
        -2:
    ]

    for kind, text in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_no_element_carries_a_handler_or_a_style(page: Page) -> None:
    names = {name for element in page.elements for name in element.attributes}

    assert [name for name in names if name.startswith("on") or name == "style"] == []


def test_what_users_wrote_is_never_markup(tmp_path: Path) -> None:
    run = StoredRun(
        prompts=(ATTACK,), tags={ATTACK: 20}, warnings=(ATTACK,), changes={"output": {"card": {"title": ATTACK}}}
    )

    page = read(report_of(tmp_path, run))

    assert page.problems == []
    assert len(page.of("script")) == 1
    assert not any("onload" in element.attributes for element in page.elements)
    assert page.text.count("<script>alert(1)</script>") >= 4


def test_a_caption_does_not_name_the_adapter_of_one_epoch(tmp_path: Path) -> None:
    page = read(report_of(tmp_path, StoredRun(prompts=("zwx emblem <lora:tiny-000003:1>",))))

    assert [e.attributes["alt"] for e in page.of("img") if "alt" in e.attributes][:2] == ["zwx emblem", "zwx emblem"]


def test_every_label_is_in_both_languages(page: Page) -> None:
    spoken = [element for element in page.elements if "data-spoken" in element.attributes]

    assert spoken
    assert all(element.attributes["data-en"] and element.attributes["data-zh"] for element in spoken)
    shown = {name: sum(e.attributes.get("class") == name for e in page.of("span")) for name in ("en", "zh")}
    assert shown["en"] == shown["zh"] > 100


def test_every_button_and_picture_has_a_name(page: Page) -> None:
    assert all(element.attributes.get("alt") for element in page.of("img") if "src" in element.attributes)
    labelled = [e for e in page.of("button") if "aria-label" in e.attributes or "class" in e.attributes]
    assert len(labelled) + 1 == len(page.of("button"))


def test_the_page_says_how_to_use_the_best_file(page: Page) -> None:
    assert "<lora:tiny-000004:0.75>, zwx emblem" in page.text


def test_the_page_holds_the_file_that_trains_it_again(page: Page) -> None:
    assert "kind: LoraTraining" in page.text


def test_similarities_are_told_as_far_as_they_were_measured(page: Page) -> None:
    text = page.text[page.text.index("Similarity") :]

    assert "0.271" in text
    assert "0.77" in text


def test_block_weights_are_compared_at_the_best_epoch(page: Page) -> None:
    assert "The same picture of epoch 4 with each preset" in page.text
    assert "MIDD × 0.5" in {element.attributes.get("alt") for element in page.of("img")}


def test_what_was_given_up_for_memory_is_told(tmp_path: Path) -> None:
    rung = MemoryRung(name="HalfBatch", step=8, message="two at a time")

    page = read(report_of(tmp_path, StoredRun(rungs=(rung,))))

    assert "Less memory was used from step 8: HalfBatch. two at a time" in page.text


def test_digests_can_be_copied(page: Page) -> None:
    copied = {element.attributes.get("data-copy") for element in page.of("button")}

    assert hashlib.sha256(b"adapter 4").hexdigest() in copied


def test_settings_that_differ_from_defaults_come_before_the_others(page: Page) -> None:
    text = page.text

    assert text.index("Different from the defaults") < text.index("network.rank") < text.index("All settings")


def test_a_run_without_measures_says_so(tmp_path: Path) -> None:
    page = read(report_of(tmp_path, StoredRun(is_measured=False, is_evaluated=False)))

    assert "No best epoch is known." in page.text
    assert "Held-out loss and drift were not measured." in page.text
    assert "Training loss" in page.text
    assert "No grid was drawn" in page.text


def test_a_run_that_is_going_on_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    page = read(report_of(tmp_path, StoredRun(is_complete=False)))

    assert "the report shows it after step 140 of 140" in page.text
    assert "Best epoch so far" in page.text
    assert "network.rank" in page.text
    assert "The plan was not stored" in page.text
    assert len(pictures(page)) == 16


def test_without_an_evaluation_the_measures_tell_the_best_epoch(tmp_path: Path) -> None:
    page = read(report_of(tmp_path, StoredRun(is_evaluated=False)))

    assert "Use epoch 4." in page.text
    assert "The evaluation has not ended" in page.text


def test_a_damaged_file_is_told_and_not_shown(tmp_path: Path) -> None:
    store = store_run(tmp_path)
    (tmp_path / "samples" / "tiny-e000003-00.png").write_bytes(b"no picture")

    write_report(store, tmp_path / "report.html")

    page = read((tmp_path / "report.html").read_text())
    assert "samples/tiny-e000003-00.png is damaged" in page.text
    assert len(pictures(page)) == 18


def test_a_file_that_no_manifest_names_is_not_shown(tmp_path: Path) -> None:
    store = store_run(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "samples" / "tiny-e000009-00.png")

    write_report(store, tmp_path / "report.html")

    assert "tiny-e000009" not in (tmp_path / "report.html").read_text()


def test_the_evaluation_of_another_run_is_not_shown(tmp_path: Path) -> None:
    store = store_run(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text() + "\n")

    write_report(store, tmp_path / "report.html")

    page = read((tmp_path / "report.html").read_text())
    assert "The evaluation is of an earlier run and not shown." in page.text
    assert "evaluation/grid.webp" not in page.text


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, tmp_path.as_uri(), on_bytes=lambda _: None)

    with pytest.raises(InvalidConfiguration, match="holds no run: neither manifest"):
        write_report(store, tmp_path / "report.html")


def test_equal_runs_give_equal_pages(tmp_path: Path) -> None:
    store = store_run(tmp_path)
    for name in ("a", "b"):
        write_report(store, tmp_path / name)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_run_of_many_large_pictures_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_trainer.report.writing.SAMPLES_BYTES", 100_000)
    run = StoredRun(is_noisy=True, side=200, has_grid=False)

    size = len(report_of(tmp_path, run))

    assert size < 100_000 + len(report_of(tmp_path, replace(run, is_noisy=False, side=4)))


def test_a_run_of_many_epochs_shows_the_best_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_trainer.report.boards._FEWEST_BYTES", SAMPLES_BYTES // 8)

    page = read(report_of(tmp_path, StoredRun()))

    assert "4 of 8 epochs are shown" in page.text
    moments = re.findall(r"(Base model|Epoch \d)", page.text[page.text.index("4 of 8 epochs") :])
    assert {"Base model", "Epoch 4", "Epoch 7"} <= set(moments[:4])


def test_runs_are_compared_by_what_differs(tmp_path: Path) -> None:
    first = store_run(tmp_path / "a")
    other = replace(StoredRun(), losses=(1.0, 0.9, 0.85, 0.8), changes={"network": {"rank": 8}})
    second = store_run(tmp_path / "b", other)

    write_comparison([first, second], tmp_path / "compare.html")

    page = read((tmp_path / "compare.html").read_text())
    assert page.problems == []
    assert "network.rank" in page.text
    assert "training.epochs" not in page.text
    assert {"tiny (1)", "tiny (2)"} <= {text.strip() for text in page.texts}
    assert len(pictures(page)) == 2 * (8 + 4)
