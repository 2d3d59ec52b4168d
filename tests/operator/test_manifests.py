"""lora_operator.manifests and lora_operator.pod_template"""

import json
from typing import Any

import kubernetes_validate
import pytest

from lora_api import OUTCOMES, LoraTraining, load_training, names
from lora_operator.manifests import (
    MAX_ANNOTATION_BYTES,
    Used,
    build_job,
    build_job_patch,
    build_pod_failure_policy,
    build_preflight_job,
    needs_preflight_job,
    oversize,
    resolve,
)
from lora_operator.observed import ANNOTATION_FAILURES_BEFORE
from lora_operator.profiles import Profile, load_profiles
from tests.support.documents import make_training
from tests.support.observations import make_job, make_preflight_job

PLAIN = load_profiles("default: {image: 'trainer:1'}")["default"]
RICH = load_profiles(
    """
default:
  image: registry.example.com/lora-trainer:1.0
  imagePullPolicy: Always
  imagePullSecrets: [pull]
  command: [python, -m, lora_trainer]
  gpuResource: amd.com/gpu
  nodeSelector: {pool: gpu, zone: a}
  tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}]
  affinity: {nodeAffinity: {}}
  runtimeClassName: nvidia
  priorityClass: low
  serviceAccountName: trainer
  resources: {requests: {cpu: "4"}, limits: {memory: 24Gi}}
  env: [{name: HTTPS_PROXY, value: "http://proxy:3128"}, {name: TMPDIR, value: /mnt/fast}]
  storage: {endpoint: "http://minio:9000", credentialsSecretRef: {name: cluster-s3}}
  sharedMemory: 8Gi
  podLabels: {team: art}
  podAnnotations: {note: profile}
  terminationGracePeriodSeconds: 300
  workVolumeSize: 50Gi
"""
)["default"]
FULL: tuple[tuple[str, Any], ...] = (
    ("baseModel.uri", "hf://owner/model"),
    ("baseModel.tokenSecretRef", {"name": "hf", "key": "hf-token"}),
    ("dataset.uri", "pvc://pictures.v2/TrainData"),
    ("output.uri", "pvc://results/hina"),
    ("storage.credentialsSecretRef", {"name": "s3"}),
    ("storage.caBundleRef", {"name": "ca", "key": "bundle.pem"}),
    ("scheduling.nodeSelector", {"zone": "b"}),
    ("scheduling.tolerations", [{"key": "spot", "operator": "Exists"}]),
    ("scheduling.priorityClass", "high"),
    ("pod.resources", {"limits": {"memory": "32Gi"}}),
    ("pod.env", [{"name": "TOKEN", "secretKeyRef": {"name": "t", "key": "k"}}, {"name": "EMPTY", "value": ""}]),
    ("pod.labels", {"cost": "42"}),
    ("pod.annotations", {"note": "mine"}),
    ("limits.activeSeconds", 7200),
    ("retry.maxFailures", 5),
)


def build(*changes: tuple[str, Any], profile: Profile = PLAIN) -> dict[str, Any]:
    return build_job(resolve(make_training(*changes), profile), profile, attempt=1)


def with_uid(training: LoraTraining) -> LoraTraining:
    return training.model_copy(update={"metadata": training.metadata.model_copy(update={"uid": "u-1"})})


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["template"]["spec"]


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    return pod_of(job)["containers"][0]


def environment(job: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container_of(job)["env"]}


@pytest.mark.parametrize("version", ["1.29", "1.31", "1.34", "1.36", "1.37"])
@pytest.mark.parametrize("profile", [PLAIN, RICH], ids=["plain", "rich"])
def test_children_are_valid_in_every_supported_kubernetes(version: str, profile: Profile) -> None:
    training = with_uid(make_training(*FULL))

    for wanted in (profile, profile.model_copy(update={"preflight": "InitContainer"})):
        kubernetes_validate.validate(build_job(training, wanted, attempt=2), version, strict=True)
    kubernetes_validate.validate(build_preflight_job(training, profile), version, strict=True)


def test_the_job_runs_one_pod_once_and_leaves_failures_to_the_policy() -> None:
    spec = build(("retry.maxFailures", 5), ("limits.activeSeconds", 7200))["spec"]

    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 1, 1)
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["suspend"]) == (5, 7200, False)
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "ttlSecondsAfterFinished" not in spec


def test_a_suspended_training_makes_a_suspended_job() -> None:
    assert build(("suspend", True))["spec"]["suspend"] is True


