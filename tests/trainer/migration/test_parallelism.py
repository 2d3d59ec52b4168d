"""accelerate's counts of processes and machines."""

import pytest

from lora_trainer.migration.parallelism import parallelism_fields
from lora_trainer.migration.unusable import UnusableSettings


@pytest.mark.parametrize(
    ("processes", "machines", "fields"),
    [
        (1, 1, {}),
        (0, 0, {}),
        (4, 1, {"parallelism.gpusPerNode": 4}),
        (8, 2, {"parallelism.gpusPerNode": 4, "parallelism.nodes": 2}),
        (2, 2, {"parallelism.nodes": 2}),
    ],
)
def test_processes_are_those_of_all_machines(processes: int, machines: int, fields: dict[str, int]) -> None:
    assert parallelism_fields(processes, machines) == fields


def test_machines_with_different_numbers_of_processes_are_refused() -> None:
    with pytest.raises(
        UnusableSettings, match="num_processes is 5, but must be a multiple of num_machines, which is 2"
    ):
        parallelism_fields(5, 2)
