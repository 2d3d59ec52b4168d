"""A grid of adapter files of any origin and shape, drawn with a base model; used by `lora grid`.

Each adapter is merged into the model at each strength and taken out again, so that it need not be of one network.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import torch
from PIL import Image

from lora_trainer.diffusion.noise import make_schedule
from lora_trainer.digests import sha256_of
from lora_trainer.drawing import Painter
from lora_trainer.families.base import BaseModel
from lora_trainer.families.catalogue import load
from lora_trainer.families.opening import ModelFiles
from lora_trainer.grid.axes import Axes, GridAdapter
from lora_trainer.grid.pictures import Base, Listener, draw_grid, index_of
from lora_trainer.grid.sheet import write_sheet
from lora_trainer.lora.adapter import AdapterFile, InvalidAdapterFile, check_finite
from lora_trainer.lora.formats import read_adapter
from lora_trainer.lora.merge import weights_in
from lora_trainer.lora.merged import merged
from lora_trainer.lora.strength import Strength
from lora_trainer.samples import Picture, model_name
from lora_trainer.storage.disk_errors import disk_errors

FOLDER = "grid"
_DIFFUSERS = "-diffusers"
_EPOCH = re.compile(r"^(?P<name>.+)-(?P<epoch>\d{6})$")


@dataclass(frozen=True)
class Row:
    """A file and how the grid shows it."""

    adapter: GridAdapter
    file: Path
    epoch: int | None = None
    """By the name of the file."""


def rows_of(files: Mapping[Path, str]) -> list[Row]:
    """A row for each file. Those of one run (`name-000003.safetensors`) are shown by their epochs, in that order.

    Copies of what is shown anyway are left out: the file of the run's end, that of its best epoch, other formats.

    Args:
        files: with the place that each is from, which tells files of the same name apart.
    """
    matches = {file: _EPOCH.match(file.stem) for file in files if not _is_other_format(file, tuple(files))}
    runs = {(files[file], match["name"]) for file, match in matches.items() if match}
    copies = {(place, f"{name}{ending}") for place, name in runs for ending in ("", "-best")}
    shown = {
        file: int(match["epoch"]) if match else None
        for file, match in matches.items()
        if match or (files[file], file.stem) not in copies
    }
    names, epochs = {name for _, name in runs}, set(shown.values())
    if len(names) == 1 and None not in epochs and len(epochs) == len(shown):
        rows = [Row(GridAdapter(file.stem, sha256_of(file), epoch), file, epoch) for file, epoch in shown.items()]
        return sorted(rows, key=lambda row: row.epoch or 0)
    titles = _titles({file: files[file] for file in shown})
    return [
        Row(GridAdapter(file.stem, sha256_of(file), title=titles[file]), file, epoch) for file, epoch in shown.items()
    ]


def _titles(files: Mapping[Path, str]) -> dict[Path, str]:
    """The names of files, with as many folders of their places before them as tell equal names apart."""
    parts = {file: (*PurePosixPath(place).parts, file.stem) for file, place in files.items()}
    alike = {file: [other for other in files if other.stem == file.stem] for file in files}

    def title(file: Path) -> str:
        whole = range(1, len(parts[file]) + 1)
        different = (n for n in whole if len({parts[other][-n:] for other in alike[file]}) == len(alike[file]))
        return "/".join(parts[file][-next(different, len(whole)) :])

    return {file: title(file) for file in files}


def _is_other_format(file: Path, files: Sequence[Path]) -> bool:
    """Whether it is the file in diffusers' format of one that is there in kohya's."""
    return file.stem.endswith(_DIFFUSERS) and file.with_stem(file.stem.removesuffix(_DIFFUSERS)) in files


class AdapterGrid:
    """Draws a grid of files with one base model."""

    def __init__(
        self, name: str, files: ModelFiles, rows: Sequence[Row], *, on_step: Callable[[], None] = lambda: None
    ) -> None:
        """Loads the model called `name`: in fp16 on a GPU, as the WebUI does, else in fp32.

        Raises:
            BaseModelUnavailable: it cannot be loaded.
            InvalidAdapterFile: a file is no adapter, or not for this model; names it.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        precision = torch.float16 if device.type == "cuda" else torch.float32
        model: BaseModel = load(files, device, precision=precision)
        betas = model.betas
        schedule = make_schedule(betas.start, betas.end, steps=betas.steps, name=betas.name)
        # As a training draws: weights in half precision, sums where it matters in full.
        autocast = partial(torch.autocast, device.type, precision, enabled=precision != torch.float32)
        self._painter = Painter(model, schedule, autocast, on_step)
        self._files = {row.adapter: row.file for row in rows}
        self._read: tuple[GridAdapter, AdapterFile] | None = None
        digest = hashlib.sha256(repr((files.digest, str(precision))).encode()).hexdigest()
        self._base = Base(model_name(name), digest)
        for row in rows:
            _check_fits(row, model)

    def check(self, pictures: Sequence[Picture]) -> None:
        """Raises InvalidConfiguration when the model cannot draw a picture."""
        self._painter.check(pictures, field="--prompt")

    def draw(self, axes: Axes, out: Path, listener: Listener) -> None:
        """Writes `grid.png`, `grid.webp`, `grid.json` and the pictures below `grid/`; what lies there is kept.

        Raises:
            DiskUnavailable: `out` cannot be written.
        """
        folder = out / FOLDER
        with disk_errors(out):
            folder.mkdir(parents=True, exist_ok=True)
            draw_grid(axes, folder, self._base, self._draw, listener=listener)
            write_sheet(axes, folder, out / "grid.png", out / "grid.webp")
            (out / "grid.json").write_text(index_of(axes, FOLDER), encoding="utf-8")

    def _draw(self, adapter: GridAdapter, strength: Strength, pictures: Sequence[Picture]) -> Sequence[Image.Image]:
        with merged(self._painter.model.parts, self._adapter(adapter), strength):
            return self._painter.draw(pictures, None)

    def _adapter(self, adapter: GridAdapter) -> AdapterFile:
        """The adapter where the model is; the newest one is kept."""
        if self._read is None or self._read[0] != adapter:
            device = next(self._painter.model.parts["unet"].parameters()).device
            self._read = (adapter, _on(device, read_adapter(self._files[adapter])))
        return self._read[1]


def _on(device: torch.device, adapter: AdapterFile) -> AdapterFile:
    moved = {
        key: replace(module, tensors={name: tensor.to(device) for name, tensor in module.tensors.items()})
        for key, module in adapter.modules.items()
    }
    return replace(adapter, modules=moved)


def _check_fits(row: Row, model: BaseModel) -> None:
    adapter = read_adapter(row.file)
    check_finite(adapter, row.file.name)
    try:
        weights_in(model.parts, adapter)
    except InvalidAdapterFile as error:
        raise InvalidAdapterFile(f"{row.file.name}: {error}") from error
