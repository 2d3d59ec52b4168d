"""Writes the report of a run, or of several side by side, into one HTML file. Used by `evaluate` and the commands."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lora_api.run_manifest import EvaluationManifest, ManifestFile
from lora_trainer.report.boards import Board, block_board, sample_board
from lora_trainer.report.charts import Marks, draw_chart
from lora_trainer.report.page import render
from lora_trainer.report.pictures import Embedded, embed
from lora_trainer.report.record import RunReader, RunRecord
from lora_trainer.report.series import (
    Series,
    drift_series,
    excess_series,
    loss_series,
    measure_series,
    rate_series,
)
from lora_trainer.report.settings import compared, settings_of
from lora_trainer.report.usage import best_path, usage_of
from lora_trainer.storage import Store
from lora_trainer.storage.disk_errors import disk_errors

SAMPLES_BYTES = 6_000_000
_SHEET_BYTES = 5_000_000
_LARGEST_SHEET = 6000
_SHEETS = ("evaluation/grid.webp", "evaluation/grid.png")
_MOST_STAGES = 60
_MOST_TAGS = 30


@dataclass(frozen=True)
class Chart:
    """A chart and its words."""

    key: str
    """Its title among the words; `<key>_help` explains it."""
    x_key: str
    drawing: Markup
    series: tuple[Series, ...]
    marks: Marks

    @property
    def rows(self) -> list[tuple[float, list[tuple[float, float | None] | None]]]:
        """Each x with the values of all curves there, and their errors."""
        tables = [_table(one) for one in self.series]
        return [(x, [table.get(x) for table in tables]) for x in sorted({x for table in tables for x in table})]


@dataclass(frozen=True)
class Stage:
    """What an epoch is good for."""

    epoch: int
    key: str
    """`stage_early`, `stage_usable`, `stage_best` or `stage_late`."""


def write_report(
    store: Store, path: Path, *, evaluation: EvaluationManifest | None = None, links: str | None = "../"
) -> None:
    """Writes the report of the run in `store` to `path`.

    Args:
        store: the run's output.
        path: the HTML file; it is replaced only when the new one is complete.
        evaluation: what the evaluation found, if its manifest is not stored yet.
        links: from the report to the run's folder, for links to files beside it; None: no links.

    Raises:
        InvalidConfiguration: no run lies there.
        AccessDenied, StorageUnavailable: as the store and the disk answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        reader = RunReader(store, Path(folder))
        run = reader.read(evaluation)
        page = render("report.html", _report_values(run, reader, links))
    _write(path, page)


def write_comparison(stores: Sequence[Store], path: Path) -> None:
    """Writes the runs in `stores` side by side to `path`. Raises as `write_report`."""
    with tempfile.TemporaryDirectory() as folder:
        readers = [RunReader(store, Path(folder, str(number))) for number, store in enumerate(stores)]
        runs = [reader.read() for reader in readers]
        share = SAMPLES_BYTES // len(runs)
        boards = [
            sample_board(run, reader, size_bytes=share, epochs_only=True)
            for run, reader in zip(runs, readers, strict=True)
        ]
        page = render("compare.html", _comparison_values(runs, boards))
    _write(path, page)


def _report_values(run: RunRecord, reader: RunReader, links: str | None) -> dict[str, Any]:
    board, blocks = sample_board(run, reader, size_bytes=SAMPLES_BYTES), block_board(run, reader)
    sheet_file = _first(run, _SHEETS)
    settings = settings_of(run.settings)
    adapters = run.of_kind("adapter")
    return {
        "run": run,
        "links": links,
        "ids": count(),
        "stages": stages_of(run),
        "charts": _charts(run),
        "board": board,
        "sheet": _sheet(sheet_file, reader),
        "sheet_path": sheet_file.path if sheet_file else None,
        "blocks": blocks,
        "usage": usage_of(run),
        "best_path": best_path(run),
        "tags": list(run.tags.items())[:_MOST_TAGS],
        "settings": settings,
        "changed": [one for one in settings if one.is_changed],
        "adapters": adapters,
        "others": [file for file in run.files.values() if file.kind != "adapter"],
        # Those that were found while pictures were embedded, too.
        "problems": reader.problems,
    }


def _comparison_values(runs: Sequence[RunRecord], boards: Sequence[Board | None]) -> dict[str, Any]:
    names = _distinct([run.name for run in runs])
    return {
        "runs": list(zip(names, runs, strict=True)),
        "ids": count(),
        "charts": _compared_charts(names, runs),
        "settings": compared([run.settings for run in runs]),
        "boards": [(name, board) for name, board in zip(names, boards, strict=True) if board is not None],
        "bests": {name: run.best_epoch for name, run in zip(names, runs, strict=True)},
        "epochs": sorted({moment.epoch for board in boards if board for moment in board.moments}),
        "prompts": max((len(board.rows) for board in boards if board), default=0),
    }


