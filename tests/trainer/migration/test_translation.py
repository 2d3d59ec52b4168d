"""Where model, pictures and output lie, and what the training is called."""

from pathlib import Path

import pytest

from lora_trainer.errors import InvalidConfiguration
from lora_trainer.migration.command_line import read_command
from lora_trainer.migration.source import Choices
from tests.support.imports import bring_over, from_text


def test_paths_that_lie_here_become_file_uris(tmp_path: Path) -> None:
    for name in ("model.safetensors", "img", "out"):
        (tmp_path / name).mkdir()
    text = (
        f"train_network.py --pretrained_model_name_or_path {tmp_path}/model.safetensors --train_data_dir {tmp_path}/img"
        f" --output_dir {tmp_path}/out --output_name hina"
    )

    spec = bring_over(read_command(text), Choices())[0].spec

    assert spec.base_model.uri == f"file://{tmp_path}/model.safetensors"
    assert spec.dataset.uri == f"file://{tmp_path}/img"
    assert spec.output.uri == f"file://{tmp_path}/out/hina"


def test_every_option_that_is_needed_is_told_at_once() -> None:
    text = "train_network.py --pretrained_model_name_or_path /no/m.safetensors --train_data_dir /no/img"

    with pytest.raises(InvalidConfiguration) as caught:
        bring_over(read_command(text), Choices())

    assert [option in str(caught.value) for option in ("--base-model", "--dataset", "--output")] == [True] * 3
    assert "/no/m.safetensors, which does not lie here" in str(caught.value)


@pytest.mark.parametrize("folder", ["~nobody-of-this-name/img", f"/{'a' * 300}"])
def test_a_path_that_no_file_can_have_does_not_lie_here(folder: str) -> None:
    source = read_command(f"train_network.py --train_data_dir {folder}")

    with pytest.raises(InvalidConfiguration, match=f"the file says {folder}, which does not lie here"):
        bring_over(source, Choices("hf://owner/base", None, "s3://lora/run"))


def test_a_hub_id_is_a_place() -> None:
    source = read_command("train_network.py --pretrained_model_name_or_path runwayml/stable-diffusion-v1-5")

    training, _ = bring_over(source, Choices(None, "s3://lora/data", "s3://lora/run"))

    assert training.spec.base_model.uri == "hf://runwayml/stable-diffusion-v1-5"


@pytest.mark.parametrize(
    ("arguments", "name", "object_name", "file_name"),
    [
        ("--output_name Hina_LoRA.v2", None, "hina-lora-v2", "Hina_LoRA.v2"),
        ("--output_name 2cats", None, "lora-2cats", "2cats"),
        ("--output_name hina", "other", "other", "hina"),
        ("", None, "settings", "settings"),
    ],
)
def test_the_name_comes_from_the_output(arguments: str, name: str | None, object_name: str, file_name: str) -> None:
    training, _ = from_text(f"train_network.py {arguments}", name=name)

    assert (training.name, training.output_name) == (object_name, file_name)


def test_subsets_elsewhere_need_the_option() -> None:
    definition = "[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = '/no/img'\n"

    with pytest.raises(InvalidConfiguration, match=r"--dataset URI: the pictures \(the file says /no/img"):
        from_text(definition, choices=Choices("hf://a/b", None, "s3://lora/run"))
