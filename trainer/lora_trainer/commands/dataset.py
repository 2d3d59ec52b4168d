"""`lora dataset`: work on the pictures of a dataset."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lora_api.dataset_spec import Dataset, Subset
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.stores import Anonymous, Endpoint, Region, S3Options, uri_of
from lora_trainer.curation.boxes import read_boxes
from lora_trainer.curation.crops import Crop, Cut, Find, Outcome, Skipped, crop_folders
from lora_trainer.curation.regions import PARTS, Part
from lora_trainer.data.folders import ConceptFolder, concept_of, find_folders, name_of, subset_folders
from lora_trainer.data.images import is_image
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration, InvalidDataset

if TYPE_CHECKING:
    # torch takes seconds to import; other commands do without it.
    from lora_trainer.curation.detector import Detector

dataset = typer.Typer(help="Work on the pictures of a dataset.", no_args_is_help=True)

_FOLDERS = {"face": "{repeats}_{text} face", "body": "{repeats}_{text} body", "full": "{repeats}_{text} full body"}
_WORDS = {"face": "face", "body": "body", "full": "full body"}
_MARGINS = {"face": "0.4", "body": "0.05", "full": "0.05"}
_LABELS = {"face": "face", "person": "person"}
_SHOWN = 20

Detectors = Annotated[
    list[str] | None,
    typer.Option("--detector", help="Object detection model: hf://, s3:// or a folder. Twice for two models."),
]
Parts = Annotated[
    list[str] | None, typer.Option("--part", help="face, body (without the face) or full; repeatable. Default: all.")
]
Into = Annotated[
    list[str] | None,
    typer.Option("--into", metavar="PART=FOLDER", help="Folder of a part, such as 'face=20_hina face'."),
]
Words = Annotated[
    list[str] | None, typer.Option("--words", metavar="PART=WORDS", help="What captions of a part end with.")
]
Margins = Annotated[
    list[str] | None, typer.Option("--margin", metavar="PART=SHARE", help="Share of its box added at each side.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=LABEL", help="What the models call a face or person, as face=head."),
]


@dataset.callback()
def _group() -> None:
    """Work on the pictures of a dataset."""


# Each option of the command line is a parameter.
@dataset.command()
def crop(  # noqa: PLR0913
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of `10_concept` folders, or one of them.")],
    *,
    boxes: Annotated[Path | None, typer.Option("--boxes", help="JSON: picture → boxes of face and person.")] = None,
    detectors: Detectors = None,
    parts: Parts = None,
    into: Into = None,
    words: Words = None,
    margins: Margins = None,
    min_px: Annotated[int, typer.Option("--min-px", min=16, help="Shortest side of a crop that is kept.")] = 256,
    extension: Annotated[str, typer.Option("--extension", help="Extension of caption files.")] = ".txt",
    labels: Labels = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Lowest score of what models find.")] = 0.5,
    device: Annotated[str, typer.Option("--device", help="Where models run: cpu or cuda.")] = "cpu",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written; write nothing.")] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Cut faces, bodies without face and full figures into concept folders of their own, captions included."""
    with exit_with_code():
        root, folders = _folders(folder)
        cut = _cut(_wanted(parts or PARTS), into or (), words or (), margins or (), min_px=min_px, extension=extension)
        if bool(boxes) == bool(detectors):
            raise InvalidConfiguration(
                "give either --boxes or --detector", hint="They say where faces and persons are."
            )
        if boxes is not None:
            find = _given(boxes, folders)
        else:
            loaded = _load(detectors or (), device, S3Options(endpoint, region, anonymous))
            find = _finder(loaded, _named(labels or (), _LABELS, "--label"), threshold)
        with Console(stderr=True).status("Cutting pictures"):
            outcomes = list(crop_folders(root, folders, cut, find, dry_run=dry_run))
        _print(Console(), root, outcomes, dry_run=dry_run)


def _folders(folder: Path) -> tuple[Path, list[ConceptFolder]]:
    """Where folders of crops go, and the folders of pictures. Raises InvalidDataset."""
    if not folder.is_dir():
        raise InvalidDataset(f"{folder} is no folder; correct the path", hint="")
    root = folder.resolve()
    concept = concept_of(root.name)
    uri = f"file://{root}"
    if concept is not None and any(is_image(path) for path in root.iterdir()):
        subset = Subset(uri=uri, repeats=concept[0], class_tokens=concept[1])
        found, problems = subset_folders([root], Dataset(subsets=(subset,)))
        root = root.parent
    else:
        found, problems = find_folders(root, Dataset(uri=uri))
    if problems:
        raise InvalidDataset.listing(problems)
    if all(one.is_regularization for one in found):
        raise InvalidDataset(f"{folder} holds no folders such as `10_{name_of(uri)}`; put its pictures into one")
    return root, found


