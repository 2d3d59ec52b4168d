"""The written file: short, in order, with remarks, and always valid."""

import pytest

from lora_api import load_training
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.migration.document import render, settle, summary
from lora_trainer.migration.draft import Draft

PLACES = {"baseModel.uri": "hf://a/b", "dataset.uri": "s3://lora/data", "output.uri": "s3://lora/run"}


def draft(**fields: object) -> Draft:
    return Draft(PLACES | {name.replace("__", "."): value for name, value in fields.items()})


def write(made: Draft) -> str:
    return render(settle("hina", made), made, origin="a test")


def test_only_what_differs_from_our_defaults_is_written_in_the_order_of_the_reference() -> None:
    made = draft(training__seed=7, network__rank=16, network__alpha=8.0, dataset__resolution=768)

    assert write(made) == (
        "# a test\napiVersion: lora-operator.io/v1alpha1\nkind: LoraTraining\nmetadata:\n  name: hina\nspec:\n"
        "  baseModel:\n    uri: hf://a/b\n  dataset:\n    uri: s3://lora/data\n    resolution: 768\n"
        "  network:\n    alpha: 8\n  training:\n    seed: 7\n  output:\n    uri: s3://lora/run\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "true",
        "12",
        "1e-4",
        "a: b",
        "a #b",
        "- x",
        "ünïcode",
        'qu"ote',
        "line\nbreak",
        " space",
        "",
        "bell \x7f \u2028 \x85 end 😀",
    ],
)
def test_every_text_survives(text: str) -> None:
    made = draft(output__comment=text)

    assert load_training(write(made)).spec.output.comment == text


@pytest.mark.parametrize("rate", [1e-4, 5e-05, 1.0, 0.123456789, 2e-06])
def test_every_number_survives(rate: float) -> None:
    assert load_training(write(draft(optimizer__learningRate=rate))).spec.optimizer.learning_rate == rate


def test_remarks_stand_beside_their_fields_and_leftovers_at_the_end() -> None:
    made = draft()
    made.put("training.epochs", 3, "few")
    made.leave("seed", 5, "too odd")

    lines = write(made).splitlines()

    assert "    epochs: 3  # few" in lines
    assert lines[-2:] == ["# Not carried over:", "#   seed = 5: too odd"]


def test_remarks_never_break_the_file() -> None:
    made = draft()
    made.leave("name\nspec: 3", "\x07\u2028", "no such setting")

    assert load_training(render(settle("hina", made), made, origin="a\nb")).name == "hina"


def test_a_field_that_the_spec_refuses_is_taken_out_and_told() -> None:
    made = draft(network__rank=0, network__alpha=4.0)

    assert settle("hina", made).spec.network.alpha == 4.0
    assert [str(leftover) for leftover in made.leftovers] == ["network.rank = 0: is 0, but must be at least 1"]


def test_of_fields_that_exclude_each_other_one_is_taken_out() -> None:
    made = draft(training__loss__minSnrGamma=5.0, training__loss__debiasedEstimation=True)

    loss = settle("hina", made).spec.training.loss

    assert (loss.min_snr_gamma, loss.debiased_estimation) == (5.0, False)
    assert [leftover.name for leftover in made.leftovers] == ["training.loss.debiasedEstimation"]


def test_a_place_is_never_taken_out() -> None:
    made = draft()
    made.put("baseModel.uri", "file:///models/old.ckpt")

    with pytest.raises(InvalidConfiguration, match=r"names a pickle file.*convert it to \.safetensors"):
        settle("hina", made)


def test_the_summary_counts_what_was_left_over() -> None:
    made = draft()
    assert summary(made) == ["every setting was carried over"]

    made.leave("seed", 5, "too odd")
    assert summary(made) == ["1 setting was not carried over:", "  seed = 5: too odd"]
