"""lora_operator.cache"""

from typing import Any

import pytest

from lora_api import ProgressReport, names
from lora_api.evaluation_spec import Evaluation
from lora_api.run_manifest import digest_of_evaluation
from lora_operator.cache import GONE_KEPT, Cache, Kind, key_of
from lora_operator.subject import Key
from tests.support.observations import EARLIER, job_body, pod_body, training_body

KEY = Key("ml", "hina")
WHEN = {"lastTransitionTime": EARLIER}


def version(body: dict[str, Any], number: int, **metadata: Any) -> dict[str, Any]:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(number), **metadata}}


def filled() -> Cache:
    cache = Cache()
    cache.put("training", training_body())
    cache.put("job", job_body())
    cache.put("pod", pod_body(state={"running": {}}, phase="Running"))
    return cache


def test_children_are_found_by_their_label() -> None:
    assert key_of("job", job_body()) == KEY
    assert key_of("job", {"metadata": {"name": "x", "namespace": "ml"}}) is None


def test_a_training_is_seen_with_its_children() -> None:
    cache = filled()
    subject = cache.subject(KEY)
    assert subject is not None

    observed = cache.observed(subject)

    assert observed.job is not None
    assert observed.pod is not None
    assert (observed.job.name, observed.pod.name) == ("hina-a1", "hina-a1-0-abcde")


def test_an_older_state_does_not_replace_a_newer_one() -> None:
    cache = Cache()

    news = [cache.put("training", version(training_body(), number)) for number in (10, 9, 10, 11)]

    assert news == [KEY, None, None, KEY]


def test_a_child_that_is_written_without_a_change_that_is_read_is_no_news() -> None:
    cache = filled()

    job = cache.put("job", version(job_body(status={"ready": 1}), 20))
    pod = cache.put("pod", version(pod_body(state={"running": {}}, phase="Running"), 21))
    ended = cache.put("pod", version(pod_body(phase="Failed"), 22))

    subject = cache.subject(KEY)
    assert subject is not None
    observed = cache.observed(subject)
    assert (job, pod, ended) == (None, None, KEY)
    # A patch of the Job must name its newest version all the same.
    assert observed.job is not None and observed.job.resource_version == "20"


def test_a_training_is_parsed_once_per_state() -> None:
    cache = filled()
    first = cache.subject(KEY)

    again = cache.subject(KEY)
    cache.put("training", version(training_body(), 10))

    changed = cache.subject(KEY)
    assert again is first
    assert changed is not None
    assert changed.resource_version == "10"


def test_a_new_object_of_the_same_name_replaces_the_old_one() -> None:
    cache = Cache()
    cache.put("training", version(training_body(), 10))

    cache.put("training", version(training_body(), 11, uid="other"))

    subject = cache.subject(KEY)
    assert subject is not None
    assert subject.uid == "other"


@pytest.mark.parametrize(("kind", "body"), [("training", training_body()), ("job", job_body()), ("pod", pod_body())])
def test_a_late_answer_about_an_old_object_does_not_replace_the_new_one(kind: Kind, body: dict[str, Any]) -> None:
    cache = Cache()
    cache.put(kind, version(body, 11, uid="new"))

    news = cache.put(kind, version(body, 10, uid="old"))

    assert (news, cache.uids(kind)) == (None, {"new"})


def test_a_late_deletion_of_an_old_object_does_not_hide_the_new_one() -> None:
    cache = Cache()
    cache.put("training", version(training_body(), 3, uid="other"))

    cache.drop("training", training_body())

    assert cache.subject(KEY) is not None


@pytest.mark.parametrize(("kind", "body"), [("training", training_body()), ("job", job_body()), ("pod", pod_body())])
def test_a_late_answer_does_not_bring_back_what_is_gone(kind: Kind, body: dict[str, Any]) -> None:
    cache = filled()
    cache.drop(kind, version(body, 20))

    news = cache.put(kind, version(body, 19))

    assert (news, cache.uids(kind)) == (None, set())


def test_a_job_that_gets_back_the_label_that_it_had_lost_is_seen_again() -> None:
    cache = filled()
    cache.drop("job", version(job_body(), 20))

    assert cache.put("job", version(job_body(), 21)) == KEY


