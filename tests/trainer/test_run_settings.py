"""Whole trainings with every setting: what must not change the result, what must change it, and what comes back."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from lora_api import LoraTraining
from lora_trainer.errors import Interrupted, InvalidConfiguration
from lora_trainer.lora.formats import read_adapter
from lora_trainer.run import run_training
from tests.support.tiny_pipeline import write_tiny_pipeline
from tests.support.tiny_run import FEW_BLOCKS, make_session, make_session_until, make_training

FINAL = "adapters/tiny.safetensors"
RANDOM_CAPTIONS = {
    "shuffle": True,
    "keepTokens": 1,
    "dropoutFraction": 0.2,
    "tagDropoutFraction": 0.3,
    "tokenWarmup": {"steps": 4},
    "wildcards": True,
}
RANDOM_PICTURES = {"flip": True, "color": True, "randomCrop": True}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shapes of pictures with a gradient, so that crops, mirrors and colours differ; and two of the class."""
    folder = tmp_path_factory.mktemp("data") / "train"
    for place, count in (("2_zwx shape", 4), ("reg/1_shape", 3)):
        (folder / place).mkdir(parents=True)
        for index in range(count):
            size = (96, 64) if index % 2 else (64, 80)
            gradient = Image.linear_gradient("L").resize(size)
            picture = Image.merge("RGB", (gradient, gradient.rotate(180), Image.new("L", size, 60 * index)))
            picture.save(folder / place / f"{index}.png")
            (folder / place / f"{index}.txt").write_text(f"zwx shape, {{red|blue}}, tag{index}, plain\nsecond line")
    return folder


@pytest.fixture
def train(tiny_pipeline: Path, pictures: Path, tmp_path: Path) -> Callable[..., Path]:
    """Runs a training of four steps; gives the folder with what it made."""
    folders = iter(range(100))

    def run(base: Path | None = None, data: Path | None = None, /, **changes: Any) -> Path:
        output = tmp_path / f"out{next(folders)}"
        run_training(
            training_at(base or tiny_pipeline, data or pictures, output, **changes),
            make_session(tmp_path / "work").session,
        )
        return output

    return run


