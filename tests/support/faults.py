"""One fault for each thing that can go wrong with a training, injected into a laptop-sized cluster."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.scenario import JOBS, TRAININGS, Manifest, Scenario

Act = Callable[[Scenario, str], Awaitable[None]]
Change = tuple[str, Any]

GPU: Change = ("parallelism.gpusPerNode", 1)
NO_RETRY: Change = ("retry.maxFailures", 0)
SIDE_BY_SIDE = 6
"""Faults at a time: each has a process of its own, and must not wait too long for a core."""
LONG_AGO = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Fault:
    """What is done to a training, and the reason that its status must then show."""

    name: str
    done: str
    """For people: what went wrong."""
    reason: str
    shown: str = "failure"
    """Where: `failure`, or a condition's type."""
    changes: tuple[Change, ...] = ()
    env: Manifest = field(default_factory=dict)
    act: Act | None = None


@dataclass(frozen=True)
class Shown:
    """What the status shows of a fault."""

    fault: Fault
    reason: str
    message: str
    hint: str = ""
    exit_code: int | None = None
    log_tail: str = ""


async def inject(scenario: Scenario, fault: Fault) -> Shown:
    """Creates a training, does the harm, and waits for what its status says about it."""
    await scenario.create(*fault.changes, name=fault.name, env=fault.env)
    if fault.act is not None:
        await fault.act(scenario, fault.name)
    if fault.shown == "failure":
        failure = (await scenario.until_phase("Failed", fault.name))["status"]["failure"]
        told = failure.get("hint", ""), failure.get("exitCode"), failure.get("logTail", "")
        return Shown(fault, failure["reason"], failure["message"], *told)
    said = await scenario.until_condition(fault.shown, fault.reason, fault.name)
    return Shown(fault, said["reason"], said["message"])


def pod_of(scenario: Scenario, name: str) -> str:
    """The newest pod of the training."""
    pods = [pod for pod in scenario.stored("", "pods") if pod["metadata"]["name"].startswith(f"{name}-a")]
    return str(max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])["metadata"]["name"])


async def _running_pod(scenario: Scenario, name: str) -> str:
    await scenario.until_phase("Running", name)
    return pod_of(scenario, name)


async def _use_up_memory(scenario: Scenario, name: str) -> None:
    scenario.cluster.kubelet.kill_for_memory("ml", await _running_pod(scenario, name), "trainer")


async def _press_memory(scenario: Scenario, name: str) -> None:
    scenario.cluster.disruptions.evict_under_pressure("ml", await _running_pod(scenario, name), "memory")


async def _fill_volume(scenario: Scenario, name: str) -> None:
    scenario.cluster.disruptions.evict_for_volume("ml", await _running_pod(scenario, name), "work", "10Gi")


async def _preempt(scenario: Scenario, name: str) -> None:
    scenario.cluster.disruptions.preempt("ml", await _running_pod(scenario, name))


async def _lose_node(scenario: Scenario, name: str) -> None:
    await _running_pod(scenario, name)
    scenario.cluster.disruptions.lose_node()


async def _let_time_pass(scenario: Scenario, name: str) -> None:
    """The training has run for an hour before this pause."""
    await scenario.until_phase("Suspended", name)
    await _write_attempts(scenario, name, {"activeSeconds": 3600})
    await scenario.change({"spec": {"suspend": False}}, name=name)


async def _let_it_wait(scenario: Scenario, name: str) -> None:
    await scenario.until_condition("Scheduled", "Unschedulable", name)
    await _write_attempts(scenario, name, {"waitingSince": LONG_AGO})


async def _write_attempts(scenario: Scenario, name: str, attempts: Manifest) -> None:
    await scenario.send("PATCH", f"{TRAININGS}/{name}/status", {"status": {"attempts": attempts}})


async def _refuse_by_node(scenario: Scenario, name: str) -> None:
    words = "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu"
    scenario.cluster.kubelet.refuse_next(f"{name}-", "UnexpectedAdmissionError", words)
    await scenario.change({"spec": {"suspend": False}}, name=name)


