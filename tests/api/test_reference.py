"""lora_api.reference: the pages are as generated and say what the models say."""

from pathlib import Path

import pytest

from lora_api import OUTCOMES, reference


def test_the_pages_are_as_generated() -> None:
    assert reference.main(["--check"]) == 0, f"run: {reference.COMMAND}"


def test_drift_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(reference, "REFERENCE_DIR", tmp_path)

    assert reference.main(["--check"]) == 1
    assert "loratraining.md" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "| `rank` | integer | `16` | Size of the adapter (kohya's network_dim): more can hold more and over-fits "
        "earlier. (from 1 to 1024) |",
        "| `prodigy` | `beta3` | None, or a number from 0 to below 1 |",
        "- buckets.minPx must not be larger than resolution; lower it.",
        "| `conditions` | list of object |  | What holds and what does not, for programs. (at most 16) |",
    ],
)
def test_fields_bounds_and_rules_are_on_the_page(line: str) -> None:
    assert line in reference.render_api().splitlines()


def test_later_fields_say_so() -> None:
    page = reference.render_api()

    assert "**Other values are not supported yet; leave it out or use false.**" in page


def test_every_exit_code_is_on_its_page() -> None:
    page = reference.render_exit_codes()

    assert all(f"| {o.reason} |" in page and o.hint in page for o in OUTCOMES)
