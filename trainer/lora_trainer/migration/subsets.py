"""A dataset definition of sd-scripts (`[general]`, `[[datasets]]`, `[[datasets.subsets]]`) as `dataset.subsets`.

A value is looked for in the subset, then its dataset, then `general`, then the arguments, then sd-scripts' defaults.
What the subsets agree on is written once, below `dataset`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from lora_trainer.migration.arguments import ARGUMENTS, Arguments, read_arguments
from lora_trainer.migration.draft import Draft, show
from lora_trainer.migration.locations import last_part, to_uri
from lora_trainer.migration.pictures import View, own_fields, size_fields
from lora_trainer.migration.unusable import UnusableSettings
from lora_trainer.migration.values import Kind, read_value

_Table = Mapping[str, Any]
_OWN = frozenset({"image_dir", "num_repeats", "is_reg", "class_tokens", "custom_attributes", "metadata_file"})
"""Keys of a subset that are no argument."""
_RENAMED = {"batch_size": "train_batch_size", "batch_size_per_device": "train_batch_size"}
_FACTS = frozenset({"subsets", "is_dreambooth", "num_train_images", "num_reg_images", "tag_frequency", "bucket_info",
                    "img_count"})  # fmt: skip
"""Keys that tell what was found, not what is wanted (`ss_datasets`)."""
_FOR_GOOD = frozenset({"captions.keepTokensSeparator", "captions.secondarySeparator", "captions.tokenWarmup",
                       "augmentation.faceCropRange"})  # fmt: skip
"""Fields that a subset can set, but not take back."""


@dataclass(frozen=True)
class _Folder:
    """One subset: where it lies, its captions and augmentation by their paths, and its other fields."""

    place: str
    own: dict[str, Any]
    fields: dict[str, Any]

    def beyond(self, shared: _Table) -> dict[str, Any]:
        """Its fields but the URI; captions and augmentation only where they differ from `shared`."""
        sections: dict[str, dict[str, Any]] = {}
        for path, value in self.own.items():
            if shared.get(path) != value:
                section, name = path.split(".")
                sections.setdefault(section, {})[name] = value
        return self.fields | sections


def translate_subsets(
    definition: _Table, arguments: Arguments, draft: Draft, *, dataset_uri: str | None
) -> tuple[str, ...]:
    """Sets `dataset`; returns the folders that are not here and so need `dataset_uri`.

    With it, each subset is the folder of the same name below that URI.
    """
    datasets, general = definition.get("datasets"), definition.get("general") or {}
    if not _are_tables(datasets) or not all(_are_tables(one.get("subsets")) for one in datasets):
        raise UnusableSettings("the dataset definition has no [[datasets]] with [[datasets.subsets]]; add them")
    if not isinstance(general, dict):
        raise UnusableSettings(f"general of the dataset definition is {show(general)}, but must be a table; change it")
    folders = [_read_folder((subset, one, general), arguments, draft) for one in datasets for subset in one["subsets"]]
    shared = _shared(folders)
    for path, value in shared.items():
        draft.put(f"dataset.{path}", value)
    _note_unknown(general, draft)
    _translate_sizes(datasets, general, arguments, draft)
    uris = [_uri_of(folder.place, dataset_uri) for folder in folders]
    subsets = [{"uri": uri, **folder.beyond(shared)} for uri, folder in zip(uris, folders, strict=True)]
    draft.put("dataset.subsets", subsets)
    return tuple(folder.place for uri, folder in zip(uris, folders, strict=True) if uri is None)


def _are_tables(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _uri_of(place: str, dataset_uri: str | None) -> str | None:
    return f"{dataset_uri.rstrip('/')}/{last_part(place)}" if dataset_uri else to_uri(place)


def _read_folder(tables: Sequence[_Table], arguments: Arguments, draft: Draft) -> _Folder:
    subset = tables[0]
    if not subset.get("image_dir"):
        raise UnusableSettings("a subset of the dataset definition has no image_dir; add it")
    view = _view([_arguments_in(table) for table in tables], arguments)
    _note_unknown(subset, draft)
    _note_special(subset, draft)
    if view("alpha_mask"):
        draft.put("dataset.mask", "Alpha")
    fields = {
        "repeats": _repeats(tables),
        "classTokens": _first("class_tokens", tables),
        "isRegularization": bool(subset.get("is_reg")) or None,
    }
    own = {"captions.prefix": "", "captions.suffix": "", **own_fields(view, draft)}
    return _Folder(str(subset["image_dir"]), own, {name: value for name, value in fields.items() if value is not None})


def _repeats(tables: Sequence[_Table]) -> int:
    value = _first("num_repeats", tables)
    try:
        return read_value(Kind.INTEGER, value) or 1
    except ValueError as error:
        raise UnusableSettings(
            f"num_repeats is '{show(value)}', but must be {Kind.INTEGER.value}; change it"
        ) from error


def _note_special(subset: _Table, draft: Draft) -> None:
    if subset.get("metadata_file"):
        reason = "write a metadata.jsonl beside the pictures (docs/dataset.md): file, caption, repeats"
        draft.leave("metadata_file", subset["metadata_file"], reason)
    attributes = subset.get("custom_attributes") or {}
    preserves = isinstance(attributes, dict) and attributes.get("diff_output_preservation")
    if preserves and subset.get("is_reg"):
        draft.put("dataset.regularization.target", "BaseModel")
    elif attributes:
        reason = "only diff_output_preservation of regularisation pictures has a counterpart"
        draft.leave("custom_attributes", attributes, reason)


def _note_unknown(table: _Table, draft: Draft) -> None:
    for name, value in table.items():
        if _RENAMED.get(name, name) not in ARGUMENTS and name not in _OWN | _FACTS:
            draft.leave(name, value, "no setting of a dataset definition that is known here")


def _first(name: str, tables: Sequence[_Table]) -> Any:
    return next((table[name] for table in tables if table.get(name) is not None), None)


def _arguments_in(table: _Table) -> _Table:
    renamed = {_RENAMED.get(name, name): value for name, value in table.items() if name not in _OWN | _FACTS}
    return read_arguments(renamed, complete=False)[0].given


def _view(tables: Sequence[_Table], arguments: Arguments) -> View:
    def value_of(name: str) -> Any:
        value = _first(name, tables)
        return arguments[name] if value is None else value

    return value_of


def _shared(folders: Sequence[_Folder]) -> dict[str, Any]:
    """What is written below `dataset`: the first subset's settings, but none that another one could not take back."""
    return {
        path: value
        for path, value in folders[0].own.items()
        if path not in _FOR_GOOD or all(path in folder.own for folder in folders)
    }


def _translate_sizes(datasets: Sequence[_Table], general: _Table, arguments: Arguments, draft: Draft) -> None:
    """Size, buckets and batch of the first dataset; where another one differs, it is noted."""
    views = [_view([_arguments_in(one), _arguments_in(general)], arguments) for one in datasets]
    first = size_fields(views[0], draft)
    for path, value in first.items():
        draft.put(f"dataset.{path}", value)
    draft.put("training.batchSize", views[0]("train_batch_size"))
    for index, (one, view) in enumerate(zip(datasets, views, strict=True)):
        _note_unknown(one, draft)
        if index:
            _note_difference(f"datasets[{index}]", first, size_fields(view, draft), draft)
            if view("train_batch_size") != views[0]("train_batch_size"):
                reason = "all subsets share training.batchSize"
                draft.leave(f"datasets[{index}].batch_size", view("train_batch_size"), reason)


def _note_difference(name: str, first: _Table, other: _Table, draft: Draft) -> None:
    for path in sorted(path for path in {*first, *other} if first.get(path) != other.get(path)):
        draft.leave(f"{name} {path}", other.get(path), "all subsets are trained at the size of the first dataset")
