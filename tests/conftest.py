"""Which tests are long, and the order in which files are tested: with several processes long ones begin first."""

import pytest

_LONG = (
    "tests/demo/",
    "tests/e2e/test_real_trainer.py",
    "tests/e2e/test_two_nodes.py",
    "tests/chart/test_variants.py",
    "tests/chart/test_repeated_test.py",
    "tests/trainer/test_several_processes.py",
    "tests/security/test_rights.py",
    "tests/benchmarks/",
    "tests/docs/test_first_lora.py",
    "tests/trainer/test_faulty_store.py",
    "tests/tinybase/test_sampling.py",
    "tests/trainer/test_reference_training.py",
    "tests/operator/test_diagnosis.py",
    "tests/operator/test_restarts.py",
    "tests/operator/test_api_faults.py",
)
"""Whole systems: `make test-long` runs them, `make test` everything else."""
_FIRST = (
    *_LONG,
    "tests/trainer/test_run_settings.py",
    "tests/trainer/test_resume.py",
    "tests/trainer/test_memory_ladder.py",
    "tests/trainer/test_loop.py",
    "tests/gitops/",
    "tests/operator/",
    "tests/trainer/",
)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the long tests and sorts files by the first prefix of `_FIRST` that fits; the order within a file stays."""
    for item in items:
        if item.nodeid.startswith(_LONG):
            item.add_marker("long")
    items.sort(key=lambda item: next((n for n, p in enumerate(_FIRST) if item.nodeid.startswith(p)), len(_FIRST)))
