"""lora_operator.settings"""

from pathlib import Path

import pytest

from lora_operator.errors import SettingsError
from lora_operator.settings import Settings

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
            "LORA_RESYNC_SECONDS": "60",
            "LORA_WORKERS": "2",
            "LORA_LOG_LEVEL": "debug",
            "KUBECONFIG": "/home/me/.kube/config",
        }
    )

    assert settings == Settings(
        Path("/etc/lora/profiles.yaml"), ("ml", "art"), "127.0.0.1", 9090, "one", 0.5, 60.0, 2, "DEBUG",
        "/home/me/.kube/config",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "LORA_PROFILES_FILE is not set"),
        ({**PROFILES, "LORA_WORKERS": "many"}, "LORA_WORKERS is 'many', but must be a number"),
        ({**PROFILES, "LORA_WORKERS": "0"}, "LORA_WORKERS is 0, but must be between 1 and 256"),
        ({**PROFILES, "LORA_HTTP_PORT": "99999"}, "LORA_HTTP_PORT is 99999"),
        ({**PROFILES, "LORA_RESYNC_SECONDS": "nan"}, "LORA_RESYNC_SECONDS is nan"),
        ({**PROFILES, "LORA_LOG_LEVEL": "loud"}, "LORA_LOG_LEVEL is 'loud', but must be one of DEBUG"),
    ],
)
def test_a_wrong_variable_is_named(environment: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.from_environment(environment)
