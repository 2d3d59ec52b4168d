"""lora_operator.settings"""

from pathlib import Path

import pytest

from lora_operator.errors import SettingsError
from lora_operator.settings import Election, Settings

PROFILES = {"LORA_PROFILES_FILE": "/etc/lora/profiles.yaml"}


def test_only_the_profiles_file_must_be_named() -> None:
    settings = Settings.from_environment({**PROFILES, "POD_NAME": "lora-operator-0"})

    assert settings == Settings(Path("/etc/lora/profiles.yaml"), identity="lora-operator-0")


def test_everything_can_be_said() -> None:
    settings = Settings.from_environment(
        {
            **PROFILES,
            "LORA_NAMESPACES": "ml, art,ml",
            "LORA_HTTP_ADDRESS": "127.0.0.1",
            "LORA_HTTP_PORT": "9090",
            "POD_NAME": "one",
            "LORA_PROGRESS_INTERVAL_SECONDS": "0.5",
            "LORA_STATUS_INTERVAL_SECONDS": "10",
            "LORA_RESYNC_SECONDS": "60",
            "LORA_WORKERS": "2",
            "LORA_LOG_LEVEL": "debug",
            "KUBECONFIG": "/home/me/.kube/config",
        }
    )

    assert settings == Settings(
        Path("/etc/lora/profiles.yaml"), ("ml", "art"), "127.0.0.1", 9090, "one", 0.5, 10.0, 60.0, 2, "DEBUG",
        "/home/me/.kube/config",
    )  # fmt: skip


def test_several_operators_choose_one_by_a_lease() -> None:
    election = {"LORA_LEADER_ELECTION": "true", "LORA_LEASE_NAMESPACE": "lora-system"}

    assert Settings.from_environment({**PROFILES, **election}).election == Election("lora-system", "lora-operator", 15)
    named = {**election, "LORA_LEASE_NAME": "mine", "LORA_LEASE_SECONDS": "30"}
    assert Settings.from_environment({**PROFILES, **named}).election == Election("lora-system", "mine", 30)
    assert Settings.from_environment({**PROFILES, **election, "LORA_LEADER_ELECTION": "false"}).election is None


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "LORA_PROFILES_FILE is not set"),
        ({**PROFILES, "LORA_WORKERS": "many"}, "LORA_WORKERS is 'many', but must be a number"),
        ({**PROFILES, "LORA_WORKERS": "0"}, "LORA_WORKERS is 0, but must be between 1 and 256"),
        ({**PROFILES, "LORA_HTTP_PORT": "99999"}, "LORA_HTTP_PORT is 99999"),
        ({**PROFILES, "LORA_RESYNC_SECONDS": "nan"}, "LORA_RESYNC_SECONDS is nan"),
        ({**PROFILES, "LORA_LOG_LEVEL": "loud"}, "LORA_LOG_LEVEL is 'loud', but must be one of DEBUG"),
        ({**PROFILES, "LORA_LEADER_ELECTION": "yes"}, "LORA_LEADER_ELECTION is 'yes', but must be true or false"),
        ({**PROFILES, "LORA_LEADER_ELECTION": "true"}, "LORA_LEASE_NAMESPACE is not set"),
    ],
)
def test_a_wrong_variable_is_named(environment: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.from_environment(environment)
