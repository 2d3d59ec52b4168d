"""`lora bake`: an adapter with a weight and block weights worked in."""

import math
from pathlib import Path
from typing import Annotated

import typer

from lora_api.model_spec import Family
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.presets import PresetsFile, read_presets
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.lora.block_weights import BlockVector, parse_block_weights


def bake(
    source: Annotated[Path, typer.Argument(help="Adapter file.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="File that is written, in kohya's format. Must not exist.")],
    block_weights: Annotated[
        str | None,
        typer.Option("--block-weights", "-b", help="A preset such as INALL, or numbers: 1,0,… or HINA4:0.25,…"),
    ] = None,
    weight: Annotated[float, typer.Option("--weight", "-w", help="Weight of the whole, as in <lora:name:0.8>.")] = 1.0,
    presets: PresetsFile = None,
    base: Annotated[Path | None, typer.Option("--base", help="Base model, which a dora is computed from.")] = None,
) -> None:
    """Work a weight and block weights into an adapter, which then needs no extension."""
    # torch takes seconds to import; `lora --help`, `plan` and `validate` do without it.
    from lora_trainer.lora.bake import bake as baked_at  # noqa: PLC0415
    from lora_trainer.lora.base_files import BaseFiles  # noqa: PLC0415
    from lora_trainer.lora.formats import read_adapter, save_adapter  # noqa: PLC0415
    from lora_trainer.lora.strength import Strength  # noqa: PLC0415

    with exit_with_code():
        _check(block_weights, weight)
        adapter = read_adapter(source)
        blocks = None if block_weights is None else _vector(block_weights, adapter.family, presets)
        weights = BaseFiles.open(base, adapter.family).weight if base else None
        baked = baked_at(adapter, Strength(weight, blocks), name=source.name, out=out, base=weights)
        save_adapter(out, baked)
    left_out = len(adapter.modules) - len(baked.modules)
    typer.echo(f"{out}: {len(baked.modules)} modules" + (f", {left_out} of weight 0 left out" if left_out else ""))
    if blocks is not None:
        typer.echo(_shown(blocks, adapter.family))


def _check(block_weights: str | None, weight: float) -> None:
    if not math.isfinite(weight):
        raise InvalidConfiguration(f"--weight is {weight}; write a number such as 0.8", hint="")
    if block_weights is None and weight == 1.0:
        raise InvalidConfiguration("say what to work in: --block-weights, --weight or both", hint="")


def _vector(text: str, family: Family, presets: Path | None) -> BlockVector:
    return parse_block_weights(text, family, presets=read_presets(presets), field="--block-weights")


def _shown(blocks: BlockVector, family: Family) -> str:
    """The weights by block, such as `INALL: BASE 1, IN00 0, …`."""
    weights = blocks.by_place(family).items()
    return f"{blocks.name}: " + ", ".join(f"{place} {weight:g}" for place, weight in weights)
