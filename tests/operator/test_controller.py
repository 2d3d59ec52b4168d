"""lora_operator.controller, on an API server made of a dictionary"""

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from lora_api import LoraTrainingStatus, ProgressReport, TerminationMessage
from lora_api.status import Phase, Progress
from lora_operator.controller import LAST_WORD_TRIES, PODS_PER_SECOND
from lora_operator.errors import ClusterUnavailable, Conflict, Refused
from lora_operator.figures import Known, derive_figures
from lora_operator.metrics import Metrics
from lora_operator.subject import Key
from lora_operator.timestamps import format_time
from tests.support.controller_bench import KEY, Bench, named
from tests.support.observations import (
    COMPLETE,
    EARLIER,
    NOW,
    RUNNING,
    job_body,
    moment,
    pod_body,
    training_body,
)

FINISHED = {"type": "Finished", "status": "True", "reason": "Succeeded", "lastTransitionTime": EARLIER}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_new_training_costs_three_calls(bench: Bench) -> None:
    bench.training()

    first = await bench.look()
    created = list(bench.cluster.calls)
    second = await bench.look()

    assert created == ["get loratrainings", "create jobs"]
    assert bench.cluster.calls == ["patch loratrainings"]
    assert (first, second) == (0.0, 5)
    assert bench.status.attempts is not None
    assert bench.status.attempts.number == 1


async def test_a_training_that_another_operator_finished_unseen_is_not_trained_again(bench: Bench) -> None:
    bench.training()
    bench.cluster.put("loratrainings", training_body(status={"phase": "Succeeded", "conditions": [FINISHED]}))

    with pytest.raises(Conflict):
        await bench.look()
    await bench.look()

    assert not [name for plural, name in bench.cluster.objects if plural == "jobs"]


async def test_a_look_at_an_unchanged_world_costs_nothing(bench: Bench) -> None:
    bench.training()
    await bench.look(times=2)

    await bench.look()

    assert bench.cluster.calls == []


async def test_a_training_that_is_gone_is_forgotten(bench: Bench) -> None:
    bench.metrics.trainings.set(KEY, derive_figures(Known(LoraTrainingStatus(), created=EARLIER, gpus=1, now=NOW)))

    assert await bench.look() is None
    assert bench.cluster.calls == []
    assert 'name="hina"' not in _text(bench.metrics)


async def test_a_training_that_was_made_anew_while_the_old_one_was_found_to_be_gone_is_kept(bench: Bench) -> None:
    bench.training(status={"attempts": {"number": 1}})
    del bench.cluster.objects["loratrainings", "hina"]
    anew = training_body()
    anew["metadata"] |= {"uid": "of-the-new-one", "resourceVersion": "900"}

    def arrives(verb: str, plural: str, _body: Any) -> None:
        if (verb, plural) == ("get", "loratrainings"):
            bench.cache.put("training", anew)

    bench.cluster.refuse = arrives
    with pytest.raises(Conflict):
        await bench.look()

    found = bench.cache.subject(KEY)
    assert found is not None
    assert found.uid == "of-the-new-one"


async def test_data_are_checked_before_a_gpu_is_asked_for(bench: Bench) -> None:
    bench.training(("profile", "checked"))

    await bench.look(times=2)

    assert [name for plural, name in bench.cluster.objects if plural == "jobs"] == ["hina-data"]
    assert bench.reason("Scheduled") == "WaitingForPod"


async def test_a_check_that_the_watch_has_not_told_yet_is_found(bench: Bench) -> None:
    bench.training(("profile", "checked"))
    await bench.look(times=2)
    bench.cache.drop_name("job", KEY, "hina-data")

    await bench.look()

    assert "create jobs" not in bench.cluster.calls


async def test_a_job_of_somebody_else_is_left_alone_and_told(bench: Bench) -> None:
    bench.training()
    foreign = bench.cluster.put("jobs", {"kind": "Job", "metadata": {"name": "hina-a1", "namespace": "ml"}, "spec": {}})

    with pytest.raises(Refused, match="Job hina-a1 exists already and is not of this training"):
        await bench.look()

    assert bench.cluster.objects["jobs", "hina-a1"] == foreign
    assert bench.reason("Scheduled") == "JobRefused"


async def test_a_refused_job_is_told_in_the_servers_words(bench: Bench) -> None:
    bench.training()
    bench.cluster.refuse = lambda verb, plural, _: (
        Refused('exceeded quota: "gpus"') if (verb, plural) == ("create", "jobs") else None
    )

    with pytest.raises(Refused):
        await bench.look()

    (condition,) = [condition for condition in bench.status.conditions if condition.type == "Scheduled"]
    assert condition.message.startswith('exceeded quota: "gpus"')


