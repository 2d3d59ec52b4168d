"""`--set path=value` on top of a file."""

from pathlib import Path

import pytest

from lora_trainer.commands.overrides import load_training_file, parse_override
from lora_trainer.errors import InvalidConfiguration
from tests.support.files import write_training


@pytest.mark.parametrize(
    ("text", "location", "value"),
    [
        ("training.epochs=3", ("spec", "training", "epochs"), 3),
        ("spec.training.epochs=3", ("spec", "training", "epochs"), 3),
        ("metadata.name=kai", ("metadata", "name"), "kai"),
        ("optimizer.learningRate=1e-4", ("spec", "optimizer", "learningRate"), 1e-4),
        ("samples.prompts[0].seed=5", ("spec", "samples", "prompts", 0, "seed"), 5),
        ("output.uri=file:///a=b", ("spec", "output", "uri"), "file:///a=b"),
        ("pod.labels={a: b}", ("spec", "pod", "labels"), {"a": "b"}),
        ("dataset.augmentation.flip=true", ("spec", "dataset", "augmentation", "flip"), True),
        ('output.comment="no"', ("spec", "output", "comment"), "no"),
        ("training.maxSteps=null", ("spec", "training", "maxSteps"), None),
    ],
)
def test_an_override_is_a_path_and_a_yaml_value(text: str, location: tuple[str | int, ...], value: object) -> None:
    found_location, found = parse_override(text)

    assert (found_location, found) == (location, value)
    assert type(found) is type(value)


def test_overrides_replace_add_and_remove_fields(tmp_path: Path) -> None:
    path = write_training(tmp_path, ("training", {"epochs": 5, "maxSteps": 9}))

    overrides = ["training.epochs=3", "training.maxSteps=null", "network.rank=4"]
    spec = load_training_file(path, overrides).spec

    assert (spec.training.epochs, spec.training.max_steps, spec.network.rank) == (3, None, 4)


def test_the_last_override_wins(tmp_path: Path) -> None:
    path = write_training(tmp_path)

    assert load_training_file(path, ["training.seed=1", "training.seed=2"]).spec.training.seed == 2


def test_an_entry_of_a_list_may_be_changed(tmp_path: Path) -> None:
    path = write_training(tmp_path, ("samples.prompts", [{"prompt": "a"}, {"prompt": "b"}]))

    prompts = load_training_file(path, ["samples.prompts[1].seed=7"]).spec.samples.prompts

    assert [prompt.seed for prompt in prompts] == [None, 7]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("training.epocs=3", "spec.training.epocs is no known field; did you mean epochs?"),
        ("trainng.epochs=3", "spec.trainng is no known field; did you mean training?"),
        ("training.epochs=many", "spec.training.epochs is 'many', but must be"),
        ("training.epochs=0", "spec.training.epochs is 0, but must be at least 1"),
        ("training.epochs", "--set training.epochs is no override; write --set path=value"),
        ("=3", "--set =3 is no override; write --set path=value"),
        ("training.epochs={", "--set training.epochs={: the value is no valid YAML"),
        ("training.epochs=1\nother: 2", "the value must be one YAML value"),
        ("output.uri.x=3", "spec.output.uri has no fields, so --set cannot set spec.output.uri.x"),
        ("samples.prompts[0].seed=3", "spec.samples.prompts has 0 entries, so --set cannot set"),
    ],
)
def test_a_wrong_override_is_answered_like_a_wrong_field(tmp_path: Path, override: str, problem: str) -> None:
    path = write_training(tmp_path, ("samples.prompts", []))

    with pytest.raises(InvalidConfiguration) as caught:
        load_training_file(path, [override])

    assert problem in str(caught.value)


def test_a_problem_of_an_override_shows_no_line_and_one_of_the_file_its_own(tmp_path: Path) -> None:
    path = write_training(tmp_path, ("network.rank", 0))
    line = path.read_text().splitlines().index("    rank: 0") + 1

    with pytest.raises(InvalidConfiguration) as caught:
        load_training_file(path, ["training.epochs=0"])

    assert f"line {line}: spec.network.rank is 0" in str(caught.value)
    assert "\nspec.training.epochs is 0" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"none\.yaml cannot be read: No such file"):
        load_training_file(tmp_path / "none.yaml")


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lora.yaml"
    path.write_bytes("größe".encode("latin-1"))

    with pytest.raises(InvalidConfiguration, match=r"lora\.yaml is not UTF-8"):
        load_training_file(path)
