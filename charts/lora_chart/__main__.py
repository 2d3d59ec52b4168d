"""Writes the README's tables and the golden renderings; `--check` only says which are not up to date."""

import argparse
import sys
from pathlib import Path

from lora_chart.golden import CHART, TYPICAL, render_golden
from lora_chart.profile_table import render_profile_table
from lora_chart.readme import with_table
from lora_chart.values_table import read_values, render_table

README = CHART / "README.md"
GOLDEN = Path(__file__).parents[2] / "tests" / "chart" / "golden"


def render() -> dict[Path, str]:
    """Text of every file."""
    values = read_values((CHART / "values.yaml").read_text())
    text = with_table(README.read_text(), "values", render_table(values))
    text = with_table(text, "profile", render_profile_table())
    return {README: text, **{GOLDEN / f"{name}.yaml": render_golden(name) for name in TYPICAL}}


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 1 where `--check` finds a file that differs."""
    parser = argparse.ArgumentParser(prog="python -m lora_chart", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not up to date")
    check = parser.parse_args(arguments).check
    stale = {path: text for path, text in render().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if check:
            print(f"{path.name} is not up to date; run `python -m lora_chart`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
