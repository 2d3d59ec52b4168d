"""Numbers on drawn pictures: what they are made of, and who is refused as a judge."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from lora_trainer.errors import InvalidConfiguration
from lora_trainer.similarity import DrawnPicture, ModelFolder, TrainingPicture, load_clip, load_dino, measure
from tests.support.tiny_judges import write_tiny_clip, write_tiny_dino

CPU = torch.device("cpu")
COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `clip` and `dino`; read only."""
    folder = tmp_path_factory.mktemp("judges")
    write_tiny_clip(folder / "clip")
    write_tiny_dino(folder / "dino")
    return folder


def drawn(folder: Path) -> list[DrawnPicture]:
    """A picture of each colour, of epochs 1, 1 and 2."""
    pictures = []
    for epoch, colour in zip((1, 1, 2), COLOURS, strict=True):
        file = folder / f"{colour}.png"
        Image.effect_noise((48, 40), 80).convert("RGB").save(file)
        image = Image.open(file)
        Image.blend(image, Image.new("RGB", image.size, colour), 0.9).save(file)
        pictures.append(DrawnPicture(f"samples/{colour}.png", epoch, f"a {colour} cat", file))
    return pictures


def training(pictures: list[DrawnPicture]) -> list[TrainingPicture]:
    """The same pictures in another order."""
    return [TrainingPicture(f"1_cat/{each.file.name}", partial(_read, each.file)) for each in reversed(pictures)]


def _read(file: Path) -> Image.Image:
    return Image.open(file).convert("RGB")


def test_the_fit_of_a_prompt_is_the_cosine_of_clips_own_features(judges: Path, tmp_path: Path) -> None:
    picture = drawn(tmp_path)[0]
    model = CLIPModel.from_pretrained(judges / "clip")
    words = CLIPTokenizer.from_pretrained(judges / "clip")(picture.prompt, return_tensors="pt")
    pixels = CLIPImageProcessorPil.from_pretrained(judges / "clip")(Image.open(picture.file), return_tensors="pt")

    judge = load_clip(ModelFolder(judges / "clip", "clip"), CPU)
    found = measure([picture], [], clip=judge, dino=None)["pictures"][0]

    with torch.no_grad():
        text = model.text_projection(model.text_model(**words).pooler_output)[0]
        image = model.visual_projection(model.vision_model(**pixels).pooler_output)[0]
    assert found["clipText"] == pytest.approx(float(text @ image / (text.norm() * image.norm())), abs=1e-4)
    assert found["dinoMean"] is found["nearest"] is None


def test_the_nearest_training_picture_is_the_one_that_was_learnt_by_heart(judges: Path, tmp_path: Path) -> None:
    pictures = drawn(tmp_path)
    dino = load_dino(ModelFolder(judges / "dino", "dino"), CPU)

    found = measure(pictures, training(pictures), clip=None, dino=dino)["pictures"]

    assert [one["nearest"] for one in found] == [f"1_cat/{colour}.png" for colour in COLOURS]
    assert all(one["dinoNearest"] == pytest.approx(1.0, abs=1e-4) for one in found)
    assert all(one["dinoMean"] < one["dinoNearest"] for one in found)


def test_epochs_are_the_means_of_their_pictures(judges: Path, tmp_path: Path) -> None:
    pictures = drawn(tmp_path)

    found = measure(pictures, [], clip=load_clip(ModelFolder(judges / "clip", "clip"), CPU), dino=None)

    first, second, third = (picture["clipText"] for picture in found["pictures"])
    assert [epoch["epoch"] for epoch in found["epochs"]] == [1, 2]
    assert found["epochs"][0]["clipText"] == pytest.approx((first + second) / 2, abs=1e-4)
    assert found["epochs"][1] == {"epoch": 2, "clipText": third, "dinoMean": None, "dinoNearest": None}


def test_a_long_prompt_is_cut_to_what_clip_reads(judges: Path) -> None:
    judge = load_clip(ModelFolder(judges / "clip", "clip"), CPU)

    image, words = Image.new("RGB", (40, 40), "red"), "red cat " * 40

    assert judge.fit(image, words) == judge.fit(image, words + "and a dog")


def test_another_model_is_refused_by_its_kind(judges: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"^spec\.x holds a model of the kind dinov2, but clip is needed"):
        load_clip(ModelFolder(judges / "dino", "spec.x"), CPU)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"code")

    with pytest.raises(InvalidConfiguration, match=r"spec\.x holds no model\.safetensors"):
        load_dino(ModelFolder(tmp_path, "spec.x"), CPU)


def test_damaged_weights_are_named(judges: Path, tmp_path: Path) -> None:
    for file in (judges / "dino").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 200 if file.suffix == ".safetensors" else None])

    with pytest.raises(InvalidConfiguration, match=r"spec\.x cannot be loaded: .*copy the whole model anew"):
        load_dino(ModelFolder(tmp_path, "spec.x"), CPU)
