"""From settings of sd-scripts to the fields of a LoraTraining: section by section, then where things lie."""

from typing import Any

from lora_trainer.migration.arguments import ARGUMENTS, Arguments, read_arguments
from lora_trainer.migration.draft import Draft
from lora_trainer.migration.locations import to_uri
from lora_trainer.migration.model import translate_model
from lora_trainer.migration.network import translate_network
from lora_trainer.migration.optimizer import translate_optimizer
from lora_trainer.migration.output import object_name, translate_output
from lora_trainer.migration.pictures import own_fields, size_fields, translate_caches
from lora_trainer.migration.source import Choices, Source
from lora_trainer.migration.subsets import translate_subsets
from lora_trainer.migration.training import translate_training
from lora_trainer.migration.unusable import UnusableSettings

_HARMLESS = frozenset(
    {"no_half_vae", "save_state", "sample_at_first", "config_file", "cache_text_encoder_outputs", "dynamo_backend"}
)
"""Arguments without a field whose effect is there anyway, or that have none by themselves, so that nothing is lost."""


def translate(source: Source, choices: Choices) -> tuple[str, Draft]:
    """The object's name, and the fields of its spec with remarks and what was left over.

    Raises:
        UnusableSettings: a value makes no sense, or places are needed that the file does not tell.
    """
    arguments, unknown = read_arguments(source.raw, complete=source.complete)
    draft = Draft(dict(source.fields), leftovers=list(source.leftovers))
    _take_over(arguments, draft)
    translate_model(arguments, draft, is_sdxl=source.is_sdxl)
    translate_network(arguments, draft, is_sdxl=source.is_sdxl)
    translate_optimizer(arguments, draft)
    translate_training(arguments, draft)
    translate_output(arguments, draft)
    _translate_samples(source, arguments, draft)
    name = object_name(choices.name, arguments["output_name"], source.name)
    _translate_places(source, choices, arguments, name, draft)
    translate_caches(arguments, draft)
    draft.fields |= source.fields
    _leave_the_rest(arguments, unknown, draft)
    return name, draft


def _take_over(arguments: Arguments, draft: Draft) -> None:
    """Arguments whose value is the field's value."""
    for name, argument in ARGUMENTS.items():
        if argument.as_is:
            draft.put(argument.fields[0], arguments[name])


def _leave_the_rest(arguments: Arguments, unknown: dict[str, object], draft: Draft) -> None:
    for name, value in arguments.given.items():
        argument = ARGUMENTS[name]
        if argument.reason and value not in (argument.default, False) and name not in _HARMLESS:
            draft.leave(name, value, argument.reason)
    for name, value in unknown.items():
        draft.leave(name, value, "no setting of sd-scripts' LoRA training that is known here")


def _translate_samples(source: Source, arguments: Arguments, draft: Draft) -> None:
    if source.prompts:
        draft.put("samples.prompts", [dict(prompt) for prompt in source.prompts])
    elif source.prompts is None and arguments["sample_prompts"]:
        reason = "the file is not here; write its prompts into samples.prompts"
        draft.leave("sample_prompts", arguments["sample_prompts"], reason)
    every_steps = arguments["sample_every_n_steps"]
    if every_steps and arguments["sample_every_n_epochs"]:
        draft.leave("sample_every_n_steps", every_steps, "sample_every_n_epochs goes before it in sd-scripts")
    else:
        draft.put("samples.everySteps", every_steps or None, "pictures are drawn after every epoch as well")


def _translate_places(source: Source, choices: Choices, arguments: Arguments, name: str, draft: Draft) -> None:
    """URIs of model, pictures and output: what the user says, else what lies here.

    Raises:
        UnusableSettings: with every option that is needed.
    """
    needed = []
    base = _place(choices.base_model, arguments["pretrained_model_name_or_path"], may_be_hub=True)
    if base is None:
        needed.append(_need("--base-model", "the base model", arguments["pretrained_model_name_or_path"]))
    draft.put("baseModel.uri", base)
    missing = _translate_dataset(source, choices, arguments, draft)
    needed += [_need("--dataset", "the pictures", place) for place in missing[:1]]
    output = choices.output or _output_folder(arguments["output_dir"], name)
    if output is None:
        needed.append(_need("--output", "the folder for the adapters", arguments["output_dir"]))
    draft.put("output.uri", output)
    if needed:
        raise UnusableSettings(
            "the file does not say where things lie that can be reached:\n" + "\n".join(needed),
            hint="Add the options; URIs are s3://…, pvc://…, file:///…, and hf://owner/repo for the base model.",
        )


def _translate_dataset(source: Source, choices: Choices, arguments: Arguments, draft: Draft) -> tuple[Any, ...]:
    """Sets everything of `dataset`; returns the folders that are not here."""
    if source.dataset_config is not None:
        return translate_subsets(source.dataset_config, arguments, draft, dataset_uri=choices.dataset)
    view = arguments.__getitem__
    for path, value in (size_fields(view, draft) | own_fields(view, draft)).items():
        draft.put(f"dataset.{path}", value)
    folder = arguments["train_data_dir"]
    uri = _place(choices.dataset, folder)
    draft.put("dataset.uri", uri)
    _translate_regularization(arguments["reg_data_dir"], draft)
    return () if uri else (folder,)


def _translate_regularization(folder: str | None, draft: Draft) -> None:
    if folder is None:
        return
    uri = to_uri(folder)
    if uri is None:
        reason = "copy its folders to reg/ beside the concept folders, or set dataset.regularization.uri"
        draft.leave("reg_data_dir", folder, reason)
    draft.put("dataset.regularization.uri", uri)


def _place(chosen: str | None, place: str | None, *, may_be_hub: bool = False) -> str | None:
    return chosen or (to_uri(place, may_be_hub=may_be_hub) if place else None)


def _output_folder(folder: str | None, name: str) -> str | None:
    uri = to_uri(folder) if folder else None
    return uri and f"{uri.rstrip('/')}/{name}"


def _need(option: str, what: str, place: str | None) -> str:
    said = f"the file says {place}, which does not lie here" if place else "the file does not say it"
    return f"- {option} URI: {what} ({said})"
