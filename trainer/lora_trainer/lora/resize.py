"""An adapter at another rank, by singular value decomposition of each module; used by `lora resize`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.lora.adapter import AdapterFile, AdapterModule, InvalidAdapterFile, check_finite
from lora_trainer.lora.derived import derived_metadata
from lora_trainer.lora.keys import kernel_of
from lora_trainer.lora.lowrank import Cut, RankRule, cut_matrix, cut_product, product_change


@dataclass(frozen=True)
class Resized:
    """The result, and what it kept."""

    adapter: AdapterFile
    kept_energy: dict[str, float]
    """For each module the share of the change's sum of squares that the new rank holds."""


def resize_adapter(adapter: AdapterFile, rule: RankRule, *, name: str, out: Path) -> Resized:
    """A plain LoRA that does the same at the same strength, as far as the ranks by `rule` allow;
    in the number format that it has.

    Args:
        adapter: what is resized; of any type but DoRA.
        rule: rank of each module.
        name: what metadata calls the source.
        out: the file to be written, for the metadata.

    Raises:
        InvalidAdapterFile: a DoRA, whose change depends on the base model.
    """
    if adapter.type == "dora":
        raise InvalidAdapterFile(
            f"{name} is a dora, whose change depends on the base model; make a LoRA of it by "
            f"`lora merge {name} --base BASE --rank N --out {out.name}`"
        )
    check_finite(adapter, name)
    cuts = {key: _cut(module, adapter, rule) for key, module in adapter.modules.items()}
    scales = Counter(module.scale for module in adapter.modules.values())
    # One alpha for all modules, with the ratio to the rank that most of them had.
    alpha = (scales.most_common(1)[0][0] or 1.0) * max(cut.change.rank for cut in cuts.values())
    modules = {key: cut.change.module(alpha, adapter.modules[key].dtype) for key, cut in cuts.items()}
    metadata = derived_metadata([adapter.metadata], list(modules.values()), out=out, origin=f"{name} (resized)")
    energies = {key: cut.kept_energy for key, cut in cuts.items()}
    return Resized(AdapterFile(modules, metadata, adapter.family), energies)


def _cut(module: AdapterModule, adapter: AdapterFile, rule: RankRule) -> Cut:
    if module.is_product:
        return cut_product(product_change(module), rule)
    return cut_matrix(module.name, module.delta, kernel_of(module.name, adapter.family), rule)
