"""What goes wrong with a training, and what its status then says."""

import pytest
import yaml

from lora_api import OUTCOMES, ExitCode, Outcome
from lora_operator import application, controller, deadlines, reconcile
from tests.support.scenario import JOBS, PROFILES, TRAININGS, Scenario, condition

FINAL = [o for o in OUTCOMES if o.policy in {"FailJob", "Count"} and o.code is not None]
IGNORED = [o for o in OUTCOMES if o.policy == "Ignore"]


@pytest.mark.parametrize("outcome", FINAL, ids=lambda o: o.reason)
async def test_an_exit_code_ends_the_training_with_its_reason(scenario: Scenario, outcome: Outcome) -> None:
    await scenario.start_operator()

    await scenario.create(("retry.maxFailures", 0), env={"FAKE_EXIT": int(outcome.code)})
    body = await scenario.until_phase("Failed")

    failure = body["status"]["failure"]
    # Nothing but the kernel kills a trainer that nobody stops.
    reason = "HostOutOfMemory" if outcome.code == ExitCode.KILLED else outcome.reason
    assert (failure["reason"], failure["exitCode"]) == (reason, outcome.code)
    assert failure["step"] == 5
    assert failure["hint"]
    assert condition(body, "Succeeded")["status"] == "False"
    assert condition(body, "Finished")["reason"] == "Failed"


