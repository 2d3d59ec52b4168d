"""What the tests of the trainer share: one tiny pipeline and its pictures for the whole session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from tests.support.tiny_pipeline import write_tiny_pipeline
from tests.support.tiny_run import write_pictures


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with the topology of SD 1.x; read only."""
    return write_tiny_pipeline(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def tiny_sd2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with the topology of SD 2.x that predicts v; read only."""
    return write_tiny_pipeline(tmp_path_factory.mktemp("sd2") / "tiny", family="sd2", prediction="v_prediction")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with the levels and text encoders of SDXL; read only."""
    return write_tiny_pipeline(tmp_path_factory.mktemp("sdxl") / "tiny", family="sdxl")


@pytest.fixture(scope="session")
def tiny_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with regularisation pictures; read only."""
    return write_pictures(tmp_path_factory.mktemp("data") / "train")


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """accelerate keeps precision and device for the whole process; each test begins anew."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
