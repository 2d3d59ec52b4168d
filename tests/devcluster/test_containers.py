"""Paths, variables, images and probes of containers, without a cluster."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lora_devcluster.environment import expand
from lora_devcluster.images import Image, find_image
from lora_devcluster.mounts import PathMap
from lora_devcluster.probes import ProbeRunner
from lora_devcluster.quantity import parse

PLACES = {"/data": Path("/real/d"), "/data/sub": Path("/real/s"), "/dev/termination-log": Path("/real/log")}


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("/data", "/real/d"),
        ("/data/x", "/real/d/x"),
        ("/data/sub/x", "/real/s/x"),
        ("--in=/data/x --log=/dev/termination-log", "--in=/real/d/x --log=/real/log"),
        ("file:///data/x", "file:///real/d/x"),
        ('{"path": "/data"}', '{"path": "/real/d"}'),
        ("/database", "/database"),
        ("/other/data", "/other/data"),
        ("s3://bucket/data", "s3://bucket/data"),
        ("/data-old/x", "/data-old/x"),
        ("a/data", "a/data"),
    ],
)
def test_only_whole_mounted_paths_are_rewritten(text: str, rewritten: str) -> None:
    assert PathMap(PLACES).rewrite(text) == rewritten


@pytest.mark.parametrize(
    ("text", "expanded"),
    [("$(A)", "1"), ("x$(A)y$(B)", "x1y2"), ("$(C)", "$(C)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("$$", "$")],
)
def test_variables_expand_in_words(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


def test_the_first_pattern_that_fits_names_the_image() -> None:
    table = {"a:1": ["one"], "a:*": "noop", "b": "two"}

    assert find_image(table, "a:1") == Image(("one",))
    assert find_image(table, "a:2") == Image((), noop=True)
    assert find_image(table, "b") == Image(("two",))
    assert find_image(table, "c") is None


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1", 1), (2, 2), ("500m", 0.5), ("1Ki", 1024), ("2G", 2e9), ("1e3", 1000), ("1.5Gi", 1.5 * 2**30)],
)
def test_quantities_are_read(text: str | int, amount: float) -> None:
    assert float(parse(text)) == amount


@pytest.mark.parametrize("text", ["", "1 Gi", "Gi", "1GiB", "0x1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match the regular expression"):
        parse(text)


class Program:
    """A program with a health page whose answers the test chooses."""

    def __init__(self) -> None:
        self.code = 503
        self.port = 0
        self.status: dict[str, Any] = {"ready": False}
        self.changed = asyncio.Event()

    async def answer(self, _request: web.Request) -> web.Response:
        return web.Response(status=self.code)

    def runner(self, **probes: dict[str, Any]) -> ProbeRunner:
        container = {"name": "c", "ports": [{"name": "http", "containerPort": self.port}], **probes}
        return ProbeRunner(container, "127.0.0.1", self.status, self.changed.set)


@pytest.fixture
async def program() -> AsyncIterator[Program]:
    made = Program()
    app = web.Application()
    app.router.add_get("/healthz", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


def probe(**more: Any) -> dict[str, Any]:
    http = {"path": "/healthz", "port": "http"}
    return {"httpGet": http, "timeoutSeconds": 1, "periodSeconds": 0.01, "failureThreshold": 2, **more}


async def test_readiness_follows_the_probe(program: Program) -> None:
    task = asyncio.ensure_future(program.runner(readinessProbe=probe()).until_unhealthy())
    seen = []
    for program.code in (200, 500):
        async with asyncio.timeout(60):
            await program.changed.wait()
        program.changed.clear()
        seen.append(program.status["ready"])
    task.cancel()

    assert seen == [True, False]


@pytest.mark.parametrize("name", ["livenessProbe", "startupProbe"])
async def test_a_container_whose_probe_gives_up_is_unhealthy(program: Program, name: str) -> None:
    async with asyncio.timeout(60):
        await program.runner(**{name: probe()}).until_unhealthy()


async def test_a_port_that_answers_is_enough_for_a_tcp_probe(program: Program) -> None:
    tcp = {**probe(), "httpGet": None, "tcpSocket": {"port": program.port}}
    task = asyncio.ensure_future(program.runner(readinessProbe=tcp).until_unhealthy())
    async with asyncio.timeout(60):
        await program.changed.wait()
    task.cancel()

    assert program.status["ready"] is True
