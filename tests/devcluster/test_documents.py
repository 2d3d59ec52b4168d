"""lora_devcluster.documents"""

from datetime import date
from typing import Any

import pytest

from lora_devcluster.documents import copied


@pytest.mark.parametrize("last", [1.5, date(2026, 1, 1)], ids=["JSON", "YAML"])
def test_a_copy_shares_nothing_that_can_change(last: object) -> None:
    part: dict[str, Any] = {"items": [1, "two", None, True, last]}
    original = {"once": part, "twice": part}

    copy = copied(original)
    copy["once"]["items"].append("new")

    assert copy["twice"] == part == {"items": [1, "two", None, True, last]}
    assert original["once"] is part
