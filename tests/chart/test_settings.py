"""charts/lora-operator: the environment of the Deployment is what the operator's settings read."""

from typing import Any

import pytest

from lora_operator.settings import Election, Settings
from tests.support.chart import NAMESPACE, TYPICAL, only


def settings(values: dict[str, Any]) -> Settings:
    [container] = only("Deployment", values)["spec"]["template"]["spec"]["containers"]
    return Settings.from_environment({entry["name"]: entry.get("value", "") for entry in container["env"]})


def test_the_defaults_of_chart_and_operator_agree() -> None:
    read, default = settings({}), Settings.from_environment({"LORA_PROFILES_FILE": "/etc/lora-operator/profiles.yaml"})

    fields = ("profiles_file", "namespaces", "http_address", "http_port", "resync_seconds", "workers", "log_level")
    assert [getattr(read, field) for field in fields] == [getattr(default, field) for field in fields]
    assert read.progress_interval_seconds == default.progress_interval_seconds
    assert read.election == Election(NAMESPACE, "lora-lora-operator")


def test_every_value_reaches_its_setting() -> None:
    read = settings(
        {
            "watchNamespaces": ["team-a", "team-b"],
            "operator": {
                "logLevel": "WARNING",
                "workers": 3,
                "progressIntervalSeconds": 11,
                "resyncSeconds": 77,
                "leaderElection": {"leaseSeconds": 30},
                "port": 9999,
                "listenAddress": "127.0.0.1",
            },
        }
    )

    assert read.namespaces == ("team-a", "team-b")
    assert (read.log_level, read.workers, read.progress_interval_seconds) == ("WARNING", 3, 11)
    assert (read.resync_seconds, read.http_port, read.http_address) == (77, 9999, "127.0.0.1")
    assert read.election == Election(NAMESPACE, "lora-lora-operator", 30)


def test_a_single_operator_needs_no_election() -> None:
    assert settings({"operator": {"replicas": 1, "leaderElection": {"enabled": False}}}).election is None


@pytest.mark.parametrize("values", TYPICAL.values(), ids=TYPICAL)
def test_events_are_reported_under_the_name_of_the_pod(values: dict[str, Any]) -> None:
    [container] = only("Deployment", values)["spec"]["template"]["spec"]["containers"]

    assert {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}} in container["env"]