def _wanted(parts: Sequence[str]) -> list[Part]:
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise InvalidConfiguration(f"--part is {unknown[0]}; use {', '.join(PARTS)}", hint="")
    return [part for part in PARTS if part in parts]


def _cut(
    parts: Sequence[Part],
    into: Sequence[str],
    words: Sequence[str],
    margins: Sequence[str],
    *,
    min_px: int,
    extension: str,
) -> Cut:
    """Raises InvalidConfiguration."""
    folders, said = _named(into, _FOLDERS, "--into"), _named(words, _WORDS, "--words")
    shares = {name: _share(name, text) for name, text in _named(margins, _MARGINS, "--margin").items()}
    return Cut(
        folders={part: folders[part] for part in parts},
        words={part: said[part].strip() for part in parts},
        margins={part: shares[part] for part in parts},
        min_px=min_px,
        extension=extension,
    )


def _named(values: Sequence[str], defaults: Mapping[str, str], option: str) -> dict[str, str]:
    """`name=value` over the defaults. Raises InvalidConfiguration."""
    found = dict(defaults)
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or name not in defaults:
            raise InvalidConfiguration(
                f"{option} is {value!r}; write {' or '.join(f'{key}=…' for key in defaults)}", hint=""
            )
        found[name] = text
    return found


def _share(name: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 10:
        raise InvalidConfiguration(f"--margin {name}={text} is no share of 0 to 10; write one, such as 0.4", hint="")
    return share


def _given(boxes: Path, folders: Iterable[ConceptFolder]) -> Find:
    """Boxes of a file. Raises InvalidConfiguration for pictures that are not there."""
    people = read_boxes(boxes)
    known = {folder.prefix + path.name for folder in folders for path in folder.files if is_image(path)}
    strange = sorted(set(people) - known)
    if strange:
        raise InvalidConfiguration(
            f"{boxes} names {len(strange)} pictures that are not there, such as {strange[0]}",
            hint=f"Write names as {min(known, default='10_concept/1.png')}.",
        )
    return lambda key, image: people.get(key)


def _load(models: Sequence[str], device: str, options: S3Options) -> "list[Detector]":
    """Fetches and loads detectors. Raises as these say."""
    import torch  # noqa: PLC0415  (takes seconds)

    from lora_trainer.curation.detector import FILES, load_detector  # noqa: PLC0415  (torch)
    from lora_trainer.storage import Source, fetch  # noqa: PLC0415  (boto3)

    try:
        where = torch.empty(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        problem = str(error).splitlines()[0]
        raise InvalidConfiguration(f"--device {device} cannot be used: {problem}; use cuda or cpu", hint="") from error
    loaded = []
    for model in models:
        uri, connection = uri_of(model), options.connection()
        source = Source(uri, "--detector", BaseModelUnavailable, FILES)
        local = fetch(source, connection.folder_for(uri), connection, on_bytes=lambda _: None)
        loaded.append(load_detector(local, where, field=f"--detector {model}"))
    return loaded


def _finder(detectors: "list[Detector]", labels: Mapping[str, str], threshold: float) -> Find:
    from lora_trainer.curation.detector import Sought, check_labels, find_person  # noqa: PLC0415  (torch)

    sought = Sought(labels["face"], labels["person"], threshold)
    check_labels(detectors, sought)
    return lambda key, image: find_person(image, detectors, sought)


def _print(console: Console, root: Path, outcomes: Sequence[Outcome], *, dry_run: bool) -> None:
    crops = [outcome for outcome in outcomes if isinstance(outcome, Crop)]
    skipped = [outcome for outcome in outcomes if isinstance(outcome, Skipped)]
    if crops:
        counts = Counter((crop.part, crop.target.parent.relative_to(root).as_posix()) for crop in crops)
        table = Table("Part", "Folder")
        table.add_column("Crops", justify="right")
        for (part, folder), number in counts.items():
            table.add_row(part, Text(folder), str(number))
        console.print(table)
    for one in crops if dry_run else ():
        target = one.target.relative_to(root).as_posix()
        console.print(Text(f"{one.picture} {list(one.box)} → {target}"), soft_wrap=True)
    _print_skipped(console, skipped)
    written = "would be written" if dry_run else "written"
    console.print(f"{len(crops)} crops {written}, {len(skipped)} left out.")


def _print_skipped(console: Console, skipped: Sequence[Skipped]) -> None:
    """One line for each reason."""
    pictures: dict[str, list[str]] = {}
    for left in skipped:
        pictures.setdefault(left.why + (f" ({left.part})" if left.part else ""), []).append(left.picture)
    for why, names in list(pictures.items())[:_SHOWN]:
        who = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more:"
        console.print(Text(f"{who} {why}"), soft_wrap=True)
    if len(pictures) > _SHOWN:
        console.print(f"and {len(pictures) - _SHOWN} more reasons")
