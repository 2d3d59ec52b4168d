"""`lora resize`: an adapter at another rank."""

from pathlib import Path
from typing import Annotated

import typer

from lora_trainer.commands.failures import exit_with_code
from lora_trainer.errors import InvalidConfiguration


def resize(
    source: Annotated[Path, typer.Argument(help="Adapter file.")],
    target: Annotated[Path, typer.Argument(help="File that is written, in kohya's format. Must not exist.")],
    *,
    rank: Annotated[
        int | None, typer.Option("--rank", min=1, help="Rank of each module; with a share: at most.")
    ] = None,
    energy: Annotated[
        float | None,
        typer.Option("--energy", min=0.0, max=1.0, help="Share of each change's squares to keep, such as 0.99."),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option("--ratio", min=1.0, help="Keep singular values above the largest divided by this."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print every module.")] = False,
) -> None:
    """Give an adapter another rank by singular value decomposition, at the same strength."""
    # torch takes seconds to import; `lora --help`, `plan` and `validate` do without it.
    from lora_trainer.lora.formats import read_adapter, save_adapter  # noqa: PLC0415
    from lora_trainer.lora.lowrank import RankRule  # noqa: PLC0415
    from lora_trainer.lora.resize import resize_adapter  # noqa: PLC0415

    with exit_with_code():
        if rank is None and energy is None and ratio is None:
            raise InvalidConfiguration("say how far: --rank, --energy or --ratio", hint="")
        rule = RankRule(rank, energy, ratio)
        resized = resize_adapter(read_adapter(source), rule, name=source.name, out=target)
        save_adapter(target, resized.adapter)
    kept, modules = resized.kept_energy, resized.adapter.modules
    if verbose:
        for key, share in kept.items():
            typer.echo(f"{share:8.3%}  rank {modules[key].rank:4d}  {key}")
    worst = min(kept, key=lambda key: kept[key])
    ranks = [module.rank for module in modules.values()]
    typer.echo(f"{target}: {len(modules)} modules of rank {min(ranks)} to {max(ranks)}")
    typer.echo(
        f"kept {sum(kept.values()) / len(kept):.3%} of each change's squares; least {kept[worst]:.3%} in {worst}"
    )
