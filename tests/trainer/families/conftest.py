"""Single-file checkpoints with the weights of the tiny pipelines, and their configurations."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_api.model_spec import Family
from tests.support.ldm_checkpoint import Checkpoint, write_ldm_checkpoint


@pytest.fixture(scope="session")
def checkpoints(
    tiny_pipeline: Path, tiny_sd2: Path, tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Family], Checkpoint]:
    """One of each family; read only."""
    folders: dict[Family, Path] = {"sd15": tiny_pipeline, "sd2": tiny_sd2, "sdxl": tiny_sdxl}
    place = tmp_path_factory.mktemp("single")
    made: dict[Family, Checkpoint] = {}
    for family, folder in folders.items():
        (place / family).symlink_to(folder)
        file = write_ldm_checkpoint(folder, place / f"{family}.safetensors", family)
        made[family] = Checkpoint(family, folder, file, place)
    return lambda family: made[family]
