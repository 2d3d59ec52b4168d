"""The environment as the trainer reads it."""

from pathlib import Path

import pytest

from lora_api import names
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.settings import Address, Settings


def test_a_laptop_without_variables_gets_the_settings_of_a_local_run() -> None:
    settings = Settings.from_environment({})

    assert settings.listen is None
    assert settings.termination_log is None
    assert settings.credentials_dir is None
    assert settings.attempt == 1


def test_a_pod_gets_everything_from_its_variables() -> None:
    settings = Settings.from_environment(
        {
            names.ENV_WORK_DIR: "/w",
            names.ENV_CLAIMS_DIR: "/c",
            names.ENV_CREDENTIALS_DIR: "/k",
            names.ENV_HUB_TOKEN_FILE: "/h/token",
            names.ENV_CA_BUNDLE: "/ca.crt",
            names.ENV_TERMINATION_LOG: "/t",
            names.ENV_LISTEN_ADDRESS: "127.0.0.1:9400",
            names.ENV_ATTEMPT: "3",
        }
    )

    assert settings == Settings(
        work_dir=Path("/w"),
        claims_dir=Path("/c"),
        credentials_dir=Path("/k"),
        hub_token_file=Path("/h/token"),
        ca_bundle=Path("/ca.crt"),
        termination_log=Path("/t"),
        listen=Address("127.0.0.1", 9400),
        attempt=3,
    )


def test_an_ipv6_address_loses_its_brackets() -> None:
    assert Settings.from_environment({names.ENV_LISTEN_ADDRESS: "[::1]:80"}).listen == Address("::1", 80)


@pytest.mark.parametrize("value", ["9400", "host:", ":9400", "host:port", "host:70000"])
def test_an_address_without_host_or_port_is_refused(value: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"LORA_LISTEN_ADDRESS is .* must be host:port"):
        Settings.from_environment({names.ENV_LISTEN_ADDRESS: value})


@pytest.mark.parametrize("value", ["0", "-1", "first"])
def test_an_attempt_that_is_no_number_from_1_is_refused(value: str) -> None:
    with pytest.raises(InvalidConfiguration, match="LORA_ATTEMPT is"):
        Settings.from_environment({names.ENV_ATTEMPT: value})


def test_one_thread_is_used_unless_the_user_says_otherwise() -> None:
    assert Settings.from_environment({}).cpu_threads == 1
    assert Settings.from_environment({"OMP_NUM_THREADS": "4"}).cpu_threads == 4


def test_a_number_of_threads_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="OMP_NUM_THREADS is 'all', but must be a number from 1"):
        Settings.from_environment({"OMP_NUM_THREADS": "all"})
