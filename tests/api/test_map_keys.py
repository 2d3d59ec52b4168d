"""Keys and values of labels, annotations and resources are judged as an API server judges those of a pod."""

from typing import Any

import pytest

from lora_api import InvalidTraining, parse_training
from lora_devcluster.names import annotations_faults, labels_faults
from tests.support.documents import make_document

KEYS = [
    "a", "A1", "a.b", "a_b", "-a", "a-", "a b", "", "a/b", "a/", "/a", "a/b/c", "A.b/c", "a..b/c", "a.b-/c", "a_b/c",
    "x" * 63, "x" * 64, "p" * 189 + "/" + "x" * 63, "ä", "a\n",
]  # fmt: skip
VALUES = ["", "a", "A.b_c-1", "-a", "a-", "a b", "a/b", "x" * 63, "x" * 64, "ä", "a\n"]


def is_accepted(path: str, value: Any) -> bool:
    try:
        parse_training(make_document((path, value)))
    except InvalidTraining:
        return False
    return True


@pytest.mark.parametrize("key", KEYS)
def test_a_label_s_key_is_accepted_as_a_server_accepts_it(key: str) -> None:
    assert is_accepted("pod.labels", {key: "x"}) is not any(labels_faults("labels", {key: "x"}))


@pytest.mark.parametrize("value", VALUES)
def test_a_label_s_value_is_accepted_as_a_server_accepts_it(value: str) -> None:
    assert is_accepted("pod.labels", {"a": value}) is not any(labels_faults("labels", {"a": value}))


@pytest.mark.parametrize("key", KEYS)
def test_an_annotation_s_key_is_accepted_as_a_server_accepts_it(key: str) -> None:
    assert is_accepted("pod.annotations", {key: "x y"}) is not any(annotations_faults("annotations", {key: "x y"}))


def test_a_long_key_is_shortened_in_the_message() -> None:
    with pytest.raises(InvalidTraining) as caught:
        parse_training(make_document(("pod.labels", {"x" * 5000: "x"})))

    assert "spec.pod.labels has the key 'xxx" in str(caught.value)
    assert len(str(caught.value)) < 400