def stages_of(run: RunRecord) -> tuple[Stage, ...]:
    """What each epoch is good for, as far as it is known; none if it is not, or there are too many to be shown."""
    status = run.evaluation
    if status is None or status.best_epoch is None or len(run.epochs) > _MOST_STAGES:
        return ()
    first, last = status.usable_from or status.best_epoch, status.usable_to or status.best_epoch
    over = status.overfit_from

    def stage(epoch: int) -> str:
        if epoch == status.best_epoch:
            return "stage_best"
        if epoch < first:
            return "stage_early"
        return "stage_late" if epoch > last or (over is not None and epoch >= over) else "stage_usable"

    return tuple(Stage(epoch, stage(epoch)) for epoch in run.epochs)


def _charts(run: RunRecord) -> list[Chart]:
    by_epoch, by_step = _marks(run)
    best = 0 if run.evaluation is None else run.evaluation.best_epoch or 0
    return [
        *_chart("chart_measures", measure_series(run.measures), "epoch", by_epoch, level=1.0),
        *_chart("chart_excess", excess_series(run.measures, best), "epoch", by_epoch),
        *_chart("chart_training", loss_series(run.steps), "step", by_step),
        *_chart("chart_drift", drift_series(run.measures), "epoch", by_epoch),
        *_chart("chart_rate", rate_series(run.steps), "step", by_step),
    ]


def _marks(run: RunRecord) -> tuple[Marks, Marks]:
    """Best epoch, usable and over-trained ones on an axis of epochs, and on one of steps."""
    status = run.evaluation
    if status is None or status.best_epoch is None:
        return Marks(), Marks()
    steps = {file.epoch: file.step for file in run.of_kind("adapter") if file.epoch and file.step}
    usable, late = _span(status.usable_from, status.usable_to), _span(status.overfit_from, max(run.epochs, default=0))
    if usable and late and usable[0] < late[0]:
        usable = (usable[0], min(usable[1], late[0]))
    best = steps.get(status.best_epoch)
    return (
        Marks(status.best_epoch, usable, late),
        Marks(best, _in_steps(usable, steps), _in_steps(late, steps)),
    )


def _span(first: int | None, last: int | None) -> tuple[int, int] | None:
    return None if first is None or last is None or last < first else (first, last)


def _in_steps(epochs: tuple[int, int] | None, steps: Mapping[int, int]) -> tuple[int, int] | None:
    return None if epochs is None else _span(steps.get(epochs[0]), steps.get(epochs[1]))


def _chart(
    key: str, series: tuple[Series, ...], x_key: str, marks: Marks, *, level: float | None = None
) -> list[Chart]:
    if not series:
        return []
    marks = replace(marks, level=level)
    return [Chart(key, x_key, draw_chart(series, x_word=x_key, marks=marks), series, marks)]


def _table(series: Series) -> dict[float, tuple[float, float | None]]:
    errors = series.errors or (None,) * len(series.points)
    return {x: (y, error) for (x, y), error in zip(series.points, errors, strict=True)}


def _compared_charts(names: Sequence[str], runs: Sequence[RunRecord]) -> list[Chart]:
    """The main curve of each run over each other's."""
    measured = [(name, measure_series(run.measures)) for name, run in zip(names, runs, strict=True)]
    losses = [(name, loss_series(run.steps)) for name, run in zip(names, runs, strict=True)]
    drifts = [(name, drift_series(run.measures)) for name, run in zip(names, runs, strict=True)]
    held_out = tuple(
        Series(name, one.points, one.errors) for name, found in measured for one in found if one.name == "line_held_out"
    )
    smooth = tuple(Series(name, found[-1].points) for name, found in losses if found)
    drift = tuple(Series(name, found[-1].points) for name, found in drifts if found)
    return [
        *_chart("chart_measures", held_out, "epoch", Marks(), level=1.0),
        *_chart("chart_training", smooth, "step", Marks()),
        *_chart("chart_drift", drift, "epoch", Marks()),
    ]


def _first(run: RunRecord, paths: Sequence[str]) -> ManifestFile | None:
    return next((run.files[path] for path in paths if path in run.files), None)


def _sheet(file: ManifestFile | None, reader: RunReader) -> Embedded | None:
    path = reader.fetch(file)
    return None if path is None else embed(path, size_bytes=_SHEET_BYTES, longest=_LARGEST_SHEET)


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where one stands twice."""
    return [
        f"{name} ({names[: place + 1].count(name)})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _write(path: Path, page: str) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