@pytest.fixture(scope="module")
def plain(tiny_pipeline: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the training of four steps makes when nothing is changed; read only."""
    folder = tmp_path_factory.mktemp("plain")
    run_training(training_at(tiny_pipeline, pictures, folder / "out"), make_session(folder / "work").session)
    return folder / "out"


def training_at(base: Path, data: Path, output: Path, /, **changes: Any) -> LoraTraining:
    """Two epochs of at most four steps, without sample pictures; adapters in few blocks, if nothing else is said."""
    small: dict[str, Any] = {
        "dataset": {"buckets": {"stepPx": 32}},
        "training": {"maxSteps": 4, "epochs": 2, "batchSize": 4},
        "samples": {"prompts": []},
    }
    changes = {"network": {"blocks": FEW_BLOCKS}} | changes
    merged = {name: small.get(name, {}) | changes.get(name, {}) for name in small | changes}
    return make_training(base, data, output, **merged)


def adapter(output: Path) -> bytes:
    return (output / FINAL).read_bytes()


def tensors(output: Path) -> dict[str, torch.Tensor]:
    with safe_open(output / FINAL, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def differ(one: Path, other: Path) -> bool:
    ours, theirs = tensors(one), tensors(other)
    return any(not ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.parametrize("cache", ["Memory", "None"])
def test_the_number_of_workers_changes_no_byte(train: Callable[..., Path], cache: str) -> None:
    settings = {"captions": RANDOM_CAPTIONS, "augmentation": RANDOM_PICTURES, "latentCache": cache}
    if cache != "None":
        settings["latentVariants"] = 2

    alone = train(dataset=settings | {"workers": 0})
    together = train(dataset=settings | {"workers": 4})

    assert adapter(alone) == adapter(together)


def test_every_cache_gives_the_same_training(train: Callable[..., Path], tmp_path: Path) -> None:
    flip = {"augmentation": {"flip": True}}
    results = [
        train(dataset=flip | {"latentCache": "Memory"}),
        train(dataset=flip | {"latentCache": "None"}),
        train(dataset=flip | {"latentCache": "Disk"}),
        train(dataset=flip | {"latentCache": "Disk"}),
        train(dataset=flip | {"latentCache": "Store", "cacheUri": (tmp_path / "cache").as_uri()}),
    ]

    assert not any(differ(results[0], other) for other in results[1:])
    assert list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize(
    "network",
    [
        {"type": "lora", "dropout": 0.1, "rankDropout": 0.2, "moduleDropout": 0.1},
        {"type": "locon", "convRank": 2, "convAlpha": 1.0, "weightNormLimit": 0.5},
        {"type": "locon", "blocks": [{"name": "M00", "rank": 2, "alpha": 1.0}, {"name": "OUT04", "rank": 0}]},
        {"type": "dora"},
        {"type": "loha", "convRank": 2},
        {"type": "lokr", "lokrFactor": 4},
        {"textEncoder": False},
        {"unet": False},
    ],
    ids=lambda network: "-".join(map(str, network.values()))[:30],
)
def test_every_network_is_trained_and_its_file_does_the_same(
    train: Callable[..., Path], network: dict[str, Any]
) -> None:
    """Each run reads its file back and compares the model's outputs before it is published."""
    output = train(network=network)

    assert any(float(module.delta.norm()) > 0 for module in read_adapter(output / FINAL).modules.values())


def test_both_formats_hold_the_same_adapter(train: Callable[..., Path]) -> None:
    output = train(output={"formats": ["kohya", "diffusers"]}, network={"alpha": 1.0})

    ours = read_adapter(output / FINAL).modules
    theirs = read_adapter(output / "adapters/tiny-diffusers.safetensors").modules
    assert all(torch.equal(ours[key].delta, theirs[key].delta) for key in ours | theirs)


@pytest.mark.parametrize(
    "loss",
    [
        {"minSnrGamma": 5, "noiseOffset": 0.1, "adaptiveNoiseScale": 0.1},
        {"type": "huber", "huberSchedule": "exponential", "multiresNoiseIterations": 4, "ipNoiseGamma": 0.1},
        {"debiasedEstimation": True, "vPredictionLikeLoss": 0.5, "minTimestep": 200, "maxTimestep": 800},
    ],
    ids=["snr", "huber", "debiased"],
)
def test_objectives_change_what_is_learnt(train: Callable[..., Path], plain: Path, loss: dict[str, Any]) -> None:
    assert differ(plain, train(training={"loss": loss}))


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "adafactor"},
        {"name": "lion8bit", "learningRate": 1e-3},
        {"name": "prodigy", "learningRate": 1.0},
        {"name": "dadaptation", "learningRate": 1.0},
        {"name": "schedulefree"},
        {"name": "adamw", "loraPlus": {"ratio": 4}, "schedule": {"name": "polynomial", "power": 2, "warmupSteps": 1}},
    ],
    ids=lambda optimizer: optimizer["name"],
)
def test_a_run_that_was_told_to_stop_ends_with_the_same_bytes(
    tiny_pipeline: Path, pictures: Path, tmp_path: Path, optimizer: dict[str, Any]
) -> None:
    """With a moving average where the optimizer has none of its own, random captions, dropout and new pictures."""
    changes: dict[str, Any] = {
        "optimizer": optimizer,
        "training": {} if optimizer["name"] == "schedulefree" else {"ema": {"decay": 0.9}},
        "network": {"dropout": 0.2, "blocks": FEW_BLOCKS},
        "dataset": {"captions": RANDOM_CAPTIONS, "augmentation": RANDOM_PICTURES, "latentCache": "None"},
    }
    whole = training_at(tiny_pipeline, pictures, tmp_path / "whole", **changes)
    broken = training_at(tiny_pipeline, pictures, tmp_path / "broken", **changes)
    run_training(whole, make_session(tmp_path / "work").session)

    for step in (1, 3):
        with pytest.raises(Interrupted):
            run_training(broken, make_session_until(tmp_path / "work", step=step).session)
    run_training(broken, make_session(tmp_path / "work").session)

    assert adapter(tmp_path / "broken") == adapter(tmp_path / "whole")


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_other_families_are_trained_as_well(
    train: Callable[..., Path], tiny_sd2: Path, tiny_sdxl: Path, family: str
) -> None:
    base = {"sd2": tiny_sd2, "sdxl": tiny_sdxl}[family]
    prompts = [{"prompt": "zwx red shape", "steps": 2, "seed": 1}]

    output = train(base, samples={"prompts": prompts}, output={"formats": ["kohya", "diffusers"]}, network={})

    metadata = read_adapter(output / FINAL).metadata
    assert metadata["modelspec.prediction_type"] == ("v" if family == "sd2" else "epsilon")
    assert metadata["ss_base_model_version"] == {"sd2": "sd_v2_v", "sdxl": "sdxl_base_v1-0"}[family]
    assert (output / "samples/tiny-sheet.png").is_file()


