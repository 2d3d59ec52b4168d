"""The recipes for `kubectl wait` in docs/gitops.md, run by the real kubectl on the laptop-sized cluster."""

import asyncio
import re
import shlex
from pathlib import Path

from tests.support.kubectl import Kubectl
from tests.support.scenario import Scenario

PAGE = Path(__file__).parents[2] / "docs" / "gitops.md"


def recipes() -> list[list[str]]:
    """Arguments of each command of the section about kubectl."""
    (block,) = re.findall(r"^## kubectl\n\n```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line)[1:] for line in block.splitlines()]


async def test_a_script_waits_for_what_the_page_says(scenario: Scenario) -> None:
    gate, kubectl = scenario.folder / "gate", Kubectl(scenario.cluster.kubeconfig, "ml")
    accepted, annotate, saved, finished, told = recipes()
    await scenario.start_operator()
    await scenario.create(env={"FAKE_GATE": gate})

    said = [await asyncio.to_thread(kubectl, *recipe) for recipe in (accepted, annotate, saved)]
    gate.touch()
    said += [await asyncio.to_thread(kubectl, *recipe) for recipe in (finished, told)]

    assert [line.strip().rpartition(" ")[2] for line in said] == ["met", "annotated", "met", "met", "Completed"]


async def test_a_script_does_not_hang_on_a_training_that_failed(scenario: Scenario) -> None:
    kubectl = Kubectl(scenario.cluster.kubeconfig, "ml")
    *_, finished, told = recipes()
    await scenario.start_operator()
    await scenario.create(env={"FAKE_EXIT": 65})

    said = [await asyncio.to_thread(kubectl, *recipe) for recipe in (finished, told)]

    assert said[1] == "InvalidDataset"
