"""lora_api.advice: what should be known before a training."""

from typing import Any

import pytest

from lora_api.advice import warnings_about
from tests.support.documents import make_training


def warnings_with(*changes: tuple[str, Any]) -> list[str]:
    return list(warnings_about(make_training(*changes).spec))


@pytest.mark.parametrize("endpoint", ["http://minio:9000", "http://127.example.com", "http://10.0.0.1", "http://[::2]"])
def test_a_store_without_tls_is_warned_of_with_field_and_cure(endpoint: str) -> None:
    [warning] = warnings_with(("storage.endpoint", endpoint))

    assert warning.startswith(f"spec.storage.endpoint is {endpoint}: ")
    assert "in clear" in warning and "use https" in warning


@pytest.mark.parametrize(
    "endpoint",
    ["https://minio:9000", "http://localhost:9000", "http://127.0.0.1:8333", "http://127.0.1.1", "http://[::1]:1"],
)
def test_tls_and_the_same_machine_are_not_warned_of(endpoint: str) -> None:
    assert warnings_with(("storage.endpoint", endpoint)) == []


def test_a_store_without_credentials_is_not_warned_of() -> None:
    assert warnings_with(("storage", {"endpoint": "http://minio:9000", "anonymous": True})) == []


@pytest.mark.parametrize("section", ["baseModel", "dataset", "output"])
def test_the_store_of_a_section_is_warned_of(section: str) -> None:
    [warning] = warnings_with((f"{section}.storage", {"endpoint": "http://minio:9000"}))

    assert warning.startswith(f"spec.{section}.storage.endpoint is http://minio:9000")
