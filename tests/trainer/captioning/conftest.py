"""One tiny BLIP for all tests of captions."""

from pathlib import Path

import pytest

from tests.support.tiny_blip import write_tiny_blip


@pytest.fixture(scope="session")
def tiny_blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BLIP of random weights; read only."""
    return write_tiny_blip(tmp_path_factory.mktemp("blip") / "tiny")
