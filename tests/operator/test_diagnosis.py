"""Every fault is told by reason, message and cure: on the laptop-sized cluster, and as a table in docs/diagnosis.md.

`WRITE_DIAGNOSIS=1 python -m pytest tests/operator/test_diagnosis.py` writes the page anew.
"""

import asyncio
import os
import re
from pathlib import Path

import pytest

from lora_operator import controller, reconcile
from tests.support.faults import NODE_LOST, REJECTED, Fault, Shown, faults, inject_all
from tests.support.real_failures import last_words
from tests.support.scenario import open_scenario

PAGE = Path(__file__).parents[2] / "docs" / "diagnosis.md"
FAILURES = (
    "device memory", "diverged", "broken picture", "access denied", "gated model", "missing model",
    "store unreachable", "stalled", "crashed",
)  # fmt: skip
FAULTS = (*faults(dict.fromkeys(FAILURES, ""), ""), REJECTED, NODE_LOST)
VOLATILE = (
    (re.compile(r"(-(?:a\d+|data)-0-)[a-z0-9]{5}\b"), r"\1…"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "2026-…"),
    (re.compile(r"(\.py):\d+"), r"\1:…"),
    (re.compile(r"^\d+( pods in a row)"), r"…\1"),
    (re.compile(r"(no sign of life for \d+ s, in ).*"), r"\1…"),
)
HEAD = """# What status shows of every fault

Made by tests/operator/test_diagnosis.py, which injects each of these faults into a laptop-sized cluster and writes
down what `kubectl get lt NAME -o yaml` then shows; the words of the trainer, the store and the hub come from the
trainer's own code. Do not edit: run `WRITE_DIAGNOSIS=1 python -m pytest tests/operator/test_diagnosis.py`. What to do
about each reason stands in [errors.md](errors.md).

"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """What the status shows of each fault; all of them happen in one cluster."""
    folder = tmp_path_factory.mktemp("faults")
    words = last_words(folder / "trainer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controller, "MOUNT_PATIENCE_SECONDS", 0.0)
        patch.setattr(controller, "POD_PATIENCE_SECONDS", 0.0)
        patch.setattr(reconcile, "WAIT_FOR_START_SECONDS", 0.2)
        return asyncio.run(_tell(folder / "cluster", words))


async def _tell(folder: Path, words: dict[str, str]) -> dict[str, Shown]:
    folder.mkdir()
    async with open_scenario(folder) as scenario:
        await scenario.start_operator()
        return await inject_all(scenario, words)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_told_by_its_reason_and_what_to_do(told: dict[str, Shown], fault: Fault) -> None:
    shown = told[fault.name]

    assert shown.reason == shown.fault.reason
    assert shown.message
    assert shown.fault.shown != "failure" or shown.hint


@pytest.mark.parametrize("name", ["crashed", "segfault", "broken-picture"])
def test_the_end_of_the_log_is_in_the_status_of_a_training_that_failed(told: dict[str, Shown], name: str) -> None:
    assert told[name].log_tail.startswith("INFO step 5/10\n")


def test_bad_data_cost_no_gpu(told: dict[str, Shown]) -> None:
    shown = told["check"]

    assert shown.message.endswith("no GPU was asked for")
    assert "broken.png" in shown.message


def test_retries_that_are_used_up_are_counted_in_the_message(told: dict[str, Shown]) -> None:
    assert told["store-unreachable"].message.startswith("failed 2 times; the last time: ")


def test_the_page_shows_what_status_shows(told: dict[str, Shown]) -> None:
    page = HEAD + "\n".join(_table(told)) + "\n"
    if os.environ.get("WRITE_DIAGNOSIS"):
        PAGE.write_text(page)

    command = "WRITE_DIAGNOSIS=1 python -m pytest tests/operator/test_diagnosis.py"
    assert PAGE.read_text() == page, f"docs/diagnosis.md is not what status shows; run: {command}"


def _table(told: dict[str, Shown]) -> list[str]:
    rows = [_row(told[fault.name]) for fault in FAULTS]
    titles = ("what goes wrong", "shown in", "reason", "exit code", "message", "hint")
    return [_line(titles), _line(("---",) * len(titles)), *(_line(row) for row in rows)]


def _row(shown: Shown) -> tuple[str, ...]:
    place = "`failure`" if shown.fault.shown == "failure" else f"condition {shown.fault.shown}"
    code = "" if shown.exit_code is None else str(shown.exit_code)
    return shown.fault.done, place, shown.reason, code, _stable(shown.message), _stable(shown.hint)


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _stable(text: str) -> str:
    """The text without what differs from run to run, in one cell."""
    for pattern, shown in VOLATILE:
        text = pattern.sub(shown, text)
    return text.replace("\n", "<br>").replace("|", "\\|")