async def test_a_last_status_that_stays_refused_is_written_without_the_trainers_part(bench: Bench) -> None:
    bench.training()
    bench.job(status=COMPLETE)
    plan = {"images": 1, "batchesPerEpoch": 1, "stepsPerEpoch": 1, "totalSteps": 1}
    bench.pod(**_dead(plan=plan))
    bench.cluster.refuse = lambda verb, plural, body: (
        Refused("status.plan: Invalid value")
        if plural == "loratrainings" and body and "plan" in body["status"]
        else None
    )

    with pytest.raises(Refused, match=r"status\.plan"):
        await bench.look()
    at_first = bench.status
    for _ in range(LAST_WORD_TRIES):
        bench.queue.failed(KEY)
    with pytest.raises(Refused, match=r"status\.plan"):
        await bench.look()
    without = bench.status
    bench.cluster.refuse = lambda *_: None
    await bench.look()

    bench.queue.forget(KEY)
    assert at_first.completion_time is None
    assert without.plan is None
    assert "cannot be written: status.plan" in next(c.message for c in without.conditions if c.type == "Running")


def _dead(**word: Any) -> dict[str, Any]:
    text = json.dumps({"exitCode": 0, **word})
    return {"state": {"terminated": {"exitCode": 0, "message": text}}, "phase": "Succeeded"}


async def test_a_conflict_is_answered_by_reading_again(bench: Bench) -> None:
    bench.training()
    bench.job()
    bench.cluster.put("loratrainings", training_body(("suspend", True), generation=2))

    with pytest.raises(Conflict):
        await bench.look()
    await bench.look()

    assert bench.status.observed_generation == 2
    assert bench.cluster.objects["jobs", "hina-a1"]["spec"]["suspend"] is True


async def test_a_job_that_the_watch_has_not_told_yet_is_found(bench: Bench) -> None:
    bench.training(status={"attempts": {"number": 1}})
    bench.cluster.put("jobs", job_body())

    await bench.look()

    assert not any(call.startswith("create jobs") for call in bench.cluster.calls)
    assert bench.reason("Scheduled") == "WaitingForPod"


async def test_a_job_that_is_gone_is_replaced_only_after_asking(bench: Bench) -> None:
    bench.training(status={"attempts": {"number": 1}})

    await bench.look()

    assert bench.cluster.calls[:3] == ["get loratrainings", "get jobs", "list pods"]
    assert ("jobs", "hina-a2") in bench.cluster.objects


async def test_nothing_is_started_for_a_training_that_ended_meanwhile(bench: Bench) -> None:
    bench.training(status={"attempts": {"number": 1}})
    bench.cluster.put("loratrainings", training_body(status={"attempts": {"number": 1}, "conditions": [FINISHED]}))

    with pytest.raises(Conflict):
        await bench.look()
    await bench.look()

    assert not [key for key in bench.cluster.objects if key[0] == "jobs"]


async def test_the_last_word_is_looked_for_before_the_end_is_told(bench: Bench) -> None:
    bench.training()
    bench.job(status=COMPLETE)
    bench.cluster.put("pods", pod_body(**_dead(message="10 epochs trained")))

    await bench.look()

    assert "list pods" in bench.cluster.calls
    assert next(c.message for c in bench.status.conditions if c.type == "Succeeded") == "10 epochs trained"


async def test_the_last_word_is_looked_for_though_an_earlier_pod_left_one(bench: Bench) -> None:
    bench.training()
    bench.job(status=COMPLETE)
    interrupted = {"terminated": {"exitCode": 75, "message": json.dumps({"exitCode": 75})}}
    bench.pod(state=interrupted, phase="Failed")
    bench.cluster.put("pods", pod_body(name="hina-a1-0-later", created="2026-11-22T11:30:00Z", **_dead(message="done")))

    await bench.look()

    assert next(c.message for c in bench.status.conditions if c.type == "Succeeded") == "done"
    assert bench.status.attempts is not None
    assert bench.status.attempts.preemptions == 1


async def test_the_last_word_of_the_first_of_several_pods_is_looked_for_though_another_has_ended(bench: Bench) -> None:
    bench.training(("parallelism", {"nodes": 2, "gpusPerNode": 1}))
    bench.job(status=COMPLETE, completions=2, parallelism=2)
    bench.pod(name="hina-a1-1-x", index=1, **_dead(message="the last step is made"))
    bench.pod(name="hina-a1-0-x", index=0, state={"running": {}}, phase="Running")
    bench.cluster.put("pods", pod_body(name="hina-a1-0-x", index=0, **_dead(message="10 epochs trained")))

    await bench.look()

    assert next(c.message for c in bench.status.conditions if c.type == "Succeeded") == "10 epochs trained"


