"""The order in which files are tested: with several processes the long ones have to begin first."""

import pytest

_LONGEST = (
    "tests/demo/test_demo.py",
    "tests/trainer/test_run_settings.py",
    "tests/trainer/test_resume.py",
    "tests/trainer/test_faulty_store.py",
    "tests/trainer/test_several_processes.py",
    "tests/e2e/",
    "tests/chart/test_variants.py",
    "tests/benchmarks/",
    "tests/trainer/test_memory_ladder.py",
    "tests/trainer/test_loop.py",
    "tests/operator/",
    "tests/trainer/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts files by the first prefix of `_LONGEST` that fits; the order within a file stays."""
    items.sort(key=lambda item: next((n for n, p in enumerate(_LONGEST) if item.nodeid.startswith(p)), len(_LONGEST)))
