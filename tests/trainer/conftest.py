"""What the tests of the trainer share: one tiny pipeline for the whole session."""

from pathlib import Path

import pytest

from tests.support.tiny_pipeline import write_tiny_pipeline


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with the topology of SD 1.x; read only."""
    return write_tiny_pipeline(tmp_path_factory.mktemp("base") / "tiny")