async def test_a_pod_that_the_watch_has_not_told_yet_is_no_interruption_of_the_paused_training(bench: Bench) -> None:
    bench.training(("suspend", True))
    bench.job(suspend=False)
    late = bench.cluster.put("pods", pod_body(state={"running": {}}, phase="Running"))
    await bench.look(2)
    suspended = {"type": "Suspended", "status": "True", "lastTransitionTime": EARLIER}
    bench.job(suspend=True, status={"conditions": [suspended]})
    bench.cache.drop("pod", late)
    del bench.cluster.objects["pods", late["metadata"]["name"]]
    await bench.look()
    paused = bench.status

    bench.cache.put("training", bench.cluster.put("loratrainings", training_body(status=paused.to_document())))
    bench.job(suspend=False)
    bench.pod(name="hina-a1-0-next", created="2026-11-22T11:30:00Z", state={"running": {}}, phase="Running")
    await bench.look()

    assert paused.phase == "Suspended"
    assert paused.attempts is not None
    assert bench.status.attempts is not None
    assert (paused.attempts.preemptions, bench.status.attempts.preemptions) == (0, 0)
    assert bench.status.attempts.pods is not None
    assert (bench.status.attempts.pods.made, bench.status.attempts.pods.paused) == (2, 1)


async def test_an_end_that_another_operator_told_does_not_delete_its_job(bench: Bench) -> None:
    bench.training(status={"conditions": [FINISHED], "observedGeneration": 1, "phase": "Succeeded"})
    bench.job()
    bench.cluster.put("jobs", {**job_body(status=COMPLETE)})

    await bench.look()

    assert ("jobs", "hina-a1") in bench.cluster.objects
    assert "delete jobs" not in bench.cluster.calls


async def test_a_volume_that_cannot_be_mounted_is_told_from_the_kubelets_event(bench: Bench) -> None:
    bench.training(("storage.credentialsSecretRef", {"name": "s3"}))
    bench.job()
    bench.pod(state={"waiting": {"reason": "ContainerCreating"}}, created="2026-11-22T11:59:55Z")
    bench.cluster.events = [{"message": 'MountVolume.SetUp failed for volume "credentials" : secret "s3" not found'}]

    delay = await bench.look()

    assert bench.reason("Scheduled") == "SecretMissing"
    assert delay == 5


async def test_a_pod_that_its_queue_takes_is_no_interruption_before_the_job_is_seen_suspended(
    bench: Bench,
) -> None:
    bench.training(("scheduling.queueName", "main"))
    bench.pod(phase="Running", state=RUNNING)
    body = job_body(status={"startTime": EARLIER})
    body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "main"
    bench.cache.put("job", bench.cluster.put("jobs", body))
    await bench.look()

    bench.cluster.put("jobs", {**body, "spec": {**body["spec"], "suspend": True}})
    bench.pod(phase="Running", state=RUNNING, is_deleting=True)
    await bench.look()

    assert bench.status.attempts is not None
    assert bench.status.attempts.pods is not None
    assert (bench.status.attempts.preemptions, bench.status.attempts.pods.paused) == (0, 1)


WITHOUT_PODS = {"startTime": format_time(moment(-4))}
"""The status of a Job that has waited for its pod for four seconds."""


async def test_a_job_without_a_pod_is_asked_for_the_reason(bench: Bench) -> None:
    bench.training()
    bench.job(status=WITHOUT_PODS)
    bench.cluster.events = [{"message": 'Error creating: pods "hina-a1-0-" is forbidden: no account', "reason": "x"}]

    await bench.look()

    assert bench.reason("Scheduled") == "PodRefused"


async def wait_for_pods(bench: Bench) -> list[Key]:
    """So many other Jobs without pods that making these takes five seconds."""
    keys = [Key("ml", f"other-{number}") for number in range(5 * PODS_PER_SECOND)]
    for key in keys:
        bench.add(key, status=WITHOUT_PODS)
        await bench.controller.reconcile(key)
    return keys


async def test_in_a_burst_jobs_are_given_the_time_that_so_many_pods_take(bench: Bench) -> None:
    keys = await wait_for_pods(bench)
    bench.training()
    bench.job(status=WITHOUT_PODS)

    await bench.look()
    in_burst = "list events" in bench.cluster.calls
    for key in keys:
        bench.cache.put("pod", named(pod_body(), key))
        await bench.controller.reconcile(key)
    await bench.look()

    assert (in_burst, "list events" in bench.cluster.calls) == (False, True)


