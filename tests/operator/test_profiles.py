"""lora_operator.profiles"""

from pathlib import Path

import pytest

from lora_operator.errors import SettingsError
from lora_operator.profiles import ProfileFile, load_profiles

GOOD = "default: {image: 'trainer:1'}"


def test_fields_are_those_of_the_api_in_camel_case() -> None:
    profile = load_profiles(
        """
default:
  image: trainer:1
  gpuResource: amd.com/gpu
  tolerations: [{key: gpu, operator: Exists}]
  resources: {limits: {memory: 24Gi}}
  storage: {endpoint: "http://minio:9000", credentialsSecretRef: {name: s3}}
  env: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]
"""
    )["default"]

    assert profile.gpu_resource == "amd.com/gpu"
    assert profile.tolerations[0].operator == "Exists"
    assert profile.resources.limits == {"memory": "24Gi"}
    assert profile.storage.credentials_secret_ref is not None
    assert profile.env[0].value == "http://proxy:3128"
    assert profile.termination_grace_period_seconds == 120


def test_the_check_of_the_data_has_a_pod_of_its_own_by_default() -> None:
    profile = load_profiles(GOOD)["default"]

    assert profile.preflight == "Job"
    assert profile.preflight_pod.resources.requests == {"cpu": "1", "memory": "2Gi"}


@pytest.mark.parametrize("word", ["Off", "'Off'", "false"])
def test_off_is_understood_as_yaml_reads_it(word: str) -> None:
    assert load_profiles(f"default: {{image: a, preflight: {word}}}")["default"].preflight == "Off"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("default: {image: a, preflight: true}", "profiles.default.preflight"),
        ("default: {image: a, preflightPod: {resources: {limits: {nvidia.com/gpu: 1}}}}", "preflightPod"),
        ("other: {image: a}", "'default' among them"),
        ("[]", "must map names to profiles"),
        ("default: {imag: a}", "profiles.default"),
        ("default: {}", "profiles.default.image: Field required"),
        ("default: {image: a, terminationGracePeriodSeconds: '120'}", "terminationGracePeriodSeconds"),
        ("default: {image: a, env: [{name: LORA_X, value: a}]}", "LORA_"),
        ("default: {image: a, podLabels: {x: 2024-01-01}}", "profile default"),
        ("default: {image: a, gpuResource: amd.com/gpu, gpuClaimTemplate: one-gpu}", "GPUs come from one"),
        ("default: {image: [", "no valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_profiles(text)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "profiles.yaml"
    path.write_text(GOOD)
    profiles = ProfileFile.open(path)

    unchanged = profiles.refresh()
    path.write_text(GOOD + "\nbig: {image: 'trainer:2'}")
    changed = profiles.refresh()

    assert (unchanged, changed) == (False, True)
    assert sorted(profiles.current) == ["big", "default"]


def test_a_wrong_edit_is_told_once_and_leaves_the_profiles_in_force(tmp_path: Path) -> None:
    path = tmp_path / "profiles.yaml"
    path.write_text(GOOD)
    profiles = ProfileFile.open(path)
    path.write_text("default: {}")

    with pytest.raises(SettingsError):
        profiles.refresh()

    assert profiles.refresh() is False
    assert profiles.current["default"].image == "trainer:1"


def test_a_missing_file_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LORA_PROFILES_FILE"):
        ProfileFile.open(tmp_path / "none.yaml")