def test_the_job_belongs_to_the_training_and_to_nobody_else() -> None:
    metadata = build_job(with_uid(make_training()), PLAIN, attempt=3)["metadata"]

    assert metadata["name"] == "hina-a3"
    assert metadata["ownerReferences"] == [
        {
            "apiVersion": names.API_VERSION,
            "kind": "LoraTraining",
            "name": "hina",
            "uid": "u-1",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def test_labels_of_the_training_are_not_copied() -> None:
    document = make_training().model_dump(by_alias=True)
    tracked = make_training()
    labels = {"app.kubernetes.io/instance": "argo-app", "argocd.argoproj.io/instance": "app"}
    metadata = type(tracked.metadata).model_validate({**document["metadata"], "labels": labels, "annotations": labels})
    tracked = tracked.model_copy(update={"metadata": metadata})

    job = build_job(tracked, PLAIN, attempt=1)

    assert set(job["metadata"]["labels"]) == {
        names.LABEL_MANAGED_BY,
        names.LABEL_NAME,
        names.LABEL_TRAINING,
        names.LABEL_ATTEMPT,
        names.LABEL_STAGE,
    }
    assert set(job["metadata"]["annotations"]) == {names.ANNOTATION_SPEC_DIGEST, ANNOTATION_FAILURES_BEFORE}


def test_disruption_comes_before_every_exit_code() -> None:
    rules = build_pod_failure_policy(["trainer"])["rules"]

    assert rules[0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def test_the_failure_policy_says_what_the_table_of_exit_codes_says() -> None:
    rules = build_pod_failure_policy(["trainer"])["rules"][1:]
    actions = {code: rule["action"] for rule in rules for code in rule["onExitCodes"]["values"]}

    expected = {int(o.code): o.policy for o in OUTCOMES if o.code is not None and o.policy in {"FailJob", "Ignore"}}
    assert expected == actions
    assert all(rule["onExitCodes"]["values"] == sorted(rule["onExitCodes"]["values"]) for rule in rules)
    assert {rule["onExitCodes"]["containerName"] for rule in rules} == {names.TRAINER_CONTAINER}


def test_the_pod_is_as_restricted_as_the_standard_asks() -> None:
    pod = pod_of(build(*FULL))
    container = pod["containers"][0]

    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "downwardAPI", "emptyDir", "secret", "persistentVolumeClaim"}


@pytest.mark.parametrize(("gpus", "limits"), [(1, {"nvidia.com/gpu": "1"}), (0, None)])
def test_gpus_are_asked_for_by_number(gpus: int, limits: dict[str, str] | None) -> None:
    assert container_of(build(("parallelism.gpusPerNode", gpus))).get("resources", {}).get("limits") == limits


def test_secrets_are_mounted_as_files_and_never_put_into_the_environment() -> None:
    job = build(*FULL)
    volumes = {volume["name"]: volume for volume in pod_of(job)["volumes"]}
    mounts = {mount["name"]: mount for mount in container_of(job)["volumeMounts"]}
    found = environment(job)

    assert volumes["credentials"]["secret"]["secretName"] == "s3"
    assert mounts["credentials"] == {"name": "credentials", "mountPath": names.CREDENTIALS_DIR, "readOnly": True}
    assert volumes["hub-token"]["secret"]["items"] == [{"key": "hf-token", "path": names.HUB_TOKEN_FILE}]
    assert volumes["ca-bundle"]["configMap"] == {
        "name": "ca",
        "items": [{"key": "bundle.pem", "path": names.CA_BUNDLE_FILE}],
    }
    assert found[names.ENV_CREDENTIALS_DIR] == names.CREDENTIALS_DIR
    assert found[names.ENV_HUB_TOKEN_FILE] == "/etc/lora/hub/token"
    assert found[names.ENV_CA_BUNDLE] == "/etc/lora/ca/ca.crt"
    assert not any("AWS" in name for name in found)


def test_without_secrets_nothing_is_said_about_them() -> None:
    found = environment(build())

    assert not {names.ENV_CREDENTIALS_DIR, names.ENV_HUB_TOKEN_FILE, names.ENV_CA_BUNDLE} & set(found)


def test_only_the_claim_of_the_output_may_be_written() -> None:
    job = build(("dataset.uri", "pvc://pictures.v2/TrainData"), ("output.uri", "pvc://results/hina"))
    volumes = [
        volume["persistentVolumeClaim"] for volume in pod_of(job)["volumes"] if "persistentVolumeClaim" in volume
    ]
    mounts = [m for m in container_of(job)["volumeMounts"] if m["mountPath"].startswith(names.CLAIMS_DIR)]

    assert volumes == [{"claimName": "results"}, {"claimName": "pictures.v2", "readOnly": True}]
    assert mounts == [
        {"name": "claim-0", "mountPath": "/mnt/claims/results"},
        {"name": "claim-1", "mountPath": "/mnt/claims/pictures.v2", "readOnly": True},
    ]


def test_the_claim_of_the_latent_cache_may_be_written_too() -> None:
    job = build(("dataset", {"uri": "pvc://pictures/train", "latentCache": "Store", "cacheUri": "pvc://cache/x"}))

    claims = [volume["persistentVolumeClaim"] for volume in pod_of(job)["volumes"] if "persistentVolumeClaim" in volume]
    assert claims == [{"claimName": "cache"}, {"claimName": "pictures", "readOnly": True}]


def test_one_claim_for_input_and_output_is_mounted_once_and_writable() -> None:
    job = build(("dataset.uri", "pvc://all/data"), ("output.uri", "pvc://all/out"))

    claims = [volume for volume in pod_of(job)["volumes"] if "persistentVolumeClaim" in volume]
    assert claims == [{"name": "claim-0", "persistentVolumeClaim": {"claimName": "all"}}]


def test_the_trainer_is_told_where_everything_is() -> None:
    job = build()
    found = environment(job)

    assert container_of(job)["args"] == ["run", "/etc/lora/config/training.yaml"]
    assert found[names.ENV_LISTEN_ADDRESS] == "$(LORA_POD_IP):9400"
    assert list(found).index("LORA_POD_IP") < list(found).index(names.ENV_LISTEN_ADDRESS)
    assert found[names.ENV_ATTEMPT] == "1"
    assert found["HOME"] == found["TMPDIR"] == found[names.ENV_WORK_DIR] == names.WORK_DIR
    assert found[names.ENV_TERMINATION_LOG] == container_of(job)["terminationMessagePath"] == names.TERMINATION_LOG
    assert container_of(job)["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert container_of(job)["ports"] == [{"name": "metrics", "containerPort": 9400}]


def test_shared_memory_is_a_volume_in_memory() -> None:
    volumes = {volume["name"]: volume for volume in pod_of(build())["volumes"]}

    assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert volumes["work"]["emptyDir"] == {}


def test_the_training_is_added_to_the_profile() -> None:
    job = build(*FULL, profile=RICH)
    pod, container = pod_of(job), container_of(job)

    assert container["image"] == "registry.example.com/lora-trainer:1.0"
    assert container["command"] == ["python", "-m", "lora_trainer"]
    assert pod["nodeSelector"] == {"pool": "gpu", "zone": "b"}
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["gpu", "spot"]
    assert (pod["priorityClassName"], pod["runtimeClassName"]) == ("high", "nvidia")
    assert container["resources"] == {"requests": {"cpu": "4"}, "limits": {"memory": "32Gi", "amd.com/gpu": "1"}}
    assert pod["terminationGracePeriodSeconds"] == 300
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    metadata = job["spec"]["template"]["metadata"]
    assert metadata["labels"].items() >= {"team": "art", "cost": "42"}.items()
    assert metadata["annotations"].items() >= {"note": "mine"}.items()
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["shared-memory"]["emptyDir"]["sizeLimit"] == "8Gi"
    assert volumes["work"]["emptyDir"] == {"sizeLimit": "50Gi"}


def test_variables_of_profile_and_training_win_over_ours() -> None:
    found = environment(build(*FULL, profile=RICH))

    assert found["TMPDIR"] == "/mnt/fast"
    assert found["TOKEN"] == {"secretKeyRef": {"name": "t", "key": "k"}}
    assert found["EMPTY"] == ""


def test_the_operators_labels_cannot_be_taken_by_a_profile() -> None:
    profile = PLAIN.model_copy(update={"pod_labels": {names.LABEL_TRAINING: "other"}})

    job = build_job(make_training(), profile, attempt=1)

    assert job["spec"]["template"]["metadata"]["labels"][names.LABEL_TRAINING] == "hina"


def test_the_object_store_of_the_profile_is_used_by_trainings_that_name_none() -> None:
    assert resolve(make_training(), RICH).spec.storage == RICH.storage


def test_a_training_that_names_its_object_store_keeps_it() -> None:
    training = make_training(("storage.region", "eu-central-1"))

    assert resolve(training, RICH).spec.storage == training.spec.storage


@pytest.mark.parametrize(
    "change",
    [
        ("optimizer.arguments", {"weight_decay": "1e-2", "betas": "(0.9, 0.99)"}),
        ("optimizer.learningRate", 5e-05),
        ("output.comment", "yes: 'no' # \u00e9\U0001f600 \x07 \x7f \x85 \u2028 \ufeff \uffff 0x1f 12:30 ~"),
        ("samples.prompts", [{"prompt": "hina wife, 2024-01-01"}, {"prompt": "null"}, {"prompt": "1_000"}]),
    ],
    ids=lambda change: change[0],
)
def test_the_trainer_reads_back_what_was_applied(change: tuple[str, Any]) -> None:
    training = make_training(change)

    text = build(change)["spec"]["template"]["metadata"]["annotations"][names.ANNOTATION_TRAINING]

    assert load_training(text).spec == training.spec


def test_a_training_that_pods_cannot_carry_is_measured() -> None:
    notes = {f"note-{number}": "\U0001f600" * 1024 for number in range(32)}
    training = make_training(("pod.annotations", notes))
    carried = build_job(training, PLAIN, attempt=1)["spec"]["template"]["metadata"]["annotations"]

    assert oversize(make_training(), PLAIN) is None
    size = oversize(training, PLAIN)
    assert size is not None
    assert size > sum(len(f"{key}{value}".encode()) for key, value in carried.items()) > MAX_ANNOTATION_BYTES


def test_the_spec_reaches_the_container_as_a_file() -> None:
    job = build()
    volumes = {volume["name"]: volume for volume in pod_of(job)["volumes"]}

    (item,) = volumes["config"]["downwardAPI"]["items"]
    assert item["path"] == names.CONFIG_FILE
    assert item["fieldRef"]["fieldPath"] == "metadata.annotations['lora-operator.io/training']"
    assert {"name": "config", "mountPath": names.CONFIG_DIR, "readOnly": True} in container_of(job)["volumeMounts"]


def test_sections_with_a_store_of_their_own_have_credentials_of_their_own() -> None:
    store = {"credentialsSecretRef": {"name": "theirs"}, "caBundleRef": {"name": "ca", "key": "pem"}}
    job = build(("output.storage", store), ("storage.credentialsSecretRef", {"name": "ours"}))
    mounts = {mount["name"]: mount["mountPath"] for mount in container_of(job)["volumeMounts"]}
    secrets = {v["name"]: v["secret"]["secretName"] for v in pod_of(job)["volumes"] if "secret" in v}

    assert secrets == {"credentials": "ours", "credentials-output": "theirs"}
    assert mounts["credentials-output"] == names.section_dir(names.CREDENTIALS_DIR, "output")
    assert mounts["ca-bundle-output"] == names.section_dir(names.CA_BUNDLE_DIR, "output")


def test_a_cache_is_mounted_where_the_trainer_looks_for_it() -> None:
    job = build(("pod.cacheVolumeClaim", "models"))
    volumes = {volume["name"]: volume for volume in pod_of(job)["volumes"]}

    assert volumes["cache"] == {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}
    assert {"name": "cache", "mountPath": names.CACHE_DIR} in container_of(job)["volumeMounts"]
    assert environment(job)[names.ENV_CACHE_DIR] == names.CACHE_DIR


def test_the_pod_knows_its_name_and_how_long_it_may_take_to_stop() -> None:
    job = build()
    found = environment(job)

    assert found[names.ENV_POD_NAME] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert found[names.ENV_POD_UID] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert found[names.ENV_GRACE_SECONDS] == str(pod_of(job)["terminationGracePeriodSeconds"]) == "120"


@pytest.mark.parametrize(("seconds", "grace"), [(None, 120), (10.0, 120), (100.5, 231), (1e308, 86400)])
def test_saving_gets_twice_the_time_that_it_took(seconds: float | None, grace: int) -> None:
    job = build_job(make_training(), PLAIN, attempt=2, used=Used(save_seconds=seconds))

    assert pod_of(job)["terminationGracePeriodSeconds"] == grace
    assert environment(job)[names.ENV_GRACE_SECONDS] == str(grace)


def test_the_next_job_gets_what_the_jobs_before_left() -> None:
    training = make_training(("limits.activeSeconds", 600), ("retry.maxFailures", 3))

    job = build_job(training, PLAIN, attempt=2, used=Used(failures=2, active_seconds=450))

    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (1, 150)
    assert job["metadata"]["annotations"][ANNOTATION_FAILURES_BEFORE] == "2"


def test_a_budget_that_is_used_up_still_makes_a_valid_job() -> None:
    training = make_training(("limits.activeSeconds", 600), ("retry.maxFailures", 1))

    job = build_job(training, PLAIN, attempt=2, used=Used(failures=2, active_seconds=900))

    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 1)


def test_the_check_asks_for_no_gpu_and_for_no_node_that_has_one() -> None:
    job = build_preflight_job(make_training(*FULL, ("retry.maxFailures", 2)), RICH)
    pod, container = pod_of(job), container_of(job)

    assert (job["metadata"]["name"], job["metadata"]["labels"][names.LABEL_STAGE]) == ("hina-data", "preflight")
    assert container["args"] == ["preflight", "/etc/lora/config/training.yaml"]
    assert container["resources"] == {"requests": {"cpu": "1", "memory": "2Gi"}}
    assert {"nodeSelector", "affinity", "tolerations", "runtimeClassName"}.isdisjoint(pod)
    assert (job["spec"]["backoffLimit"], job["spec"].get("activeDeadlineSeconds")) == (2, None)
    assert job["spec"]["podFailurePolicy"] == build_pod_failure_policy([names.TRAINER_CONTAINER])


def test_the_pod_of_the_check_is_what_the_profile_says() -> None:
    chosen = {"resources": {"limits": {"memory": "4Gi"}}, "nodeSelector": {"pool": "cpu"}}
    text = json.dumps({"default": {"image": "trainer:1", "preflightPod": chosen}})

    job = build_preflight_job(make_training(), load_profiles(text)["default"])

    assert container_of(job)["resources"] == {"limits": {"memory": "4Gi"}}
    assert pod_of(job)["nodeSelector"] == {"pool": "cpu"}


@pytest.mark.parametrize(
    ("gpus", "mode", "job", "container"),
    [(1, "Job", True, False), (1, "InitContainer", False, True), (1, "Off", False, False), (0, "Job", False, False)],
)
def test_data_are_checked_where_the_profile_says(gpus: int, mode: str, job: bool, container: bool) -> None:
    profile = PLAIN.model_copy(update={"preflight": mode})
    training = make_training(("parallelism.gpusPerNode", gpus))

    assert needs_preflight_job(training.spec, profile) is job
    assert ("initContainers" in pod_of(build_job(training, profile, attempt=1))) is container


def test_a_check_in_the_pod_shares_its_volumes_and_its_failure_policy() -> None:
    job = build(profile=PLAIN.model_copy(update={"preflight": "InitContainer"}))
    (check,) = pod_of(job)["initContainers"]
    rules = job["spec"]["podFailurePolicy"]["rules"][1:]

    assert (check["name"], check["args"][0]) == (names.PREFLIGHT_CONTAINER, "preflight")
    assert check["volumeMounts"] == container_of(job)["volumeMounts"]
    assert "nvidia.com/gpu" not in check["resources"].get("limits", {})
    assert [(rule["action"], rule["onExitCodes"]["containerName"]) for rule in rules] == [
        ("FailJob", "trainer"), ("FailJob", "preflight"), ("Ignore", "trainer"), ("Ignore", "preflight"),
    ]  # fmt: skip


def test_a_job_in_line_with_the_spec_is_not_patched() -> None:
    training = make_training(("limits.activeSeconds", 600))

    assert build_job_patch(training.spec, make_job(activeDeadlineSeconds=600), Used()) is None


def test_mutable_fields_follow_the_spec() -> None:
    training = make_training(("limits.activeSeconds", 900), ("retry.maxFailures", 7))

    patch = build_job_patch(training.spec, make_job(activeDeadlineSeconds=600), Used())

    assert patch == {
        "metadata": {"resourceVersion": "8"},
        "spec": {"activeDeadlineSeconds": 900, "backoffLimit": 7},
    }


def test_a_limit_that_was_taken_away_is_taken_away() -> None:
    patch = build_job_patch(make_training().spec, make_job(activeDeadlineSeconds=600), Used())

    assert patch is not None
    assert patch["spec"] == {"activeDeadlineSeconds": None}


def test_suspending_changes_nothing_else() -> None:
    training = make_training(("suspend", True), ("limits.activeSeconds", 7200))

    patch = build_job_patch(training.spec, make_job(activeDeadlineSeconds=7200), Used(active_seconds=3000))

    assert patch is not None
    assert patch["spec"] == {"suspend": True}


def test_resuming_says_what_time_is_left() -> None:
    training = make_training(("limits.activeSeconds", 7200))

    patch = build_job_patch(
        training.spec, make_job(suspend=True, activeDeadlineSeconds=7200), Used(active_seconds=3000)
    )

    assert patch is not None
    assert patch["spec"] == {"suspend": False, "activeDeadlineSeconds": 4200}


def test_the_check_has_no_deadline() -> None:
    training = make_training(("limits.activeSeconds", 7200))

    assert build_job_patch(training.spec, make_preflight_job(), Used()) is None
