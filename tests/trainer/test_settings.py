"""The environment as the trainer reads it."""

from pathlib import Path

import pytest

from lora_api import names
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.settings import Address, Node, Ranks, Settings


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


TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node-0",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "2",
}


def test_torchrun_tells_a_process_its_place_and_who_keeps_the_store() -> None:
    settings = Settings.from_environment(TORCHRUN)

    assert settings.ranks == Ranks(5, 8, 1, 4, Address("node-0", 29400), store_is_there=True, restart="2")
    assert not settings.leads


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RANK": "8"}, "RANK is 8, but must be below WORLD_SIZE, which is 8"),
        ({"LOCAL_RANK": "one"}, "LOCAL_RANK is 'one', but must be a number from 0"),
        ({"MASTER_PORT": ""}, "MASTER_ADDR:MASTER_PORT is 'node-0:', but must be host:port"),
    ],
)
def test_a_place_that_cannot_be_is_refused(change: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        Settings.from_environment(TORCHRUN | change)


def test_a_pod_of_several_nodes_knows_its_own_and_where_all_meet() -> None:
    told = {names.ENV_NODE_RANK: "1", names.ENV_RENDEZVOUS: "hina-a1-0.hina-nodes.ml.svc:29500"}

    settings = Settings.from_environment(told)

    assert settings.node == Node(1, Address("hina-a1-0.hina-nodes.ml.svc", 29500))
    assert settings.leads
