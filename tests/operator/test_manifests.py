"""lora_operator.manifests and lora_operator.pod_template"""

from datetime import timedelta
from typing import Any

import kubernetes_validate
import pytest

from lora_api import OUTCOMES, LoraTraining, load_training, names
from lora_operator.manifests import build_config_map, build_job, build_job_patch, build_pod_failure_policy, resolve
from lora_operator.observed import ANNOTATION_ACTIVE_SECONDS
from lora_operator.profiles import Profile, load_profiles
from tests.support.documents import make_training
from tests.support.observations import NOW, make_job

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
    return build_job(resolve(make_training(*changes), profile), profile, 1)


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

    kubernetes_validate.validate(build_job(training, profile, 2), version, strict=True)
    kubernetes_validate.validate(build_config_map(training), version, strict=True)


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
    metadata = build_job(with_uid(make_training()), PLAIN, 3)["metadata"]

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

    job = build_job(tracked, PLAIN, 1)

    assert set(job["metadata"]["labels"]) == {
        names.LABEL_MANAGED_BY,
        names.LABEL_NAME,
        names.LABEL_TRAINING,
        names.LABEL_ATTEMPT,
    }
    assert set(job["metadata"]["annotations"]) == {names.ANNOTATION_SPEC_DIGEST}


def test_disruption_comes_before_every_exit_code() -> None:
    rules = build_pod_failure_policy()["rules"]

    assert rules[0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def test_the_failure_policy_says_what_the_table_of_exit_codes_says() -> None:
    rules = build_pod_failure_policy()["rules"][1:]
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
    assert kinds <= {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}


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
    assert metadata["annotations"] == {"note": "mine"}
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

    job = build_job(make_training(), profile, 1)

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

    text = build_config_map(training)["data"][names.CONFIG_FILE]

    assert load_training(text).spec == training.spec


def test_a_job_in_line_with_the_spec_is_not_patched() -> None:
    training = make_training(("limits.activeSeconds", 600))

    assert build_job_patch(training.spec, make_job(activeDeadlineSeconds=600), NOW) is None


def test_mutable_fields_follow_the_spec() -> None:
    training = make_training(("limits.activeSeconds", 900), ("retry.maxFailures", 7))

    patch = build_job_patch(training.spec, make_job(activeDeadlineSeconds=600), NOW)

    assert patch == {
        "metadata": {"resourceVersion": "8"},
        "spec": {"activeDeadlineSeconds": 900, "backoffLimit": 7},
    }


def test_a_limit_that_was_taken_away_is_taken_away() -> None:
    patch = build_job_patch(make_training().spec, make_job(activeDeadlineSeconds=600), NOW)

    assert patch is not None
    assert patch["spec"] == {"activeDeadlineSeconds": None}


def test_suspending_keeps_the_time_that_was_used() -> None:
    training = make_training(("suspend", True), ("limits.activeSeconds", 7200))
    started = (NOW - timedelta(seconds=3000)).isoformat()

    patch = build_job_patch(training.spec, make_job(activeDeadlineSeconds=7200, status={"startTime": started}), NOW)

    assert patch is not None
    assert patch["spec"] == {"suspend": True, "activeDeadlineSeconds": 4200}
    assert patch["metadata"]["annotations"] == {ANNOTATION_ACTIVE_SECONDS: "3000"}


def test_a_training_without_time_left_still_has_a_valid_deadline() -> None:
    training = make_training(("suspend", True), ("limits.activeSeconds", 60))
    started = (NOW - timedelta(hours=1)).isoformat()

    patch = build_job_patch(training.spec, make_job(activeDeadlineSeconds=60, status={"startTime": started}), NOW)

    assert patch is not None
    assert patch["spec"]["activeDeadlineSeconds"] == 1
