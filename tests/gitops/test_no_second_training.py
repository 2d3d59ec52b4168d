"""Whatever a GitOps tool does to a training that has ended, no GPU is used for it again."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from lora_api import names
from tests.support.documents import make_document
from tests.support.kubectl import Kubectl
from tests.support.scenario import JOBS, TRAININGS, Scenario, condition, open_scenario

CLIENT, SERVER = ("apply",), ("apply", "--server-side", "--field-manager=argocd-controller")
LABEL = "team=pictures"
Manifest = dict[str, Any]


class Site:
    """A cluster, kubectl, and a bucket of which only the manifest matters."""

    def __init__(self, scenario: Scenario, bucket: Path) -> None:
        self.scenario, self._bucket = scenario, bucket
        self._kubectl = Kubectl(scenario.cluster.kubeconfig, "ml")

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return await asyncio.to_thread(self._kubectl, *arguments, stdin=stdin)

    async def apply(self, *documents: Manifest, how: tuple[str, ...] = CLIENT, options: tuple[str, ...] = ()) -> str:
        text = "\n---\n".join(json.dumps(document) for document in documents)
        return await self.kubectl(*how, "-f", "-", *options, stdin=text)

    def document(self, name: str = "hina") -> Manifest:
        """The training as it lies in Git; it asks for a GPU."""
        document = make_document(name=name)
        document["metadata"]["labels"] = {"team": "pictures"}
        env = {"FAKE_OUTPUT": self._bucket / f"{name}.manifest", "FAKE_STARTS": self._bucket / f"{name}.starts"}
        document["spec"]["pod"] = {"env": [{"name": key, "value": str(value)} for key, value in env.items()]}
        return document

    async def train(self, name: str = "hina") -> Manifest:
        await self.scenario.start_operator()
        await self.apply(self.document(name))
        return await self.scenario.until_phase("Succeeded", name)

    def starts(self, name: str = "hina") -> int:
        """Pods that have trained, ever."""
        place = self._bucket / f"{name}.starts"
        return len(place.read_text().splitlines()) if place.exists() else 0


@pytest.fixture
def site(scenario: Scenario, tmp_path: Path) -> Site:
    return Site(scenario, tmp_path)


@pytest.mark.parametrize("how", [CLIENT, SERVER], ids=["client side", "server side"])
async def test_a_re_sync_changes_nothing(site: Site, how: tuple[str, ...]) -> None:
    await site.scenario.start_operator()
    await site.apply(site.document(), how=how)
    before = await site.scenario.until_phase("Succeeded")

    said = await site.apply(site.document(), how=how)

    after = site.scenario.training() or {}
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert "hina" in said
    assert (site.starts(), site.scenario.jobs()) == (1, ["hina-a1", "hina-data"])


async def test_children_and_labels_that_are_lost_are_no_reason_to_train(site: Site) -> None:
    await site.train()

    for job in ("hina-a1", "hina-data"):
        await site.scenario.delete(job, path=JOBS)
    await site.kubectl("label", "lt/hina", "team-")
    await site.apply(site.document())
    await site.scenario.until(lambda: not site.scenario.jobs() and site.scenario.pod_count() == 0)
    await site.scenario.change({"spec": {"ttlSecondsAfterFinished": 9000}})
    await site.scenario.until(lambda: (site.scenario.training() or {})["status"]["observedGeneration"] == 2)

    assert (site.starts(), site.scenario.jobs()) == (1, [])


async def test_a_status_that_is_lost_with_all_children_is_found_again_in_the_bucket(site: Site) -> None:
    await site.train()
    await site.scenario.stop_operators()

    for job in ("hina-a1", "hina-data"):
        await site.scenario.delete(job, path=JOBS)
    await site.scenario.until(lambda: site.scenario.pod_count() == 0)
    nothing = dict.fromkeys((site.scenario.training() or {})["status"])
    await site.scenario.send("PATCH", f"{TRAININGS}/hina/status", {"status": nothing})
    await site.scenario.start_operator()
    body = await site.scenario.until_phase("Succeeded")

    assert (condition(body, "Succeeded") or {})["reason"] == "AlreadyTrained"
    assert (site.starts(), site.scenario.jobs()) == (1, ["hina-data"])


async def test_a_training_that_is_deleted_and_applied_again_is_found_trained(site: Site) -> None:
    await site.train()

    await site.kubectl("delete", "lt/hina")
    await site.scenario.until(lambda: not site.scenario.jobs())
    await site.apply(site.document())
    body = await site.scenario.until_phase("Succeeded")

    assert (condition(body, "Succeeded") or {})["reason"] == "AlreadyTrained"
    assert (site.starts(), site.scenario.jobs()) == (1, ["hina-data"])


async def test_pruning_removes_one_and_leaves_the_others_alone(site: Site) -> None:
    await site.train("one")
    await site.apply(site.document("two"))
    await site.scenario.until_phase("Succeeded", "two")

    kind = f"--prune-allowlist={names.API_VERSION}/{names.KIND}"
    await site.apply(site.document("one"), options=("--prune", "-l", LABEL, kind))
    await site.scenario.until(lambda: not [job for job in site.scenario.jobs() if job.startswith("two")])
    await site.apply(site.document("two"))
    body = await site.scenario.until_phase("Succeeded", "two")

    assert (condition(body, "Succeeded") or {})["reason"] == "AlreadyTrained"
    assert (site.starts("one"), site.starts("two")) == (1, 1)


async def test_a_cluster_that_is_built_anew_trains_nothing_that_lies_in_the_bucket(tmp_path: Path) -> None:
    async with open_scenario(tmp_path / "old") as old:
        await Site(old, tmp_path).train()

    async with open_scenario(tmp_path / "new") as new:
        site = Site(new, tmp_path)
        body = await site.train()

        assert (condition(body, "Succeeded") or {})["reason"] == "AlreadyTrained"
        assert (site.starts(), new.jobs()) == (1, ["hina-data"])


@pytest.mark.parametrize("how", [CLIENT, SERVER], ids=["client side", "server side"])
@pytest.mark.parametrize("field", ["suspend", "cancel"])
async def test_what_git_does_not_name_is_not_taken_back(site: Site, how: tuple[str, ...], field: str) -> None:
    await site.apply(site.document(), how=how)
    await site.scenario.change({"spec": {field: True}})

    await site.apply(site.document(), how=how)

    assert (site.scenario.training() or {})["spec"][field] is True


async def test_a_pause_that_git_denies_is_taken_back(site: Site) -> None:
    named = site.document()
    named["spec"]["suspend"] = False
    await site.apply(named)
    await site.scenario.change({"spec": {"suspend": True}})

    await site.apply(named)

    assert (site.scenario.training() or {})["spec"]["suspend"] is False


async def test_a_cancellation_that_git_denies_is_refused_with_its_field(site: Site) -> None:
    named = site.document()
    named["spec"]["cancel"] = False
    await site.apply(named)
    await site.scenario.change({"spec": {"cancel": True}})

    with pytest.raises(AssertionError, match=r"spec\.cancel.*cannot be taken back"):
        await site.apply(named)


async def test_only_an_apply_by_the_server_lets_go_of_a_denied_cancellation(site: Site) -> None:
    named = site.document()
    named["spec"]["cancel"] = False
    await site.apply(named, how=SERVER)
    await site.scenario.change({"spec": {"cancel": True}})
    await site.apply(site.document(), how=SERVER)
    assert (site.scenario.training() or {})["spec"]["cancel"] is True


async def test_an_apply_by_the_client_that_named_it_once_must_say_true(site: Site) -> None:
    named = site.document()
    named["spec"]["cancel"] = False
    await site.apply(named, how=CLIENT)
    await site.scenario.change({"spec": {"cancel": True}})

    with pytest.raises(AssertionError, match=r"spec\.cancel.*cannot be taken back"):
        await site.apply(site.document(), how=CLIENT)
    named["spec"]["cancel"] = True
    await site.apply(named, how=CLIENT)


async def test_a_cancelled_training_in_git_is_not_started_by_a_new_cluster(site: Site) -> None:
    cancelled = site.document()
    cancelled["spec"]["cancel"] = True
    await site.scenario.start_operator()

    await site.apply(cancelled)
    await site.scenario.until_phase("Failed")

    assert (site.starts(), site.scenario.jobs()) == (0, [])