def _ends(words: dict[str, str]) -> tuple[Fault, ...]:
    """Faults that the trainer itself tells by its last word."""

    def ended(name: str, done: str, reason: str, code: int, *changes: Change) -> Fault:
        env = {"FAKE_EXIT": code, "FAKE_TEXT": words[name]}
        return Fault(name.replace(" ", "-"), done, reason, changes=(NO_RETRY, *changes), env=env)

    return (
        ended("device memory", "The GPU has too little memory.", "OutOfMemory", 70),
        ended("diverged", "The loss is no number any more.", "Diverged", 71),
        ended("broken picture", "A picture does not decode; training without a check before.", "InvalidDataset", 65),
        ended("access denied", "The store refuses the credentials.", "AccessDenied", 77),
        ended("gated model", "The model is gated, and its terms were not accepted.", "AccessDenied", 77),
        ended("missing model", "The hub knows no such model.", "BaseModelUnavailable", 66),
        ended(
            "store unreachable",
            "The store does not answer, also not after one retry.",
            "StorageUnavailable",
            69,
            ("retry.maxFailures", 1),
        ),
        ended("stalled", "The trainer hangs; its own watchdog ended it.", "Stalled", 72),
        ended("crashed", "A bug of the trainer.", "TrainerCrashed", 1),
    )


def _silent_ends(words: dict[str, str], waits: Manifest) -> tuple[Fault, ...]:
    """Faults of the trainer that it cannot tell, or tells before a GPU was asked for."""
    return (
        Fault(
            "check",
            "A picture does not decode; checked before a GPU is asked for.",
            "InvalidDataset",
            changes=(GPU, NO_RETRY),
            env={"FAKE_CHECK": 65, "FAKE_TEXT": words["broken picture"]},
        ),
        Fault(
            "segfault",
            "Native code crashes; there is no last word.",
            "TrainerCrashed",
            changes=(NO_RETRY,),
            env={"FAKE_EXIT": 139, "FAKE_LOG": "INFO step 5/10\nFatal Python error: Segmentation fault"},
        ),
        Fault(
            "silent",
            "The trainer hangs, and nothing ends it.",
            "Stalled",
            "Running",
            env={**waits, "FAKE_REPORT": f'{{"activeTime": "{LONG_AGO}", "patienceSeconds": 1800}}'},
        ),
        Fault(
            "host-memory",
            "The trainer needs more memory than its pod may have.",
            "HostOutOfMemory",
            changes=(NO_RETRY, ("pod.resources", {"limits": {"memory": "2Gi"}})),
            env=waits,
            act=_use_up_memory,
        ),
    )


def _disruptions(deaf: Manifest) -> tuple[Fault, ...]:
    """Pods that are taken away."""
    return (
        Fault(
            "full-volume",
            "Base model and pictures do not fit into the work volume.",
            "Evicted",
            changes=(NO_RETRY,),
            env=deaf,
            act=_fill_volume,
        ),
        Fault(
            "in-vain",
            "It is told to stop each time before anything is stored.",
            "NoProgress",
            env={"FAKE_EXIT": 76, "FAKE_TEXT": '{"exitCode": 76, "message": "told to stop while Downloading"}'},
        ),
        Fault("pressed", "The node runs out of memory.", "Evicted", "Scheduled", env=deaf, act=_press_memory),
        Fault(
            "preempted",
            "The scheduler needs the place for a pod of higher priority.",
            "Preempted",
            "Scheduled",
            env=deaf,
            act=_preempt,
        ),
    )


def _missing() -> tuple[Fault, ...]:
    """What the spec names and the cluster has not."""
    credentials = {"credentialsSecretRef": {"name": "pictures"}}
    token = {"uri": "hf://owner/sd", "tokenSecretRef": {"name": "hub", "key": "token"}}
    bundle = {"endpoint": "https://s3.example.com", "caBundleRef": {"name": "company", "key": "ca.crt"}}
    return (
        Fault(
            "secret",
            "A Secret does not exist.",
            "SecretMissing",
            "Scheduled",
            changes=(("dataset.storage", credentials),),
        ),
        Fault("key", "A Secret has no such key.", "SecretMissing", "Scheduled", changes=(("baseModel", token),)),
        Fault(
            "certificates",
            "The ConfigMap with certificates does not exist.",
            "ConfigMapMissing",
            "Scheduled",
            changes=(("storage", bundle),),
        ),
        Fault(
            "image",
            "The registry has no such image.",
            "ImagePullFailed",
            "Scheduled",
            changes=(("profile", "elsewhere"),),
        ),
        Fault(
            "claim",
            "The volume claim of the cache does not exist.",
            "Unschedulable",
            "Scheduled",
            changes=(("pod.cacheVolumeClaim", "cache"),),
        ),
    )


