"""benchmarks/operator_crashes.py: a few kills of the real thing, and that what must be found is found."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.operator_crashes import Row, judge, run_trials, table
from lora_devcluster.server import Cut

UNDISTURBED = Row(0, None, "", 1, 26, 20, 1, 1, "{}")
KILLED = replace(UNDISTURBED, call=5, cut=Cut.AFTER, what="create jobs", starts=2)


async def test_an_operator_killed_at_a_call_leads_to_the_same_end(tmp_path: Path) -> None:
    # The first write, before it and after it.
    rows = await run_trials([5], tmp_path)

    assert judge(rows) == []
    assert [row.starts for row in rows] == [1, 2, 2]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (replace(KILLED, end="{1}"), "call 5 (create jobs, all was done): another end"),
        (replace(KILLED, most_active_jobs=2), "2 Jobs, 1 pods at once"),
        (replace(KILLED, most_running_pods=2), "1 Jobs, 2 pods at once"),
    ],
)
def test_another_end_and_a_second_writer_are_found(row: Row, words: str) -> None:
    [problem] = judge([UNDISTURBED, row])

    assert words in problem


def test_the_table_tells_how_many_kills_and_ends_there_were() -> None:
    text = table([UNDISTURBED, KILLED])

    assert "1 kills, 1 end state(s), at most 1 Job(s) active at once" in text
