"""The seed case of examples/hina.yaml, two steps of it on shrunk pictures: its 40 `ss_` keys, and the way back."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from lora_api import LoraTraining
from lora_api.load import load_training
from lora_trainer.commands.app import app
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.lora.formats import read_adapter
from lora_trainer.run import run_training
from tests.support.tiny_run import make_session

EXAMPLES = Path(__file__).parents[2] / "examples"
KEYS = json.loads((EXAMPLES / "hina-metadata.json").read_text())
"""The 40 keys as sd-scripts writes them for the seed case."""
SHRUNK = {
    "ss_resolution": "(64, 64)",
    "ss_min_bucket_reso": "64",
    "ss_max_bucket_reso": "128",
    "ss_epoch": "1",
    "ss_num_epochs": "1",
}
"""What is different in two steps on pictures of 64 px."""
KNOWN = ("baseModel", "dataset", "network", "optimizer", "training", "checkpoints", "output")
"""Sections of the spec that an adapter's metadata can know."""


@pytest.fixture(scope="module")
def trained(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LoraTraining, Path]:
    """The training, and the adapter that it left."""
    folder = tmp_path_factory.mktemp("seed")
    for place in ("50_hina wife a woman", "reg/20_a woman"):
        (folder / "train" / place).mkdir(parents=True)
        Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(folder / "train" / place / "0001.png")
    (folder / "train/50_hina wife a woman/0001.txt").write_text("hina wife a woman, portrait")
    training = load_training_file(
        EXAMPLES / "hina.yaml",
        [
            f"baseModel.uri={tiny_pipeline.as_uri()}",
            f"dataset.uri={(folder / 'train').as_uri()}",
            f"output.uri={(folder / 'out').as_uri()}",
            "dataset.resolution=64",
            "training.epochs=1",
            "training.maxSteps=2",
            "parallelism.gpusPerNode=0",
            "samples.prompts=[]",
        ],
    )
    run_training(training, make_session(folder / "work").session)
    return training, folder / "out/adapters/hina_lora_v2.safetensors"


def test_all_40_keys_are_there_and_right(trained: tuple[LoraTraining, Path]) -> None:
    metadata = read_adapter(trained[1]).metadata
    expected = KEYS | SHRUNK
    name = metadata["ss_sd_model_name"]

    assert len(KEYS) == 40
    assert {key: metadata.get(key) for key in KEYS} == expected | {"ss_sd_model_name": name}
    assert name.startswith("sd15-")


def test_importing_the_adapter_gives_the_training_that_made_it(
    trained: tuple[LoraTraining, Path], tmp_path: Path
) -> None:
    training, adapter = trained
    spec = training.spec
    target = tmp_path / "lora.yaml"

    result = CliRunner().invoke(
        app,
        [
            *("import", str(adapter), "-o", str(target)),
            *("--base-model", spec.base_model.uri, "--dataset", spec.dataset.uri or "", "--output", spec.output.uri),
        ],
    )

    assert result.exit_code == 0, result.output
    assert known(load_training(target.read_text())) == known(training)


def known(training: LoraTraining) -> dict[str, Any]:
    spec = training.spec.to_document()
    return {section: spec[section] for section in KNOWN}