def _refusals() -> tuple[Fault, ...]:
    """Places that there are none of, and what admission refuses."""
    return (
        Fault(
            "no-gpu",
            "No node has a free GPU.",
            "Unschedulable",
            "Scheduled",
            changes=(GPU, ("profile", "other-gpu")),
        ),
        Fault(
            "quota",
            "The namespace's quota has no room.",
            "QuotaExceeded",
            "Scheduled",
            changes=(("pod.resources", {"limits": {"example.com/rare": "1"}}),),
        ),
        Fault(
            "account",
            "Admission refuses the pod.",
            "PodRefused",
            "Scheduled",
            changes=(("pod.serviceAccountName", "nobody"),),
        ),
        Fault(
            "taken",
            "The name of its Job is taken.",
            "JobRefused",
            "Scheduled",
        ),
    )


def _deadlines() -> tuple[Fault, ...]:
    """Time that is over."""
    return (
        Fault(
            "deadline",
            "It ran for as long as it may.",
            "DeadlineExceeded",
            changes=(("suspend", True), ("limits.activeSeconds", 3600)),
            act=_let_time_pass,
        ),
        Fault(
            "never-started",
            "No pod started in time.",
            "StartDeadlineExceeded",
            changes=(GPU, ("profile", "other-gpu"), ("scheduling.startDeadlineSeconds", 600)),
            act=_let_it_wait,
        ),
    )


def faults(words: dict[str, str], gate: str) -> tuple[Fault, ...]:
    """All faults that leave the cluster whole, so that they can happen side by side.

    `words`: the trainer's last words by failure (`real_failures.last_words`); `gate`: a file that never exists.
    """
    waits = {"FAKE_GATE": gate}
    deaf = {**waits, "FAKE_DEAF": 1}
    ends = _ends(words), _silent_ends(words, waits), _disruptions(deaf)
    return (*(fault for group in ends for fault in group), *_missing(), *_refusals(), *_deadlines())


REJECTED = Fault(
    "rejected",
    "A node refuses a pod that the scheduler gave it, as its GPU has just failed.",
    "PodRejected",
    changes=(NO_RETRY, ("suspend", True)),
    act=_refuse_by_node,
)
NODE_LOST = Fault(
    "node",
    "The node falls silent.",
    "NodeLost",
    "Running",
    act=_lose_node,
)


async def inject_all(scenario: Scenario, words: dict[str, str]) -> dict[str, Shown]:
    """What the status shows of every fault, by its name; those that harm others come last."""
    gate = str(scenario.folder / "never")
    await _furnish(scenario)
    turns = asyncio.Semaphore(SIDE_BY_SIDE)
    together = await asyncio.gather(*(_in_turn(turns, scenario, fault) for fault in faults(words, gate)))
    rejected = await inject(scenario, REJECTED)
    lost = await inject(scenario, replace(NODE_LOST, env={"FAKE_GATE": gate}))
    return {shown.fault.name: shown for shown in (*together, rejected, lost)}


async def _in_turn(turns: asyncio.Semaphore, scenario: Scenario, fault: Fault) -> Shown:
    async with turns:
        try:
            return await inject(scenario, fault)
        except AssertionError as error:
            raise AssertionError(f"{fault.name}: {scenario.training(fault.name)}") from error


async def _furnish(scenario: Scenario) -> None:
    quota = {"metadata": {"name": "rare-things"}, "spec": {"hard": {"requests.example.com/rare": "0"}}}
    document = {"apiVersion": "v1", "kind": "ResourceQuota", **quota}
    await scenario.send("POST", "/api/v1/namespaces/ml/resourcequotas", document)
    await scenario.create_secret("hub")
    await scenario.send("POST", JOBS, _foreign_job("taken-a1"))


def _foreign_job(name: str) -> Manifest:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "other", "image": "noop:1"}]}}
    spec = {"suspend": True, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
