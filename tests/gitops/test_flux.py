"""The health checks for Flux where a status has not been written yet, and in docs/gitops.md."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.flux import HealthChecks
from tests.support.observations import training_body

ROOT = Path(__file__).parents[2]
FLUX = ROOT / "examples" / "gitops" / "flux"


@pytest.mark.parametrize("name", ["trainings.yaml", "trainings-accepted.yaml"])
@pytest.mark.parametrize("status", [None, {"observedGeneration": 1}], ids=["no status", "no conditions"])
def test_what_nobody_has_judged_is_in_progress(name: str, status: dict[str, Any] | None) -> None:
    assert HealthChecks.of_file(FLUX / name, "LoraTraining").judge(training_body(status=status)) == "InProgress"


def test_the_page_shows_the_expressions_of_the_file() -> None:
    page = (ROOT / "docs" / "gitops.md").read_text()
    (block,) = re.findall(r"^```yaml\n(wait: true\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    spec = yaml.safe_load((FLUX / "trainings.yaml").read_text())["spec"]

    assert yaml.safe_load(block) == {key: spec[key] for key in ("wait", "timeout", "healthCheckExprs")}