async def test_a_refusal_that_is_told_is_asked_for_in_a_burst_too(bench: Bench) -> None:
    bench.training()
    bench.job(status=WITHOUT_PODS)
    bench.cluster.events = [{"message": "Error creating: pods is forbidden: no account"}]
    await bench.look()
    await wait_for_pods(bench)

    await bench.look()

    assert "list events" in bench.cluster.calls


async def test_a_training_that_is_gone_waits_for_no_pod(bench: Bench) -> None:
    for key in await wait_for_pods(bench):
        bench.cache.drop_name("training", key, key.name)
        await bench.controller.reconcile(key)
    bench.training()
    bench.job(status=WITHOUT_PODS)

    await bench.look()

    assert "list events" in bench.cluster.calls


async def test_a_pod_that_is_just_being_created_is_given_time(bench: Bench) -> None:
    bench.training()
    bench.job()
    bench.pod(state={"waiting": {"reason": "ContainerCreating"}}, created=NOW.isoformat())
    bench.now = moment(1)

    await bench.look()

    assert "list events" not in bench.cluster.calls


async def test_a_lost_event_does_not_hold_up_anything(bench: Bench) -> None:
    bench.training()
    bench.cluster.refuse = lambda _, plural, __: ClusterUnavailable("away") if plural == "events" else None

    bench.training(("profile", "missing"))
    await bench.look()

    assert bench.reason("Accepted") == "ProfileNotFound"
    assert 'lora_operator_errors_total{kind="event"}' in _text(bench.metrics)


async def test_repeats_of_an_event_are_counted(bench: Bench) -> None:
    bench.training(("profile", "big"))
    await bench.look()
    (name,) = [name for plural, name in bench.cluster.objects if plural == "events"]
    bench.cluster.put("loratrainings", training_body(("profile", "big")))
    bench.cache.put("training", bench.cluster.objects["loratrainings", "hina"])

    await bench.look()

    assert bench.cluster.objects["events", name]["count"] == 2


@pytest.mark.parametrize(
    ("error", "result", "kind"),
    [
        (Conflict("x"), "requeue", None),
        (Refused("x"), "error", "refused"),
        (ClusterUnavailable("x"), "error", "cluster_unavailable"),
        (KeyError("x"), "error", "bug"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_no_error_stops_the_work(bench: Bench, error: Exception, result: str, kind: str | None) -> None:
    bench.training()
    bench.cluster.refuse = lambda *_: error

    assert await bench.controller._attempt(KEY) == result
    assert kind is None or f'lora_operator_errors_total{{kind="{kind}"}} 1.0' in _text(bench.metrics)
    assert bench.queue._timers
    bench.queue.forget(KEY)


def _text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


async def test_the_metrics_tell_of_the_end_what_the_status_tells(bench: Bench) -> None:
    bench.training()
    bench.job(status=COMPLETE)
    said = Progress(step=400, total_steps=1000, percent=40, remaining_seconds=60)
    word = TerminationMessage(progress=said).to_bytes().decode()
    bench.pod(phase="Succeeded", state={"terminated": {"exitCode": 0, "message": word}})
    bench.cache.put_report(KEY, "uid-of-hina-a1-0-abcde", ProgressReport(reason="Training", progress=said))

    await bench.look()

    assert 'lora_training_progress_ratio{name="hina",namespace="ml"} 1.0' in _text(bench.metrics)
    assert 'lora_training_remaining_seconds{name="hina",namespace="ml"} 0.0' in _text(bench.metrics)


async def test_a_training_whose_time_is_over_is_stopped_then_heard_then_ended(bench: Bench) -> None:
    bench.training(("limits.activeSeconds", 7200))
    bench.job(status={"startTime": EARLIER}, activeDeadlineSeconds=7200)
    bench.pod(phase="Running", state=RUNNING)
    await bench.look()
    bench.now = moment(3611)

    await bench.look()
    stopping = list(bench.cluster.calls)
    bench.cache.drop("job", job_body())
    await bench.look()
    phase = bench.status.phase
    word = json.dumps({"exitCode": 75, "step": 8, "savedState": {"step": 8, "uri": "s3://lora/runs/hina/state/step-8"}})
    bench.pod(phase="Failed", state={"terminated": {"exitCode": 75, "reason": "Error", "message": word}})
    await bench.look()

    assert stopping[0] == "delete jobs"
    assert phase != Phase.FAILED
    assert bench.reason("Succeeded") == "DeadlineExceeded"
    assert bench.status.saved_state is not None
    assert bench.status.saved_state.step == 8
    assert bench.status.attempts is not None
    assert bench.status.attempts.preemptions == 0