def test_only_the_newest_of_those_that_are_gone_are_remembered() -> None:
    cache = Cache()
    for number in range(GONE_KEPT + 1):
        cache.drop("job", version(job_body(), 100 + number, uid=f"uid-{number}"))

    oldest, newest = (cache.put("job", version(job_body(), 10, uid=f"uid-{number}")) for number in (0, GONE_KEPT))

    assert (oldest, newest) == (KEY, None)


def test_the_last_word_is_that_of_the_pod_that_ended_last_of_those_of_one_second() -> None:
    cache = filled()
    subject = cache.subject(KEY)
    assert subject is not None
    for name, end in (("second", "11:00:09Z"), ("first", "11:00:05Z")):
        state = {
            "exitCode": 75,
            "finishedAt": f"2026-11-22T{end}",
            "message": f'{{"exitCode": 75, "message": "{name}"}}',
        }
        cache.put("pod", pod_body(name=name, state={"terminated": state}, phase="Failed"))

    word = cache.observed(subject).last_word

    assert word is not None
    assert word.message == "second"


def test_jobs_of_an_object_that_had_the_same_name_are_not_ours() -> None:
    cache = Cache()
    cache.put("training", version(training_body(), 3, uid="other"))
    cache.put("job", job_body())
    subject = cache.subject(KEY)
    assert subject is not None

    assert cache.observed(subject).job is None


def test_the_newest_attempt_is_the_job() -> None:
    cache = filled()
    cache.put("job", job_body(10))
    cache.put("job", job_body(9))
    subject = cache.subject(KEY)
    assert subject is not None

    observed = cache.observed(subject)

    assert observed.job is not None
    assert observed.job.name == "hina-a10"
    assert [job.name for job in observed.older_jobs] == ["hina-a1", "hina-a9"]


def test_a_family_is_forgotten_with_its_last_member() -> None:
    cache = filled()

    cache.drop("training", training_body())
    cache.drop_name("job", KEY, "hina-a1")
    between = list(cache)
    cache.prune("pod", cache.uids("pod"))

    assert (between, list(cache)) == ([KEY], [])


def test_what_a_pod_says_is_kept_while_it_is_the_newest() -> None:
    cache = filled()
    (_, pod) = next(iter(cache.running_pods()))
    report = ProgressReport(reason="Training")

    news = [cache.put_report(KEY, pod.uid, report), cache.put_report(KEY, pod.uid, report)]
    subject = cache.subject(KEY)
    assert subject is not None
    said = cache.observed(subject).report
    cache.put("pod", pod_body(name="hina-a1-0-next", created="2026-11-22T11:30:00Z"))

    assert news == [True, False]
    assert said == report
    assert cache.observed(subject).report is None


def test_the_last_word_of_a_pod_outlives_it() -> None:
    cache, text = filled(), '{"exitCode": 75, "reason": "Interrupted", "message": "told to stop", "step": 28}'
    ended = pod_body(state={"terminated": {"exitCode": 75, "message": text}}, phase="Failed")
    subject = cache.subject(KEY)
    assert subject is not None

    # Its end and its deletion may come as one event.
    cache.drop("pod", version(ended, 9))

    seen = cache.observed(subject)
    assert seen.pods == ()
    assert seen.last_word is not None
    assert seen.last_word.step == 28


def test_the_last_word_of_another_objects_pod_is_not_ours() -> None:
    cache, text = filled(), '{"exitCode": 75, "reason": "Interrupted", "message": "told to stop", "step": 28}'
    ended = pod_body(state={"terminated": {"exitCode": 75, "message": text}}, phase="Failed")
    cache.put("pod", version(ended, 9))
    cache.put("training", version(training_body(), 10, uid="other", creationTimestamp="2027-01-01T00:00:00Z"))
    subject = cache.subject(KEY)
    assert subject is not None

    assert cache.observed(subject).last_word is None


def test_nothing_is_kept_about_a_training_that_is_gone() -> None:
    assert Cache().put_report(KEY, "x", ProgressReport()) is False


def test_only_running_pods_can_be_asked() -> None:
    cache = filled()
    cache.put("pod", pod_body(name="hina-a1-0-wait", state={"waiting": {"reason": "ContainerCreating"}}))
    cache.put("pod", pod_body(name="hina-a1-0-noip", state={"running": {}}, podIP=""))

    assert [pod.name for _, pod in cache.running_pods()] == ["hina-a1-0-abcde"]


