"""Every setting that cannot work is refused before any download, by a message that names the field and the cure."""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from lora_api import InvalidTraining, parse_training
from lora_api.base import ApiModel
from lora_api.spec import LoraTrainingSpec
from lora_trainer.checks import check_training
from lora_trainer.errors import InvalidConfiguration
from tests.support import definition
from tests.support.documents import make_document
from tests.support.wrong_dataset_settings import DATASET
from tests.support.wrong_run_settings import CLUSTER, OUTPUT, TRAINING
from tests.support.wrong_settings import ARGUMENTS, BASE_MODEL, NETWORK, OPTIMIZER, Wrong

SECTIONS = {
    "base model": BASE_MODEL,
    "dataset": DATASET,
    "network": NETWORK,
    "optimizer": OPTIMIZER,
    "arguments": ARGUMENTS,
    "training": TRAINING,
    "output": OUTPUT,
    "cluster": CLUSTER,
}
CASES = {f"{section}: {name}": wrong for section, table in SECTIONS.items() for name, wrong in table.items()}


def document_of(wrong: Wrong) -> dict[str, Any]:
    return without_nulls(make_document(*wrong.changes.items()))


def without_nulls(document: dict[str, Any]) -> dict[str, Any]:
    """What the API server stores: a field set to null is no field."""
    return {
        name: without_nulls(value) if isinstance(value, dict) else value
        for name, value in document.items()
        if value is not None
    }


@functools.cache
def said_by_python(name: str) -> str:
    try:
        check_training(parse_training(document_of(CASES[name])))
    except (InvalidTraining, InvalidConfiguration) as error:
        return str(error)
    return ""


@functools.cache
def said_by_server(name: str) -> str:
    return "\n".join(definition.refusals(document_of(CASES[name])))


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_by_a_message_that_names_field_and_cure(name: str) -> None:
    said = said_by_python(name)

    assert CASES[name].field in said
    assert CASES[name].cure in said


@pytest.mark.parametrize("name", [name for name, wrong in CASES.items() if not wrong.only_python])
def test_the_api_server_refuses_it_as_well(name: str) -> None:
    assert said_by_server(name)


def test_there_are_two_hundred_and_no_two_are_the_same() -> None:
    assert len(CASES) >= 200
    assert len({repr(wrong.changes) for wrong in CASES.values()}) == len(CASES)


def models_in(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[ApiModel]]:
    if model in seen:
        return
    seen.add(model)
    if issubclass(model, ApiModel):
        yield model
    for field in model.model_fields.values():
        for found in _classes_in(field.annotation):
            yield from models_in(found, seen)


def _classes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _classes_in(argument)


RULES = sorted({rule.message for model in models_in(LoraTrainingSpec, set()) for rule in model.rules})


def test_every_rule_is_broken_by_some_setting_in_python_and_on_the_server() -> None:
    in_python = "\n".join(said_by_python(name) for name in CASES)
    on_server = "\n".join(said_by_server(name) for name in CASES)

    assert [message for message in RULES if message not in in_python] == []
    assert [message for message in RULES if message not in on_server] == []
    assert len(RULES) > 60
