"""charts/lora-operator: the profiles of the values are those that the operator reads."""

import json
from typing import Any

import pytest

from lora_api.cluster_spec import Storage
from lora_operator.profiles import Profile, Profiles, load_profiles
from tests.support.chart import CHART, TYPICAL, only


def profiles(values: dict[str, Any]) -> Profiles:
    return load_profiles(only("ConfigMap", values)["data"]["profiles.yaml"])


@pytest.mark.parametrize("values", TYPICAL.values(), ids=TYPICAL)
def test_the_operator_can_read_them(values: dict[str, Any]) -> None:
    assert set(profiles(values)) == {"default", *values.get("profiles", {})}


def test_a_profile_without_image_gets_that_of_the_trainer() -> None:
    read = profiles(TYPICAL["gpu cluster"])

    assert read["default"].image == "registry.example.com/lora-trainer:0.1.0-cu128"
    assert read["large"].image == "registry.example.com/lora-trainer:nightly"


def test_what_a_profile_says_arrives_unchanged() -> None:
    values = TYPICAL["gpu cluster"]
    read = profiles(values)["large"].to_document()

    assert values["profiles"]["large"].items() <= read.items()


def test_the_schema_of_the_values_knows_every_field_of_a_profile() -> None:
    definitions = json.loads((CHART / "values.schema.json").read_text())["definitions"]

    assert set(definitions["profile"]["properties"]) == {f.alias for f in Profile.model_fields.values()}
    assert set(definitions["storage"]["properties"]) == {f.alias for f in Storage.model_fields.values()}


TRAINER = {
    "imagePullPolicy": "Always",
    "imagePullSecrets": ["mirror"],
    "caBundleRef": {"name": "company", "key": "ca.crt"},
    "env": [{"name": "HF_ENDPOINT", "value": "https://a"}, {"name": "LANG", "value": "C"}],
}


def test_what_is_said_of_the_trainer_holds_for_every_profile() -> None:
    read = profiles({"trainer": TRAINER})["default"]

    assert (read.image_pull_policy, read.image_pull_secrets) == ("Always", ("mirror",))
    assert read.ca_bundle_ref is not None and read.ca_bundle_ref.name == "company"
    assert [variable.name for variable in read.env] == ["HF_ENDPOINT", "LANG"]


def test_a_profile_says_otherwise_for_itself() -> None:
    own = {"imagePullPolicy": "Never", "imagePullSecrets": ["x"], "env": [{"name": "LANG", "value": "de"}]}

    read = profiles({"trainer": TRAINER, "profiles": {"own": own}})["own"]

    assert (read.image_pull_policy, read.image_pull_secrets) == ("Never", ("x",))
    # The last one of a name counts.
    assert [(variable.name, variable.value) for variable in read.env][1:] == [("LANG", "C"), ("LANG", "de")]


def test_the_operator_is_told_where_they_lie() -> None:
    pod = only("Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    environment = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    mount = next(mount for mount in container["volumeMounts"] if mount["name"] == "profiles")
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "profiles")

    assert environment["LORA_PROFILES_FILE"] == mount["mountPath"] + "/profiles.yaml"
    assert volume["configMap"]["name"] == only("ConfigMap")["metadata"]["name"]
