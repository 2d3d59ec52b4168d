"""Label and field selectors."""

import pytest

from lora_devcluster.errors import ApiError
from lora_devcluster.selectors import field_selector, label_selector, matches

OBJECT = {
    "metadata": {"name": "a", "namespace": "n", "labels": {"app": "x", "tier": "front", "empty": ""}},
    "status": {"phase": "Running"},
}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("app=x", True),
        ("app==x,tier=front", True),
        ("app=y", False),
        ("app!=y", True),
        ("absent!=y", True),
        ("app in (x, y)", True),
        ("app notin (x)", False),
        ("absent notin (x)", True),
        ("app", True),
        ("!app", False),
        ("!absent,empty=", True),
        ("app in (x),tier in (back)", False),
    ],
)
def test_label_selectors_match_as_kubernetes_defines_them(text: str, fits: bool) -> None:
    assert label_selector(text)(OBJECT) is fits


@pytest.mark.parametrize("text", ["a b", "app in x", "app=(", "=x"])
def test_a_label_selector_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ApiError, match="unable to parse requirement"):
        label_selector(text)


@pytest.mark.parametrize(
    ("text", "fits"),
    [("status.phase=Running", True), ("status.phase!=Running", False), ("metadata.name=a,metadata.namespace=n", True)],
)
def test_field_selectors_match_the_selectable_fields(text: str, fits: bool) -> None:
    assert field_selector(text, "pods")(OBJECT) is fits


def test_a_field_that_cannot_be_selected_by_is_refused() -> None:
    with pytest.raises(ApiError, match=r"field label not supported: spec\.rank"):
        field_selector("spec.rank=1", "widgets")


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"app": "x"}}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_label_selector_objects_match(selector: dict[str, object] | None, fits: bool) -> None:
    assert matches(selector, {"app": "x"}) is fits
