"""The settings of runs as tables."""

from pathlib import Path
from typing import Any

import pytest

from lora_trainer.report.settings import compared, settings_of
from tests.support.tiny_run import make_training


def spec(**changes: Any) -> dict[str, Any]:
    training = make_training(Path("/base"), Path("/data"), Path("/out"), **changes)
    return training.spec.model_dump(mode="json", by_alias=True)


def test_a_setting_that_differs_from_its_default_is_told_with_it() -> None:
    (rank,) = (one for one in settings_of(spec(network={"rank": 5})) if one.path == "network.rank")

    assert (rank.value, rank.is_changed) == ("5", True)
    assert rank.default not in (None, "5")


def test_a_setting_at_its_default_is_no_change() -> None:
    (shuffle,) = (one for one in settings_of(spec()) if one.path == "dataset.captions.shuffle")

    assert not shuffle.is_changed


def test_what_is_evaluated_by_default_is_no_change() -> None:
    told = [one for one in settings_of(spec(evaluation={"report": False})) if one.path.startswith("evaluation.")]

    assert [one.path for one in told if one.is_changed] == ["evaluation.report"]


def test_entries_of_lists_tell_what_was_set() -> None:
    (prompts,) = (one for one in settings_of(spec()) if one.path == "samples.prompts")

    assert "negativePrompt" not in (prompts.value or "")
    assert '"prompt": "zwx red shape"' in (prompts.value or "")


def test_a_required_field_has_no_default() -> None:
    (uri,) = (one for one in settings_of(spec()) if one.path == "baseModel.uri")

    assert (uri.value, uri.default, uri.is_changed) == ("file:///base", None, True)


def test_only_what_differs_between_runs_is_compared() -> None:
    rows = compared([spec(network={"rank": 4}), spec(network={"rank": 8}), spec(network={"rank": 4})])

    assert [(row.path, row.values) for row in rows] == [("network.rank", ("4", "8", "4"))]


def test_where_results_lie_is_no_difference() -> None:
    assert compared([spec(), spec(output={"name": "other"})]) == ()


@pytest.mark.parametrize("sections", [{"network": {"rank": 8}}, {}])
def test_a_setting_that_a_run_does_not_know_is_not_set(sections: dict[str, Any]) -> None:
    (row,) = compared([{"network": {"rank": 4}}, sections])

    assert row.values == ("4", "8" if sections else None)
