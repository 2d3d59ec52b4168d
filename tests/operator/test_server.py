"""lora_operator.server"""

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from lora_operator.server import Checks, Server


@pytest.fixture
def problems() -> dict[str, str]:
    return {"health": "", "readiness": ""}


@pytest.fixture
def server(problems: dict[str, str]) -> Iterator[Server]:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc()
    checks = Checks(lambda: problems["health"], lambda: problems["readiness"])
    found = Server(("127.0.0.1", 0), registry, checks)
    yield found
    found.close()


def get(server: Server, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_are_served(server: Server) -> None:
    status, text = get(server, "/metrics?name=x")

    assert status == 200
    assert "things_total 1.0" in text


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_all_is_well(server: Server, path: str) -> None:
    assert get(server, path) == (200, "ok\n")


@pytest.mark.parametrize(("path", "check"), [("/healthz", "health"), ("/readyz", "readiness")])
def test_a_problem_is_told(server: Server, problems: dict[str, str], path: str, check: str) -> None:
    problems[check] = "stuck"

    assert get(server, path) == (503, "stuck\n")


def test_other_paths_are_not_found(server: Server) -> None:
    assert get(server, "/secrets")[0] == 404
