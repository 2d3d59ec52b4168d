"""`lora example`: model, pictures and file of a training that takes seconds. `helm test` trains it in a cluster."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from PIL import Image, ImageDraw

from lora_api import names
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.options import check_local
from lora_trainer.errors import InvalidConfiguration

MODEL, PICTURES, OUTPUT, FILE = "base", "train", "run", "training.yaml"
_SIDE_PX = 64
_SQUARE = (16, 16, 48, 48)
_COLOURS = ("red", "blue")


def example(folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.")]) -> None:
    """Write a made-up base model, two captioned pictures and a training of two steps: try out an installation.

    The adapter is of no use; that it comes out shows that torch, the device, files and pictures work.
    """
    # torch takes seconds to import; other commands do without it.
    from lora_trainer.commands.example_model import write_example_model  # noqa: PLC0415

    with exit_with_code():
        check_local(folder, "FOLDER")
        training = _training(folder.resolve())
        _check_free(folder, training)
        try:
            _write_pictures(folder / PICTURES / "1_example square")
            write_example_model(folder / MODEL)
            (folder / FILE).write_text(yaml.safe_dump(training, sort_keys=False), encoding="utf-8")
        except OSError as error:
            raise InvalidConfiguration(f"{folder} cannot be written: {error.strerror}", hint="") from error
    typer.echo(f"{folder}: now run `lora run {folder / FILE}`")


def _check_free(folder: Path, training: dict[str, Any]) -> None:
    """Raises InvalidConfiguration when something other than an earlier example would be replaced."""
    there = [name for name in (MODEL, PICTURES, FILE) if (folder / name).exists()]
    try:
        before = yaml.safe_load((folder / FILE).read_bytes())
    except (OSError, yaml.YAMLError):
        before = None
    is_ours = isinstance(before, dict) and before.get("metadata") == training["metadata"]
    if there and not is_ours:
        raise InvalidConfiguration(f"{folder} holds {there[0]} already; name a new folder", hint="")


def _write_pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for colour in _COLOURS:
        picture = Image.new("RGB", (_SIDE_PX, _SIDE_PX), "white")
        ImageDraw.Draw(picture).rectangle(_SQUARE, fill=colour)
        picture.save(folder / f"{colour}.png")
        (folder / f"{colour}.txt").write_text(f"example square, {colour}", encoding="utf-8")


def _training(folder: Path) -> dict[str, Any]:
    """One step a picture, on the CPU, with a sample."""
    spec = {
        "baseModel": {"uri": (folder / MODEL).as_uri()},
        "dataset": {"uri": (folder / PICTURES).as_uri(), "resolution": _SIDE_PX, "buckets": {"enabled": False}},
        "network": {"rank": 4},
        "training": {"epochs": 1, "batchSize": 1, "precision": "fp32"},
        "samples": {"prompts": [{"prompt": "example square, red", "steps": 2, "seed": 1}]},
        "parallelism": {"gpusPerNode": 0},
        "output": {"uri": (folder / OUTPUT).as_uri()},
    }
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "example"}, "spec": spec}