@pytest.mark.parametrize("job_uid", ["", "job-of-somebody-else"])
def test_a_pod_that_no_job_of_the_training_made_is_not_asked(job_uid: str) -> None:
    cache = filled()
    foreign = job_body(2)
    foreign["metadata"] |= {"uid": "job-of-somebody-else", "ownerReferences": []}
    cache.put("job", foreign)
    cache.put("pod", pod_body(name="foreign", job_uid=job_uid, state={"running": {}}, phase="Running"))

    assert [pod.name for _, pod in cache.running_pods()] == ["hina-a1-0-abcde"]


FINISHED = {
    "phase": "Succeeded",
    "observedGeneration": 1,
    "completionTime": EARLIER,
    "conditions": [{"type": "Finished", "status": "True", "reason": "Succeeded", "message": "", **WHEN}],
    "plan": {"images": 1, "batchesPerEpoch": 1, "stepsPerEpoch": 1, "totalSteps": 1},
    "checkpoints": [
        {"epoch": epoch, "step": 5, "uri": f"s3://a/{epoch}", "sha256": "a" * 64, "sizeBytes": 7} for epoch in (1, 2)
    ],
}


def test_of_a_finished_training_only_its_end_is_kept() -> None:
    cache = Cache()
    cache.put("training", training_body(("ttlSecondsAfterFinished", 60), status=FINISHED))

    subject = cache.subject(KEY)

    assert subject is not None
    assert subject.is_finished
    assert (subject.ttl_seconds, subject.status.completion_time) == (60, EARLIER)
    assert (subject.training, subject.problem) == (None, "")
    assert "buckets" not in subject.raw_status["plan"]
    assert [checkpoint["epoch"] for checkpoint in subject.raw_status["checkpoints"]] == [2]


def test_a_finished_training_is_kept_whole_until_it_is_evaluated_as_it_asks_for() -> None:
    cache = Cache()
    wish, succeeded = ("evaluation", {}), {"type": "Succeeded", "status": "True", "reason": "Completed", **WHEN}
    status = {**FINISHED, "conditions": [*FINISHED["conditions"], succeeded]}

    cache.put("training", training_body(wish, status=status))
    cache.put("pod", pod_body(phase="Succeeded", stage=names.STAGE_EVALUATION))
    subject = cache.subject(KEY)

    assert subject is not None and subject.training is not None
    assert subject.is_finished and not subject.is_settled
    assert len(subject.status.checkpoints) == 2
    assert len(cache.uids("pod")) == 1


def test_a_settled_training_whose_evaluation_failed_is_known_as_settled_again() -> None:
    cache = Cache()
    held = [{"type": kind, "status": "True", "reason": "Completed", **WHEN} for kind in ("Finished", "Succeeded")]
    failed = {"type": "Evaluated", "status": "False", "reason": "Failed", **WHEN}
    told = {"reason": "Failed", "digest": digest_of_evaluation(Evaluation())}
    status = {**FINISHED, "conditions": [*held, failed], "evaluation": told}

    cache.put("training", training_body(("evaluation", {}), status=status))
    subject = cache.subject(KEY)

    assert subject is not None
    assert subject.is_settled and subject.training is None


def test_the_last_word_of_a_pod_that_evaluated_is_not_that_of_one_that_trained() -> None:
    cache = filled()
    state = {"terminated": {"exitCode": 0, "message": '{"exitCode":0,"message":"evaluated"}'}}

    cache.put("pod", pod_body(name="hina-e2-0-x", stage=names.STAGE_EVALUATION, phase="Succeeded", state=state))
    subject = cache.subject(KEY)

    assert subject is not None
    assert cache.observed(subject).last_word is None


@pytest.mark.parametrize("order", [("training", "pod"), ("pod", "training")])
def test_ended_pods_of_a_finished_training_are_not_kept(order: tuple[Kind, Kind]) -> None:
    bodies = {"training": training_body(status=FINISHED), "pod": pod_body(phase="Succeeded")}
    cache = Cache()

    news = [cache.put(kind, bodies[kind]) for kind in order]

    assert cache.uids("pod") == set()
    assert news[order.index("training")] == KEY


def test_a_pod_that_still_writes_is_known_although_its_training_has_finished() -> None:
    cache = Cache()
    cache.put("training", training_body(status=FINISHED))

    news = cache.put("pod", pod_body(state={"running": {}}, phase="Running"))

    assert news == KEY
    assert len(cache.uids("pod")) == 1
