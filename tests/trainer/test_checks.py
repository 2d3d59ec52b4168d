"""What is found wrong before anything is fetched."""

import pytest

from lora_trainer.checks import check_training
from lora_trainer.errors import InvalidConfiguration
from tests.support.documents import make_training


def test_a_sound_training_passes() -> None:
    check_training(make_training(("dataset.resolution", "768x512"), ("dataset.buckets.minPx", 512)))


def test_everything_that_is_wrong_is_told_at_once() -> None:
    training = make_training(
        (
            "dataset",
            {
                "subsets": [{"uri": "s3://lora/a"}, {"uri": "s3://lora/b"}, {"uri": "s3://lora/a/"}],
                "resolution": "768x512",
                "buckets": {"minPx": 640},
            },
        )
    )

    with pytest.raises(InvalidConfiguration) as caught:
        check_training(training)

    buckets, folders = str(caught.value).splitlines()
    assert buckets.startswith("spec.dataset.buckets.minPx is 640, but must be at most the smaller side")
    assert folders == (
        "spec.dataset.subsets[2].uri is s3://lora/a/, the folder of spec.dataset.subsets[0]; "
        "join the two entries and add up their repeats"
    )


def test_a_grid_needs_something_to_draw() -> None:
    training = make_training(("evaluation", {"grid": {}}))

    with pytest.raises(InvalidConfiguration, match=r"spec\.evaluation\.grid\.prompts .* are both empty; add a prompt"):
        check_training(training)
