"""A real S3 server that checks signatures and checksums: SeaweedFS on loopback, one for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_demo.seaweed import ObjectStore, seaweed


@pytest.fixture(scope="session")
def real_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A SeaweedFS server; import this fixture into the conftest or module that uses it."""
    folder: Path = tmp_path_factory.mktemp("seaweed")
    with seaweed(folder / "data", folder) as store:
        yield store
