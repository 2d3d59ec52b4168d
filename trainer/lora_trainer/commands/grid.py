"""`lora grid`: adapters × weights as one picture, of any adapter files and at any time."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from lora_api.evaluation_spec import Grid
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.options import check_local
from lora_trainer.commands.presets import PresetsFile, read_presets
from lora_trainer.commands.stores import Anonymous, Endpoint, Region, S3Options, open_place, uri_of
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from lora_trainer.lora.block_weights import BlockVector, parse_block_weights

if TYPE_CHECKING:
    # torch and boto3 take seconds to import; `lora --help` does without them.
    from lora_trainer.adapter_grid import AdapterGrid, Row
    from lora_trainer.families.opening import ModelFiles
    from lora_trainer.grid.axes import Axes
    from lora_trainer.samples import Picture

_WEIGHTS = ",".join(f"{weight:g}" for weight in Grid().weights)
_OPTIONS = {"weights": "weights", "epochs": "epochs", "seeds": "seed", "samplers": "sampler", "guidances": "guidance"}


def grid(  # noqa: PLR0913
    adapters: Annotated[list[str], typer.Argument(help="Adapter files, folders with such, or runs (folder or URI).")],
    *,
    base: Annotated[str, typer.Option("--base", help="Base model: a path, hf://, s3://.")],
    prompt: Annotated[list[str], typer.Option("--prompt", "-p", help="What to draw; several make several panels.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures; what it holds is kept.")],
    negative: Annotated[str, typer.Option("--negative", help="What not to draw.")] = "",
    weights: Annotated[str, typer.Option("--weights", "-w", help="Columns: 0.5,0.75,1")] = _WEIGHTS,
    epochs: Annotated[str, typer.Option("--epochs", help="Rows, such as 1,5,10. Default: all.")] = "",
    block_weights: Annotated[
        list[str] | None, typer.Option("--block-weights", "-b", help="A preset such as INALL, or HINA4:1,0.25,…")
    ] = None,
    presets: PresetsFile = None,
    seeds: Annotated[str, typer.Option("--seed", help="Seeds: 42 or 1,2,3")] = "42",
    samplers: Annotated[str, typer.Option("--sampler", help="Samplers: euler_a, dpmpp_2m_karras, …")] = "euler_a",
    guidances: Annotated[str, typer.Option("--guidance", help="CFG scales: 7 or 5,7,9")] = "7",
    steps: Annotated[int, typer.Option("--steps", min=1, max=150, help="Denoising steps.")] = 28,
    width: Annotated[int | None, typer.Option("--width", help="Width in px. Default: the model's.")] = None,
    height: Annotated[int | None, typer.Option("--height", help="Height in px. Default: the model's.")] = None,
    clip_skip: Annotated[int, typer.Option("--clip-skip", min=1, max=12, help="As the WebUI's Clip skip.")] = 1,
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Draw adapters at several weights, as the WebUI's X/Y/Z plot does. Started again, it goes on where it stopped."""
    options = S3Options(endpoint, region, anonymous)
    with exit_with_code(), tempfile.TemporaryDirectory() as folder:
        check_local(out, "--out")
        wanted = _read_grid(weights=weights, epochs=epochs, seeds=seeds, samplers=samplers, guidances=guidances)
        # torch takes seconds to import; `lora --help`, `plan` and `validate` do without it.
        from lora_trainer.adapter_grid import AdapterGrid  # noqa: PLC0415
        from lora_trainer.families.opening import side_px_of  # noqa: PLC0415
        from lora_trainer.grid.axes import make_axes  # noqa: PLC0415

        rows = _rows(_fetch(tuple(dict.fromkeys(adapters)), options, Path(folder)), wanted)
        files = _open_base(base, options)
        vectors = _vectors(block_weights or (), presets, files)
        side = side_px_of(files)
        size = (width or side, height or side)
        pictures = [_picture(text, negative, size, steps=steps, clip_skip=clip_skip) for text in prompt]
        axes = make_axes([row.adapter for row in rows], wanted, pictures, vectors)
        drawer = AdapterGrid(base.rstrip("/").rpartition("/")[2], files, rows)
        drawer.check(pictures)
        _draw(drawer, axes, out)
    typer.echo(f"{out / 'grid.png'}: {len(axes)} pictures")


