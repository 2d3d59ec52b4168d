"""The files of a base model, diffusers folder or single checkpoint: a module's weight, and adapters added to all.

Used by `lora merge --into` and `--base`. Only `.safetensors` files are read, and nothing is written in place.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora_api.model_spec import Family
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from lora_trainer.lora.adapter import AdapterModule, check_finite
from lora_trainer.lora.keys import ModuleName, ldm_path, text_model_path
from lora_trainer.lora.merge import Weighted, check_fits
from lora_trainer.lora.tensor_file import read_tensors, write_tensors

_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_HASHES = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")
_OPEN_CLIP = {
    "self_attn.out_proj": "attn.out_proj.weight",
    "mlp.fc1": "mlp.c_fc.weight",
    "mlp.fc2": "mlp.c_proj.weight",
}
_OPEN_CLIP_ROWS = {"self_attn.q_proj": 0, "self_attn.k_proj": 1, "self_attn.v_proj": 2}
_TEXT_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class _Place:
    """Where a weight lies: a tensor, or the n-th third of its rows, in which OpenCLIP keeps q, k and v."""

    tensor: str
    third: int | None = None

    def view(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The weight, as a view of its tensor."""
        tensor = tensors[self.tensor]
        return tensor if self.third is None else tensor.chunk(3)[self.third]


@dataclass(frozen=True)
class BaseFiles:
    """A base model's files."""

    root: Path
    """A diffusers folder or a checkpoint."""
    family: Family
    names: Mapping[Path, frozenset[str]]
    """Names of the tensors in each file."""

    @classmethod
    def open(cls, root: Path, family: Family) -> "BaseFiles":
        """The files at `root`, of which only the headers are read. Raises BaseModelUnavailable."""
        files = [root] if root.is_file() else sorted(root.glob("*/*.safetensors"))
        if not files or root.suffix in _PICKLES:
            raise BaseModelUnavailable(
                f"{root} is neither a diffusers folder with .safetensors files nor such a checkpoint", hint=""
            )
        try:
            return cls(root, family, {file: _names_in(file) for file in files})
        except (OSError, SafetensorError) as error:
            raise BaseModelUnavailable(f"{root} cannot be read: {error}", hint="") from error

    def weight(self, name: ModuleName) -> Tensor:
        """The weight of a module. Raises BaseModelUnavailable if there is none."""
        file, place = self._places(name)[0]
        with safe_open(file, framework="pt") as tensors:
            return place.view({place.tensor: tensors.get_tensor(place.tensor)})

    def add(self, terms: Sequence[Weighted], out: Path) -> None:
        """Writes the base model with all `terms` added to `out`, which must not exist, in the base's own form.

        Raises:
            BaseModelUnavailable: a module that the base lacks; then nothing is written.
            InvalidAdapterFile: a module of another size.
            InvalidConfiguration: `out` exists, lies in the base model or cannot be written.
        """
        if out.exists():
            raise InvalidConfiguration(f"{out} exists; remove it or choose another name", hint="")
        if self.root.is_dir() and out.resolve().is_relative_to(self.root.resolve()):
            raise InvalidConfiguration(f"{out} lies inside the base model; choose another folder", hint="")
        for term in terms:
            check_finite(term.adapter, term.name)
        places = {module.name: self._places(module.name) for term in terms for module in term.adapter.modules.values()}
        partial = out.with_name(out.name + ".partial")
        try:
            self._write(terms, places, partial)
            partial.rename(out)
        except OSError as error:
            raise InvalidConfiguration(
                f"{out} cannot be written: {error.strerror}; choose another place", hint=""
            ) from error
        finally:
            _remove(partial)

    def _write(
        self, terms: Sequence[Weighted], places: Mapping[ModuleName, Sequence[tuple[Path, _Place]]], target: Path
    ) -> None:
        if self.root.is_dir():
            shutil.copytree(self.root, target, ignore=shutil.ignore_patterns(*(f"*{suffix}" for suffix in _PICKLES)))
        origin = ", ".join(f"{term.name} ({term.weight:g})" for term in terms)
        modules: dict[ModuleName, list[tuple[float, AdapterModule]]] = {name: [] for name in places}
        for term in terms:
            for module in term.adapter.modules.values():
                modules[module.name].append((term.weight, module))
        for file in self.names:
            here = {name: place for name, found in places.items() for path, place in found if path == file}
            if here:
                tensors, metadata = read_tensors(file)
                for name, place in here.items():
                    _add(modules[name], place.view(tensors))
                kept = {key: value for key, value in metadata.items() if key not in _HASHES}
                written = target / file.relative_to(self.root) if self.root.is_dir() else target
                write_tensors(written, tensors, kept | {"modelspec.merged_from": origin})

    def _places(self, name: ModuleName) -> list[tuple[Path, _Place]]:
        """Every file that holds the weight: variants of other precisions hold it as well."""
        if self.root.is_file():
            wanted = [_in_checkpoint(name, self.family)]
            files = self.names
        else:
            wanted = [_Place(f"{path}.weight") for path in (name.path, text_model_path(name.path))]
            files = {file: names for file, names in self.names.items() if file.parent.name == name.part}
        found = [(file, place) for file, names in files.items() for place in wanted if place.tensor in names]
        if not found:
            raise BaseModelUnavailable(
                f"{self.root.name} has no weight of {name.part}.{name.path}; the adapter, which is for {self.family}, "
                "belongs to another model",
                hint="",
            )
        return found


def _add(modules: Sequence[tuple[float, AdapterModule]], weight: Tensor) -> None:
    """Adds the changes to `weight` in place; each is that of the weight as it was."""
    for _, module in modules:
        check_fits(module, weight)
    changes = torch.stack([factor * module.change(weight) for factor, module in modules])
    weight.copy_(weight.float() + changes.sum(0))


def _in_checkpoint(name: ModuleName, family: Family) -> _Place:
    """Where Stability's checkpoints keep a weight."""
    if name.part == "unet":
        return _Place(f"model.diffusion_model.{ldm_path(name.path, family)}.weight")
    if family == "sd15":
        return _Place(f"cond_stage_model.transformer.{text_model_path(name.path)}.weight")
    if name.part == "text_encoder" and family == "sdxl":
        return _Place(f"conditioner.embedders.0.transformer.{text_model_path(name.path)}.weight")
    prefix = "conditioner.embedders.1.model" if family == "sdxl" else "cond_stage_model.model"
    return _in_open_clip(name.path, prefix)


def _in_open_clip(path: str, prefix: str) -> _Place:
    match = _TEXT_LAYER.fullmatch(path)
    if match is None:
        return _Place(f"{prefix}.{path}.weight")
    number, module = match.groups()
    block = f"{prefix}.transformer.resblocks.{number}"
    if module in _OPEN_CLIP_ROWS:
        return _Place(f"{block}.attn.in_proj_weight", _OPEN_CLIP_ROWS[module])
    return _Place(f"{block}.{_OPEN_CLIP.get(module, module)}")


def _names_in(file: Path) -> frozenset[str]:
    with safe_open(file, framework="pt") as tensors:
        return frozenset(tensors.keys())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
