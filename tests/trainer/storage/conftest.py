"""One S3 server with faults for all tests of the storage, without faults at the start of each."""

from collections.abc import Iterator

import pytest

from tests.support.object_store import FaultyStore, faulty_store
from tests.support.seaweed import real_store as real_store


@pytest.fixture(scope="session")
def _server() -> Iterator[FaultyStore]:
    with faulty_store() as store:
        yield store


@pytest.fixture
def store(_server: FaultyStore) -> FaultyStore:
    """The server, well behaved until a test adds faults."""
    _server.reset()
    return _server