def test_the_teacher_changes_what_is_learnt_from_the_class(train: Callable[..., Path], plain: Path) -> None:
    teacher = train(dataset={"regularization": {"target": "BaseModel"}})

    assert differ(plain, teacher)


def test_masks_change_what_is_learnt(train: Callable[..., Path], pictures: Path, tmp_path: Path) -> None:
    masked = tmp_path / "masked"
    for source in pictures.rglob("*"):
        if source.is_file():
            target = masked / source.relative_to(pictures)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    (masked / "mask" / "2_zwx shape").mkdir(parents=True)
    for source in (masked / "2_zwx shape").glob("*.png"):
        with Image.open(source) as picture:
            half = Image.linear_gradient("L").resize(picture.size)
        half.save(masked / "mask" / "2_zwx shape" / source.name)

    assert differ(train(None, masked), train(None, masked, dataset={"mask": "Files"}))


def test_subsets_give_the_same_training_as_the_folders_they_name(train: Callable[..., Path], pictures: Path) -> None:
    subsets = [
        {"uri": (pictures / "2_zwx shape").as_uri(), "repeats": 2, "classTokens": "zwx shape"},
        {"uri": (pictures / "reg/1_shape").as_uri(), "classTokens": "shape", "isRegularization": True},
    ]

    by_folders = train(dataset={"captions": {"shuffle": True}})
    by_subsets = train(dataset={"captions": {"shuffle": True}, "uri": None, "subsets": subsets})

    assert not differ(by_folders, by_subsets)


def test_an_adapter_can_be_merged_into_the_base_or_started_from(train: Callable[..., Path], plain: Path) -> None:
    uri = (plain / FINAL).as_uri()

    merged = train(baseModel={"adapters": [{"uri": uri, "weight": 0.5}]})
    started = train(network={"initialUri": uri, "blocks": FEW_BLOCKS}, optimizer={"learningRate": 1e-9})

    assert differ(plain, merged)
    ours, theirs = tensors(started), tensors(plain)
    assert all(torch.allclose(ours[name].float(), theirs[name].float(), atol=1e-3) for name in ours)


def test_another_vae_is_used_and_named(train: Callable[..., Path], plain: Path, tmp_path: Path) -> None:
    other = write_tiny_pipeline(tmp_path / "other", seed=7) / "vae"

    replaced = train(baseModel={"vaeUri": other.as_uri()})

    assert differ(plain, replaced)
    assert read_adapter(replaced / FINAL).metadata["ss_vae_name"] == "vae"


def test_an_adapter_of_other_ranks_cannot_be_started_from(train: Callable[..., Path], plain: Path) -> None:
    uri = (plain / FINAL).as_uri()

    with pytest.raises(InvalidConfiguration, match=r"spec.network.initialUri"):
        train(network={"initialUri": uri, "rank": 8, "blocks": FEW_BLOCKS})


def test_saving_memory_changes_no_number(train: Callable[..., Path], plain: Path) -> None:
    careful = train(training={"lowMemory": True, "gradientCheckpointing": True})

    assert not differ(plain, careful)


def test_xformers_falls_back_and_says_so(train: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    train(training={"attention": "xformers"})

    assert "spec.training.attention is xformers, but sdpa is used instead" in caplog.text


def test_captions_that_are_cut_are_named(
    train: Callable[..., Path], pictures: Path, tmp_path: Path, caplog: Any
) -> None:
    train(dataset={"captions": {"prefix": "a, " * 60}})

    assert "captions are longer than 75 tokens, and their end is cut off: 2_zwx shape/0.png" in caplog.text


def test_a_model_that_predicts_something_else_than_it_says_is_refused(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    """The tiny base that ships with the demo really draws, so what it predicts shows."""
    base = shutil.copytree(Path(__file__).parents[2] / "tinybase" / "model", tmp_path / "base")
    scheduler = base / "scheduler" / "scheduler_config.json"
    config = json.loads(scheduler.read_text())
    scheduler.write_text(json.dumps(config | {"prediction_type": "v_prediction"}))

    with pytest.raises(InvalidConfiguration, match=r"is said to predict v_prediction, but .* it predicts epsilon"):
        train(base, dataset={"resolution": 128})


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Log lines of the trainer are caught whatever other tests have set up."""
    caplog.set_level("INFO", logger="lora_trainer")
    yield
