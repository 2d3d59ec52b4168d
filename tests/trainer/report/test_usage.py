"""How an adapter is used."""

from pathlib import Path
from typing import Any

import pytest

from lora_trainer.report.record import RunReader, RunRecord
from lora_trainer.report.usage import best_path, frequent_tags, named_by_folders, trigger_words, usage_of
from tests.support.stored_run import StoredRun, store_run


def record(folder: Path, **run: Any) -> RunRecord:
    return RunReader(store_run(folder, StoredRun(**run)), folder / "fetched").read()


def test_tags_of_most_captions_call_a_concept_up() -> None:
    assert frequent_tags({"zwx": 20, "emblem": 16, "blue": 15}, pictures=20) == ("zwx", "emblem")


def test_captions_that_are_sentences_are_called_up_by_their_folders_name() -> None:
    tags = {"a zwx emblem on blue": 5, "a zwx emblem on pink": 4, "a square": 1}

    assert named_by_folders(tags, {"5_zwx emblem": {"img_count": 10}}) == ("zwx emblem",)


def test_a_folders_name_that_captions_do_not_hold_calls_nothing_up() -> None:
    assert named_by_folders({"a shape": 10}, {"5_zwx emblem": {"img_count": 10}}) == ()


def test_the_model_card_says_it_better(tmp_path: Path) -> None:
    run = record(tmp_path, changes={"output": {"card": {"triggerPhrase": "zwx, emblem"}}})

    assert trigger_words(run) == ("zwx, emblem",)


def test_the_best_epochs_file_is_the_one_to_use(tmp_path: Path) -> None:
    assert best_path(record(tmp_path)) == "adapters/tiny-000004.safetensors"


def test_without_a_best_epoch_it_is_the_final_one(tmp_path: Path) -> None:
    assert best_path(record(tmp_path, is_measured=False)) == "adapters/tiny.safetensors"


@pytest.mark.parametrize(("kind", "has_lines"), [("lora", True), ("loha", False)])
def test_diffusers_is_told_only_of_types_that_it_reads(kind: str, has_lines: bool, tmp_path: Path) -> None:
    usage = usage_of(record(tmp_path, changes={"network": {"type": kind}}))

    assert usage is not None
    assert (usage.diffusers is not None) == has_lines
