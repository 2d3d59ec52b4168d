"""lora_trainer.captioning.wording: captions made of descriptions."""

import pytest

from lora_trainer.captioning.wording import Wording


@pytest.mark.parametrize(
    ("wording", "description", "caption"),
    [
        (Wording(), "a man in a hat", "a man in a hat"),
        (Wording("zwx man"), "a person in a hat", "zwx man, a person in a hat"),
        (Wording("zwx"), "", "zwx"),
        (Wording(prefix="photo of", suffix="film grain"), "a hat", "photo of a hat film grain"),
        (Wording("zwx", "photo,", ", indoors"), "a hat", "photo, zwx, a hat , indoors"),
        (Wording(" zwx  man "), "a\nhat ", "zwx man, a hat"),
        (Wording(), " ", ""),
    ],
)
def test_a_description_is_put_into_words(wording: Wording, description: str, caption: str) -> None:
    assert wording.caption(description) == caption


@pytest.mark.parametrize(
    ("trigger", "description"), [("man", "a Man in a hat"), ("old man", "an old, man-like statue")]
)
def test_a_trigger_that_is_there_already_is_not_said_twice(trigger: str, description: str) -> None:
    assert Wording(trigger).caption(description) == description


@pytest.mark.parametrize(("trigger", "description"), [("man", "a woman"), ("old man", "a man, old"), ("a b", "a")])
def test_parts_of_words_are_no_trigger(trigger: str, description: str) -> None:
    assert Wording(trigger).caption(description) == f"{trigger}, {description}"
