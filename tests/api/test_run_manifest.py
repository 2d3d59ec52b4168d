"""lora_api.run_manifest: what counts as the same run."""

import pytest

from lora_api import evaluation_digest, spec_digest
from tests.support.documents import make_training


@pytest.mark.parametrize(
    "change",
    [
        ("baseModel.uri", "file:///models/sd15"),
        ("dataset.uri", "file:///data"),
        ("output.uri", "file:///out"),
        ("dataset.workers", 0),
        ("dataset.latentCache", "Disk"),
        ("storage", {"endpoint": "http://127.0.0.1:8333"}),
        ("pod", {"image": "x"}),
        ("suspend", True),
        ("retry", {"maxFailures": 0}),
        ("limits", {"stallSeconds": 60}),
        ("resume", {"onChange": "Continue"}),
        ("scheduling", {"queueName": "gpus"}),
        ("checkpoints", {"everySteps": 5, "everySeconds": 30, "keepLast": 1}),
        ("checkpoints", {"saveState": False}),
        ("baseModel.storage", {"region": "x"}),
        ("dataset.storage", {"region": "x"}),
        ("output.storage", {"region": "x"}),
    ],
    ids=lambda change: change[0],
)
def test_places_and_cluster_settings_do_not_change_the_digest(change: tuple[str, object]) -> None:
    assert spec_digest(make_training(change).spec) == spec_digest(make_training().spec)


@pytest.mark.parametrize(
    "change",
    [
        ("network.rank", 4),
        ("checkpoints.everyEpochs", 2),
        ("training.seed", 1),
        ("optimizer.learningRate", 1e-3),
        ("output.precision", "bf16"),
    ],
    ids=lambda change: change[0],
)
def test_settings_of_the_training_change_the_digest(change: tuple[str, object]) -> None:
    assert spec_digest(make_training(change).spec) != spec_digest(make_training().spec)


def test_saying_a_default_changes_nothing() -> None:
    assert spec_digest(make_training(("network.rank", 16)).spec) == spec_digest(make_training().spec)


def test_saying_a_default_of_the_evaluation_changes_nothing() -> None:
    said = {"report": True, "bestEpoch": {"heldOutPasses": 64}, "grid": {"epochs": []}}

    assert evaluation_digest(make_training(("evaluation", said)).spec) == evaluation_digest(
        make_training(("evaluation", {"grid": {}})).spec
    )


@pytest.mark.parametrize(
    "wish",
    [None, {}, {"grid": {}}, {"grid": {"weights": [1]}}, {"grid": {"seed": 1}}, {"report": False}],
    ids=lambda wish: str(wish),
)
def test_every_wish_for_an_evaluation_has_a_digest_of_its_own(wish: dict[str, object] | None) -> None:
    others = ({}, {"grid": {}}, {"grid": {"weights": [1]}}, {"grid": {"seed": 1}}, {"report": False}, None)

    same = [other for other in others if digest_of(other) == digest_of(wish)]

    assert same == [wish]


def digest_of(wish: dict[str, object] | None) -> str:
    return evaluation_digest(make_training(*([("evaluation", wish)] if wish is not None else [])).spec)
