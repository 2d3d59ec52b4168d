"""What `kubectl get` is given to print."""

from datetime import timedelta
from typing import Any

import pytest

from lora_devcluster import clock
from lora_devcluster.table import age, is_json_path, json_path

OBJECT = {
    "a": {"b": [1, 2]},
    "list": [{"type": "Ready", "status": "True"}, {"type": "Done", "status": "False"}],
    "labels": {"x.y/z": "v"},
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".a.b", [[1, 2]]),
        (".a.b[1]", [2]),
        (".a.b[*]", [1, 2]),
        (".a.c", []),
        ('.list[?(@.type=="Ready")].status', ["True"]),
        (".list[?(@.type=='Gone')].status", []),
        (".labels['x.y/z']", ["v"]),
        (".labels.x\\.y/z", []),
    ],
)
def test_json_paths_find_values(path: str, values: list[Any]) -> None:
    assert json_path(OBJECT, path) == values


@pytest.mark.parametrize(
    ("path", "good"),
    [(".a.b", True), (".a[0].b", True), ("a.b", False), (".a..b", False), ("{.a}", False), (".a[", False)],
)
def test_only_simple_json_paths_are_taken(path: str, good: bool) -> None:
    assert is_json_path(path) is good


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (119, "119s"), (120, "2m"), (200, "3m20s"), (600, "10m"), (3 * 3600, "3h"), (3 * 3600 + 60, "3h1m"),
        (8 * 3600 + 60, "8h"), (47 * 3600, "47h"), (49 * 3600, "2d1h"), (9 * 86400, "9d"), (800 * 86400, "2y"),
    ],
)  # fmt: skip
def test_ages_are_written_as_kubectl_does(seconds: int, text: str) -> None:
    now = clock.now()

    assert age((now - timedelta(seconds=seconds)).isoformat(), now) == text


def test_an_unknown_age_says_so() -> None:
    assert age(None) == "<unknown>"