async def test_the_trainers_own_words_are_told(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create(env={"FAKE_EXIT": int(ExitCode.INVALID_DATASET)})
    body = await scenario.until_phase("Failed")

    assert body["status"]["failure"]["message"] == "TrainData/50_hina/broken.png does not decode"
    assert body["status"]["failure"]["hint"] == "Remove the file."
    assert scenario.pod_count() == 1


async def test_a_crash_without_last_word_is_told_by_the_end_of_its_log(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create(("retry.maxFailures", 0), env={"FAKE_EXIT": 1, "FAKE_TEXT": "Segmentation fault"})
    body = await scenario.until_phase("Failed")

    assert body["status"]["failure"]["reason"] == "TrainerCrashed"
    assert "Segmentation fault" in body["status"]["failure"]["message"]


@pytest.mark.parametrize("outcome", IGNORED, ids=lambda o: o.reason)
async def test_an_interrupted_pod_counts_as_nobodys_failure(scenario: Scenario, outcome: Outcome) -> None:
    await scenario.start_operator()

    marks = {"FAKE_EXIT_ONCE": int(outcome.code), "FAKE_MARKS": scenario.folder / "mark"}
    await scenario.create(("retry.maxFailures", 0), env=marks)
    body = await scenario.until_phase("Succeeded")

    found = body["status"]["attempts"]
    assert (found["number"], found["failures"], found["preemptions"]) == (1, 0, 1)


async def test_a_failure_that_may_pass_is_tried_again(scenario: Scenario) -> None:
    await scenario.start_operator()

    marks = {"FAKE_EXIT_ONCE": int(ExitCode.STORAGE_UNAVAILABLE), "FAKE_MARKS": scenario.folder / "mark"}
    await scenario.create(env=marks)
    body = await scenario.until_phase("Succeeded")

    assert body["status"]["attempts"]["failures"] == 1
    assert "failure" not in body["status"]


async def test_a_missing_secret_is_named_and_waited_for(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kubelet tells of it in an event only, which is looked for when a pod is late.
    monkeypatch.setattr(controller, "MOUNT_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(reconcile, "WAIT_FOR_START_SECONDS", 0.2)
    await scenario.start_operator()

    await scenario.create(("storage.credentialsSecretRef", {"name": "s3"}))
    found = await scenario.until_condition("Scheduled", "SecretMissing")
    await scenario.create_secret("s3")
    await scenario.until_phase("Succeeded")

    assert "Secret s3 (spec.storage.credentialsSecretRef) does not exist" in found["message"]
    assert scenario.events()["SecretMissing"]["type"] == "Warning"


async def test_an_unknown_profile_is_answered_and_recovers_when_it_appears(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "PROFILES_SECONDS", 0.05)
    await scenario.start_operator()

    await scenario.create(("profile", "later"))
    found = await scenario.until_condition("Accepted", "ProfileNotFound")
    jobs = scenario.jobs()
    scenario.profiles_file.write_text(yaml.safe_dump({**PROFILES, "later": {"image": "trainer:2"}}))
    await scenario.until_phase("Succeeded")

    assert "spec.profile is later" in found["message"]
    assert jobs == []


async def test_a_wrong_edit_of_the_profiles_leaves_those_in_force(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "PROFILES_SECONDS", 0.05)
    operator = await scenario.start_operator()
    scenario.profiles_file.write_text("default: {imag: typo}")
    await scenario.until_told(lambda: 'lora_operator_errors_total{kind="settings"} 1.0' in scenario.metrics(operator))

    await scenario.create()

    await scenario.until_phase("Succeeded")


async def test_the_schedulers_words_are_told(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create(("profile", "picky"))
    found = await scenario.until_condition("Scheduled", "Unschedulable")
    await scenario.until(lambda: "Unschedulable" in scenario.events())

    assert "0/1 nodes are available" in found["message"]


async def test_an_image_that_cannot_be_pulled_is_told(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create(("profile", "elsewhere"))
    found = await scenario.until_condition("Scheduled", "ImagePullFailed")

    assert "missing:1" in found["message"]


async def test_a_job_of_somebody_else_is_not_touched(scenario: Scenario) -> None:
    await scenario.start_operator()
    pod = {"restartPolicy": "Never", "containers": [{"name": "theirs", "image": "noop:1"}]}
    foreign = {"metadata": {"name": "hina-a1"}, "spec": {"suspend": True, "template": {"spec": pod}}}
    before = await scenario.send("POST", JOBS, {"apiVersion": "batch/v1", "kind": "Job", **foreign})

    await scenario.create()
    found = await scenario.until_condition("Scheduled", "JobRefused")
    (after,) = scenario.stored("batch", "jobs")
    await scenario.delete("hina-a1", path=JOBS)
    await scenario.until_phase("Succeeded")

    assert "Job hina-a1 exists already" in found["message"]
    assert after["spec"] == before["spec"]
    assert "ownerReferences" not in after["metadata"]


async def have_run(scenario: Scenario, seconds: int) -> None:
    """A training that has a limit runs, and has for so long."""
    await scenario.create(("limits.activeSeconds", 3600), env={"FAKE_GATE": scenario.folder / "never"})
    await scenario.until_phase("Running")
    await scenario.send("PATCH", f"{TRAININGS}/hina/status", {"status": {"attempts": {"activeSeconds": seconds}}})


async def test_a_training_whose_time_is_over_on_a_dead_node_is_called_finished(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "KUBELET_PATIENCE_SECONDS", 0.0)
    hasty = {"image": "trainer:1", "terminationGracePeriodSeconds": 1}
    scenario.profiles_file.write_text(yaml.safe_dump({"default": hasty}))
    await scenario.start_operator()

    await have_run(scenario, 3600)
    scenario.cluster.disruptions.lose_node()
    body = await scenario.until_phase("Failed")

    (pod,) = scenario.stored("", "pods")
    assert pod["status"]["phase"] == "Running"
    assert body["status"]["failure"]["reason"] == "DeadlineExceeded"


async def test_a_pod_that_its_job_does_not_stop_in_time_is_heard_before_the_end(scenario: Scenario) -> None:
    await scenario.start_operator()

    await have_run(scenario, 3700)
    body = await scenario.until_phase("Failed")

    failure, attempts = body["status"]["failure"], body["status"]["attempts"]
    assert (failure["reason"], failure["step"]) == ("DeadlineExceeded", 5)
    assert (attempts["number"], attempts["preemptions"], attempts["failures"]) == (1, 0, 0)
