"""The Job controller, with the test in the place of the kubelet."""

from typing import Any

import pytest

from lora_devcluster.conditions import condition
from lora_devcluster.job_policy import format_indexes, parse_indexes
from lora_devcluster.jobs import JobController
from tests.support.control import Plane, with_jobs
from tests.support.devcluster import Manifest, job, until

DISRUPTION = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
POLICY = {
    "rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [64, 65]}},
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [75]}},
    ]
}


class Run:
    """One Job under the controller."""

    def __init__(self, backoff_seconds: float = 0.0, **spec: Any) -> None:
        self.plane = Plane()
        self.controller: JobController = with_jobs(self.plane, backoff_seconds)
        self.job = self.plane.create(job(**spec))

    @property
    def status(self) -> Manifest:
        return (self.plane.now(self.job) or {}).get("status") or {}

    async def pod(self, *known: Manifest) -> Manifest:
        """A live pod that is none of the known ones, running."""
        names = {pod["metadata"]["name"] for pod in known}
        found = await until(
            self.plane.store, lambda: [p for p in self.plane.live_pods() if p["metadata"]["name"] not in names]
        )
        self.plane.run(found[0])
        return found[0]

    async def condition(self, kind: str) -> Manifest:
        found = await until(self.plane.store, lambda: condition(self.status, kind))
        return {name: found.get(name) for name in ("status", "reason", "message")}

    async def event(self, reason: str) -> Manifest:
        events = self.plane.store.objects
        return await until(
            self.plane.store, lambda: next((e for e in events("", "events") if e["reason"] == reason), None)
        )


async def test_a_job_is_complete_when_its_pod_succeeds() -> None:
    run = Run()
    run.plane.finish(await run.pod(), 0)

    complete = await run.condition("Complete")

    assert complete["reason"] == "CompletionsReached"
    assert condition(run.status, "SuccessCriteriaMet") is not None
    assert (run.status["succeeded"], run.status.get("active"), run.status["terminating"]) == (1, None, 0)


async def test_a_pod_belongs_to_its_job_by_owner_label_and_name() -> None:
    run = Run(completionMode="Indexed", completions=1)

    pod = await run.pod()

    meta = pod["metadata"]
    assert meta["name"].startswith("j-0-")
    assert meta["labels"]["batch.kubernetes.io/job-name"] == "j"
    assert meta["labels"]["batch.kubernetes.io/job-completion-index"] == "0"
    assert meta["ownerReferences"][0]["uid"] == run.job["metadata"]["uid"]
    assert pod["spec"]["hostname"] == "j-0"
    assert "JOB_COMPLETION_INDEX" in {variable["name"] for variable in pod["spec"]["containers"][0]["env"]}


async def test_indexed_jobs_run_every_index_once() -> None:
    run = Run(completionMode="Indexed", completions=3, parallelism=2)
    first = await run.pod()
    second = await run.pod(first)
    run.plane.finish(first, 0)
    third = await run.pod(first, second)
    run.plane.finish(second, 0)
    run.plane.finish(third, 0)

    await run.condition("Complete")

    indexes = {pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] for pod in run.plane.pods()}
    assert (indexes, run.status["completedIndexes"]) == ({"0", "1", "2"}, "0-2")


async def test_a_failed_pod_is_replaced_until_the_backoff_limit() -> None:
    run = Run(backoffLimit=1)
    first = await run.pod()
    run.plane.finish(first, 1)
    second = await run.pod(first)
    run.plane.finish(second, 1)

    failed = await run.condition("Failed")

    assert failed["reason"] == "BackoffLimitExceeded"
    assert failed["message"] == "Job has reached the specified backoff limit"
    assert (run.status["failed"], len(run.plane.pods())) == (2, 2)


async def test_the_replacement_waits_for_the_backoff() -> None:
    run = Run(backoff_seconds=3600)
    run.plane.finish(await run.pod(), 1)

    await until(run.plane.store, lambda: run.status.get("failed"))

    assert run.plane.live_pods() == []


async def test_an_exit_code_that_fails_the_job_says_which_rule_and_pod() -> None:
    run = Run(podFailurePolicy=POLICY)
    pod = await run.pod()
    run.plane.finish(pod, 64)

    failed = await run.condition("Failed")

    name = pod["metadata"]["name"]
    words = f"Container main for pod default/{name} failed with exit code 64 matching FailJob rule at index 1"
    assert failed == {"status": "True", "reason": "PodFailurePolicy", "message": words}


@pytest.mark.parametrize(("code", "conditions"), [(75, []), (143, [DISRUPTION])])
async def test_an_ignored_failure_is_replaced_and_not_counted(code: int, conditions: list[Manifest]) -> None:
    run = Run(podFailurePolicy=POLICY, backoffLimit=0)
    first = await run.pod()
    run.plane.finish(first, code, conditions)

    second = await run.pod(first)

    run.plane.finish(second, 0)
    await run.condition("Complete")
    assert run.status.get("failed", 0) == 0


async def test_a_failure_that_no_rule_names_is_counted() -> None:
    run = Run(podFailurePolicy=POLICY, backoffLimit=0)
    run.plane.finish(await run.pod(), 1)

    assert (await run.condition("Failed"))["reason"] == "BackoffLimitExceeded"


