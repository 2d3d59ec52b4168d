"""`lora merge`: a weighted sum of adapters, as an adapter or in a base model."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.precisions import Precision
from lora_trainer.errors import InvalidConfiguration

if TYPE_CHECKING:
    from lora_trainer.lora.merge import Weighted


def merge(
    adapters: Annotated[
        list[str], typer.Argument(help="Adapters with their strengths, such as a.safetensors:0.7; without one: 1.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="What is written. Must not exist.")],
    into: Annotated[
        Path | None,
        typer.Option("--into", help="Base model (diffusers folder or .safetensors) to add them to, in its own form."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", min=1, help="Rank of the result. Default: exact, the ranks add up.")
    ] = None,
    base: Annotated[Path | None, typer.Option("--base", help="Base model, which a dora is computed from.")] = None,
    precision: Annotated[Precision, typer.Option("--precision", help="Number format of the adapter.")] = Precision.FP16,
) -> None:
    """Add adapters up, each at a strength, into one adapter or into a base model."""
    # torch takes seconds to import; `lora --help`, `plan` and `validate` do without it.
    from lora_trainer.lora.adapter import PRECISIONS  # noqa: PLC0415
    from lora_trainer.lora.base_files import BaseFiles  # noqa: PLC0415
    from lora_trainer.lora.formats import save_adapter  # noqa: PLC0415
    from lora_trainer.lora.merge import merge_adapters  # noqa: PLC0415

    with exit_with_code():
        terms = [_read(text) for text in adapters]
        family = terms[0].adapter.family
        if into is not None:
            _refuse_with_into(rank, base)
            BaseFiles.open(into, family).add(terms, out)
            typer.echo(f"{out}: {into.name} with {len(terms)} adapter{'s' if len(terms) > 1 else ''} added")
            return
        weight = BaseFiles.open(base, family).weight if base else None
        merged = merge_adapters(terms, out=out, rank=rank, base=weight, dtype=PRECISIONS[precision])
        save_adapter(out, merged)
    ranks = sorted({module.rank for module in merged.modules.values()})
    typer.echo(f"{out}: {len(merged.modules)} modules of rank {', '.join(map(str, ranks))}")


def _refuse_with_into(rank: int | None, base: Path | None) -> None:
    for option, value in (("--rank", rank), ("--base", base)):
        if value is not None:
            raise InvalidConfiguration(f"{option} makes an adapter and does not go with --into; remove one", hint="")


def _read(text: str) -> "Weighted":
    """`file:0.7`; a colon that no number follows belongs to the name."""
    from lora_trainer.lora.formats import read_adapter  # noqa: PLC0415  (torch)
    from lora_trainer.lora.merge import Weighted  # noqa: PLC0415

    name, colon, number = text.rpartition(":")
    try:
        file, weight = Path(name if colon else text), float(number) if colon else 1.0
    except ValueError:
        file, weight = Path(text), 1.0
    if not math.isfinite(weight):
        raise InvalidConfiguration(f"{text}: the strength is {weight}; write a number such as 0.7", hint="")
    return Weighted(read_adapter(file), weight, file.name)
