"""Debian's Prometheus and promtool, unpacked by `make setup`."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_demo.processes import free_ports, running, wait_until

_UNPACKED = Path(__file__).resolve().parents[2] / ".tools" / "prometheus" / "usr" / "bin"


def program(name: str) -> str:
    """Path of `prometheus` or `promtool`; fails with the cure when it is not there."""
    found = _UNPACKED / name
    path = str(found) if found.exists() else shutil.which(name)
    assert path, f"{name} is missing; run `make setup`"
    return path


def check_metrics(text: str) -> str:
    """What `promtool check metrics` complains about; nothing when all is well."""
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 3), done.stderr
    return (done.stdout + done.stderr).strip()


@dataclass(frozen=True)
class Target:
    """A page of metrics, and the labels that its series are given; those that they have win."""

    address: str
    """host:port"""
    labels: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def scraping(targets: Sequence[Target], directory: Path) -> Iterator[str]:
    """A Prometheus that scrapes `targets` every second; yields its URL."""
    (port,) = free_ports(1)
    config = directory / "prometheus.yml"
    pages = [{"targets": [target.address], "labels": dict(target.labels)} for target in targets]
    content = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [{"job_name": "lora", "honor_labels": True, "static_configs": pages}],
    }
    config.write_text(json.dumps(content))
    command = [
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running("prometheus", command, log_dir=directory) as child:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _is_ready(url), "Prometheus' start", seconds=30, child=child)
        yield url


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def query(url: str, expression: str, *, at: float | None = None) -> list[dict[str, Any]]:
    """The result of an instant query; `at`: seconds since the epoch, now by default."""
    return _ask(f"{url}/api/v1/query", {"query": expression, "time": str(at or time.time())})


def query_range(
    url: str, expression: str, *, seconds: float, step: float = 2, end: float | None = None
) -> list[dict[str, Any]]:
    """The result of a query over the time before `end`, now by default, as a graph asks for it."""
    until = end or time.time()
    span = {"start": str(until - seconds), "end": str(until), "step": str(step)}
    return _ask(f"{url}/api/v1/query_range", {"query": expression, **span})


def _ask(url: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(parameters)}", timeout=20) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{parameters['query']}: {error.read().decode()}") from error
    return result


def query_until(url: str, expression: str, *, results: int, seconds: float = 30) -> list[dict[str, Any]]:
    """The result once it has at least `results` series; the last one when time is over."""
    deadline = time.monotonic() + seconds
    while len(found := query(url, expression)) < results and time.monotonic() < deadline:
        time.sleep(0.25)
    return found