def _read_grid(**lists: str) -> Grid:
    """The lists of the options, judged as `spec.evaluation.grid` is."""
    document = {name: [_value(word) for word in text.split(",") if word.strip()] for name, text in lists.items()}
    try:
        return Grid.model_validate_json(json.dumps(document))
    except ValidationError as error:
        problem = error.errors()[0]
        option = _OPTIONS.get(str(problem["loc"][0]), "weights") if problem["loc"] else "weights"
        raise InvalidConfiguration(f"--{option} is {problem['input']!r}: {problem['msg']}", hint="") from error


def _value(word: str) -> float | int | str:
    """A number where it is one."""
    text = word.strip()
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _fetch(places: Sequence[str], options: S3Options, folder: Path) -> dict[Path, str]:
    """Local files, with the place of each: what is on this machine as it is, adapters of runs in `folder`."""
    files: dict[Path, str] = {}
    for number, place in enumerate(places):
        path = Path(place)
        if path.is_file() and path.suffix == ".safetensors":
            files[path] = str(path.absolute().parent)
        elif path.is_dir() and not (path / "manifest.json").is_file():
            files |= {file: str(path.absolute()) for file in sorted(path.glob("*.safetensors"))}
        else:
            files |= dict.fromkeys(_of_run(place, options, folder / str(number)), uri_of(place))
    if not files:
        raise InvalidConfiguration(f"no .safetensors file lies in {', '.join(places)}; name some", hint="")
    return files


def _of_run(place: str, options: S3Options, folder: Path) -> list[Path]:
    """The adapters of a run's epochs."""
    from lora_trainer.results import epoch_adapters, find_manifest  # noqa: PLC0415  (boto3)

    store = open_place(place, options, field="ADAPTERS")
    manifest = find_manifest(store)
    if manifest is None:
        raise InvalidConfiguration(
            f"{place} is no .safetensors file, no folder with such and no completed run; correct it", hint=""
        )
    fetched = [folder / Path(file.path).name for file in epoch_adapters(manifest).values()]
    for file, target in zip(epoch_adapters(manifest).values(), fetched, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(file.path, target, sha256=file.sha256)
    return fetched


def _rows(files: Mapping[Path, str], grid: Grid) -> "list[Row]":
    """The rows, without epochs that are not asked for."""
    from lora_trainer.adapter_grid import rows_of  # noqa: PLC0415  (torch)

    rows = rows_of(files)
    known = {row.epoch for row in rows}
    absent = [epoch for epoch in grid.epochs if epoch not in known]
    if absent:
        raise InvalidConfiguration(
            f"--epochs names {', '.join(map(str, absent))}, but the files are {', '.join(r.file.name for r in rows)}; "
            "name epochs of files such as name-000003.safetensors",
            hint="",
        )
    return [row for row in rows if not grid.epochs or row.epoch in grid.epochs]


def _open_base(base: str, options: S3Options) -> "ModelFiles":
    from lora_trainer.families.opening import FILES, open_model  # noqa: PLC0415
    from lora_trainer.storage import Source, fetch  # noqa: PLC0415  (boto3)

    connection, uri = options.connection(), uri_of(base)
    source = Source(uri, "--base", BaseModelUnavailable, FILES)
    local = fetch(source, connection.folder_for(uri), connection, on_bytes=lambda count: None)
    try:
        return open_model(local)
    except BaseModelUnavailable as error:
        # Everywhere else a field of the spec names the model.
        raise BaseModelUnavailable(str(error).replace("spec.baseModel.uri", "--base"), hint="") from error


def _vectors(texts: Sequence[str], presets: Path | None, files: "ModelFiles") -> list[BlockVector]:
    known = read_presets(presets)
    return [parse_block_weights(text, files.family, presets=known, field="--block-weights") for text in texts]


def _picture(prompt: str, negative: str, size: tuple[int, int], *, steps: int, clip_skip: int) -> "Picture":
    """What to draw; seed, sampler and guidance are those of the panels."""
    from lora_trainer.samples import Picture  # noqa: PLC0415

    width, height = size
    for option, side in (("--width", width), ("--height", height)):
        if side % 8 or not 64 <= side <= 4096:
            raise InvalidConfiguration(f"{option} is {side}; give a multiple of 8 between 64 and 4096", hint="")
    return Picture(prompt, negative, width, height, steps=steps, guidance=7.0, seed=42, clip_skip=clip_skip)


def _draw(drawer: "AdapterGrid", axes: "Axes", out: Path) -> None:
    from lora_trainer.grid.pictures import Listener  # noqa: PLC0415

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("pictures", total=len(axes))
        drawer.draw(axes, out, Listener(on_progress=lambda done, total: bar.update(task, completed=done)))
