"""Weighted sums of adapters: into one adapter, and into a live base model.

Used by `lora merge` and, for `baseModel.adapters`, by `run` before it injects the trained adapter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_trainer.conditioning import Part
from lora_trainer.lora.adapter import AdapterFile, AdapterModule, InvalidAdapterFile, check_finite
from lora_trainer.lora.derived import derived_metadata
from lora_trainer.lora.keys import ModuleName, kernel_of, text_model_path
from lora_trainer.lora.lowrank import Change, RankRule, cut_matrix, cut_product, joined, product_change

BaseWeight = Callable[[ModuleName], Tensor]
"""The base model's weight of a module: (out, in) or (out, in, k, k)."""


@dataclass(frozen=True)
class Weighted:
    """One term of the sum."""

    adapter: AdapterFile
    weight: float
    name: str
    """What messages and metadata call it."""


def merge_into(parts: Mapping[Part, nn.Module], adapter: AdapterFile, weight: float) -> None:
    """Adds `weight` times the adapter to the weights of live parts, for good.

    Raises:
        InvalidAdapterFile: a module that the parts lack, or of another shape; then nothing was changed.
    """
    targets = weights_in(parts, adapter)
    with torch.no_grad():
        for key, module in adapter.modules.items():
            target = targets[key]
            target.copy_(target.float() + weight * module.change(target))


def weights_in(parts: Mapping[Part, nn.Module], adapter: AdapterFile) -> dict[str, Tensor]:
    """The live weights that the adapter changes, by its keys. Raises InvalidAdapterFile if it does not fit."""
    targets = {key: _weight_of(parts, module.name) for key, module in adapter.modules.items()}
    for key, module in adapter.modules.items():
        check_fits(module, targets[key])
    return targets


def _weight_of(parts: Mapping[Part, nn.Module], name: ModuleName) -> Tensor:
    for path in (name.path, text_model_path(name.path)):
        try:
            weight = parts[name.part].get_submodule(path).weight
        except (KeyError, AttributeError):
            continue
        if isinstance(weight, Tensor):
            return weight
    raise InvalidAdapterFile(f"the base model has no module {name.part}.{name.path}; the adapter is for another one")


def check_fits(module: AdapterModule, weight: Tensor) -> None:
    """Raises InvalidAdapterFile if the module's change is not of the weight's size."""
    size = tuple(weight.flatten(1).shape)
    if module.size != size:
        raise InvalidAdapterFile(
            f"{module.name.part}.{module.name.path} has the size {[*size]} in the base model, but the adapter changes "
            f"{[*module.size]}; it is for another model"
        )


def merge_adapters(
    terms: Sequence[Weighted], *, out: Path, rank: int | None = None, base: BaseWeight | None = None,
    dtype: torch.dtype = torch.float16,
) -> AdapterFile:  # fmt: skip
    """The weighted sum as one plain LoRA.

    Without `rank` the sum is exact: the ranks of the terms add up. With it, each module is cut to it by a singular
    value decomposition.

    Args:
        terms: what is added; all of one family.
        out: the file to be written, for the metadata.
        rank: rank of every module.
        base: weights of the base model, which the change of a DoRA depends on.
        dtype: number format of the result.

    Raises:
        InvalidAdapterFile: terms that cannot be added, with the cure.
    """
    family = terms[0].adapter.family
    for term in terms:
        check_finite(term.adapter, term.name)
        if term.adapter.family != family:
            raise InvalidAdapterFile(f"{term.name} is for {term.adapter.family}, but {terms[0].name} is for {family}")
    keys = sorted({key for term in terms for key in term.adapter.modules})
    changes = [_sum(key, terms, rank, base) for key in keys]
    alpha = _alpha(terms, changes, rank)
    modules = {key: change.module(alpha, dtype) for key, change in zip(keys, changes, strict=True)}
    origin = ", ".join(f"{term.name} ({term.weight:g})" for term in terms)
    sources = [term.adapter.metadata for term in terms]
    metadata = derived_metadata(sources, list(modules.values()), out=out, origin=origin)
    merged = AdapterFile(modules, metadata, family)
    check_finite(merged, out.name, cure="use smaller strengths or --precision fp32")
    return merged


def _sum(key: str, terms: Sequence[Weighted], rank: int | None, base: BaseWeight | None) -> Change:
    """The change of one module, summed over the terms that have it."""
    present = [(term, term.adapter.modules[key]) for term in terms if key in term.adapter.modules]
    if len({module.size for _, module in present}) > 1:
        raise InvalidAdapterFile(f"{key} has different sizes in {' and '.join(term.name for term, _ in present)}")
    whole = [(term, module) for term, module in present if not module.is_product]
    if not whole:
        exact = joined([product_change(module, term.weight) for term, module in present])
        return exact if rank is None else cut_product(exact, RankRule(rank)).change
    if rank is None:
        term, module = whole[0]
        raise InvalidAdapterFile(f"{term.name} holds {module.type} modules, which add up to no exact LoRA; give --rank")
    name = present[0][1].name
    matrix = torch.stack([term.weight * _matrix(term, module, base) for term, module in present]).sum(0)
    return cut_matrix(name, matrix, kernel_of(name, terms[0].adapter.family), RankRule(rank)).change


def _matrix(term: Weighted, module: AdapterModule, base: BaseWeight | None) -> Tensor:
    """The whole change of one module of one term, (out, in * k * k)."""
    if module.type != "dora":
        return module.delta
    if base is None:
        raise InvalidAdapterFile(f"{term.name} is a dora, whose change depends on the base model; give --base")
    weight = base(module.name)
    check_fits(module, weight)
    return module.change(weight).flatten(1)


def _alpha(terms: Sequence[Weighted], changes: Sequence[Change], rank: int | None) -> float:
    """One alpha for all modules, which every reader understands, whatever their ranks.

    In an exact sum it leaves the strongest term's numbers as they are.
    """
    if rank is not None:
        return float(rank)
    scales = (abs(term.weight * module.scale) for term in terms for module in term.adapter.modules.values())
    return max(change.rank for change in changes) * (max(scales) or 1.0)