async def test_failing_is_announced_first_and_final_only_when_the_pods_are_gone() -> None:
    run = Run(podFailurePolicy=POLICY, completions=2, parallelism=2)
    first = await run.pod()
    second = await run.pod(first)
    run.plane.finish(first, 64)

    target = await run.condition("FailureTarget")

    assert (target["reason"], condition(run.status, "Failed")) == ("PodFailurePolicy", None)
    await until(run.plane.store, lambda: run.status.get("terminating"))
    run.plane.finish(second, 75)
    assert (await run.condition("Failed"))["reason"] == "PodFailurePolicy"


async def test_a_terminating_pod_is_replaced_only_after_it_failed() -> None:
    run = Run(podReplacementPolicy="Failed")
    first = await run.pod()
    run.plane.delete(first)
    await until(run.plane.store, lambda: run.status.get("terminating"))
    between = [pod["metadata"]["name"] for pod in run.plane.live_pods()]

    run.plane.finish(first, 143)
    second = await run.pod(first)

    assert between == [first["metadata"]["name"]]
    assert second["metadata"]["name"] != first["metadata"]["name"]


async def test_by_default_a_terminating_pod_is_replaced_at_once() -> None:
    run = Run()
    first = await run.pod()
    run.plane.delete(first)

    second = await run.pod(first)

    assert second["metadata"]["name"] != first["metadata"]["name"]


async def test_a_job_past_its_deadline_fails() -> None:
    run = Run(activeDeadlineSeconds=0)
    pod = await until(run.plane.store, lambda: condition(run.status, "FailureTarget"))

    assert pod["reason"] == "DeadlineExceeded"
    assert (await run.condition("Failed"))["message"] == "Job was active longer than specified deadline"


async def test_suspending_ends_the_pods_and_forgets_the_start() -> None:
    run = Run(podReplacementPolicy="Failed")
    pod = await run.pod()
    run.plane.patch(run.job, {"spec": {"suspend": True}})

    suspended = await run.condition("Suspended")

    assert suspended == {"status": "True", "reason": "JobSuspended", "message": "Job suspended"}
    assert "startTime" not in run.status
    assert (run.plane.now(pod) or {})["metadata"]["deletionTimestamp"]


async def test_pods_that_end_because_of_a_suspension_are_no_failures() -> None:
    run = Run(backoffLimit=0)
    pod = await run.pod()
    run.plane.patch(run.job, {"spec": {"suspend": True}})
    await run.condition("Suspended")

    run.plane.finish(pod, 143)
    run.plane.patch(run.job, {"spec": {"suspend": False}})

    await run.pod(pod)
    assert run.status.get("failed", 0) == 0


async def test_pods_beyond_a_lowered_parallelism_are_no_failures() -> None:
    run = Run(completions=4, parallelism=2, backoffLimit=0)
    first = await run.pod()
    second = await run.pod(first)
    run.plane.patch(run.job, {"spec": {"parallelism": 1}})
    going = await until(
        run.plane.store, lambda: [p for p in run.plane.pods() if p["metadata"].get("deletionTimestamp")]
    )

    run.plane.finish(going[0], 143)

    await until(run.plane.store, lambda: run.status.get("terminating") == 0 or None)
    assert (run.status.get("failed", 0), len({first["metadata"]["name"], second["metadata"]["name"]})) == (0, 2)


async def test_resuming_starts_again() -> None:
    run = Run(suspend=True)
    await run.condition("Suspended")
    run.plane.patch(run.job, {"spec": {"suspend": False}})

    await run.pod()

    assert (await run.condition("Suspended"))["reason"] == "JobResumed"
    assert "startTime" in run.status


async def test_a_finished_job_goes_after_its_time_to_live() -> None:
    run = Run(ttlSecondsAfterFinished=0)
    run.plane.finish(await run.pod(), 0)

    await until(
        run.plane.store, lambda: (run.plane.now(run.job) or {"metadata": {}})["metadata"].get("deletionTimestamp")
    )


async def test_a_counted_pod_is_free_to_go() -> None:
    run = Run()
    pod = await run.pod()
    run.plane.finish(pod, 0)

    await until(run.plane.store, lambda: not (run.plane.now(pod) or {})["metadata"].get("finalizers"))

    run.plane.delete(pod)
    assert run.plane.now(pod) is None


async def test_pods_of_a_job_that_is_gone_are_released() -> None:
    run = Run()
    pod = await run.pod()
    run.plane.delete(run.job, propagation="Background")

    run.plane.finish(pod, 0)

    await until(run.plane.store, lambda: not (run.plane.now(pod) or {})["metadata"].get("finalizers"))


async def test_a_pod_that_the_namespace_refuses_is_an_event() -> None:
    plane = Plane()
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    plane.patch(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}, {"metadata": {"labels": label}}
    )
    with_jobs(plane, 3600)
    plane.create(job())

    [event] = await until(plane.store, lambda: [e for e in plane.store.objects("", "events") if e["type"] == "Warning"])

    assert (event["reason"], "violates PodSecurity" in event["message"]) == ("FailedCreate", True)


async def test_what_happens_to_a_job_is_told_by_events() -> None:
    run = Run()
    pod = await run.pod()
    run.plane.finish(pod, 0)

    assert (await run.event("Completed"))["message"] == "Job completed"
    assert (await run.event("SuccessfulCreate"))["message"] == f"Created pod: {pod['metadata']['name']}"


@pytest.mark.parametrize(("indexes", "text"), [(set(), ""), ({0}, "0"), ({0, 1, 2}, "0-2"), ({0, 2, 3, 7}, "0,2-3,7")])
def test_indexes_have_a_compact_form(indexes: set[int], text: str) -> None:
    assert (format_indexes(indexes), parse_indexes(text)) == (text, indexes)
