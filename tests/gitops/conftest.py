"""Fixtures of the tests of GitOps."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.scenario import Scenario, open_scenario


@pytest.fixture
async def scenario(tmp_path: Path) -> AsyncIterator[Scenario]:
    """An empty cluster with the definition of LoraTraining."""
    async with open_scenario(tmp_path) as found:
        yield found
