"""lora_operator.cluster, against an HTTP server that answers as it is told"""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from aiohttp import web

from lora_operator.cluster import JOBS, TRAININGS, Cluster, merge_diff, open_cluster
from lora_operator.connection import Connection
from lora_operator.errors import ClusterUnavailable, Conflict, LeadershipLost, Refused

JOB = {"metadata": {"name": "a", "namespace": "ml"}, "spec": {}}


@dataclass
class Server:
    """Answers in the order given; remembers what was asked."""

    cluster: Cluster
    connection: Connection
    answers: deque[tuple[int, Any, dict[str, str]]] = field(default_factory=deque)
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    counted: list[tuple[str, str, str]] = field(default_factory=list)

    def answer(self, status: int, body: Any = None, **headers: str) -> None:
        self.answers.append((status, body if body is not None else {}, headers))


@pytest.fixture
async def server(tmp_path) -> AsyncIterator[Server]:
    found: list[Server] = []

    async def handle(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        found[0].asked.append((request.method, request.path, dict(request.query), body))
        status, answer, headers = found[0].answers.popleft()
        if isinstance(answer, str):
            return web.Response(status=status, text=answer, headers=headers)
        return web.json_response(answer, status=status, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    connection = await Connection.open(str(_kubeconfig(tmp_path, f"http://127.0.0.1:{runner.addresses[0][1]}")))
    async with open_cluster(connection, lambda *request: found[0].counted.append(request)) as cluster:
        found.append(Server(cluster, connection))
        yield found[0]
    await runner.cleanup()


def _kubeconfig(folder, url: str):
    path = folder / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": "secret-token"}}],
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return path


async def test_a_missing_object_is_none(server: Server) -> None:
    server.answer(404, {"message": "not found"})

    assert await server.cluster.get(JOBS, "ml", "a") is None
    assert server.asked[0][:2] == ("GET", "/apis/batch/v1/namespaces/ml/jobs/a")
    assert server.counted == [("get", "jobs", "404")]


async def test_a_list_is_read_page_by_page(server: Server) -> None:
    server.answer(200, {"metadata": {"continue": "next"}, "items": [{"a": 1}]})
    server.answer(200, {"metadata": {}, "items": [{"a": 2}]})

    found = await server.cluster.list(TRAININGS, None, labels="x=y")

    assert found == [{"a": 1}, {"a": 2}]
    assert server.asked[0][1:3] == (
        "/apis/lora-operator.io/v1alpha1/loratrainings",
        {"limit": "500", "labelSelector": "x=y"},
    )
    assert server.asked[1][2]["continue"] == "next"


async def test_an_object_that_is_there_already_is_not_created(server: Server) -> None:
    server.answer(409, {"reason": "AlreadyExists"})

    assert await server.cluster.create(JOBS, JOB) is None


async def test_creating_names_the_field_manager(server: Server) -> None:
    server.answer(201, {"kind": "Job"})

    assert await server.cluster.create(JOBS, JOB) == {"kind": "Job"}
    assert server.asked[0][2] == {"fieldManager": "lora-operator"}


async def test_deleting_takes_what_belongs_to_the_object_along(server: Server) -> None:
    server.answer(200)

    await server.cluster.delete(JOBS, "ml", "a", uid="u")

    assert server.asked[0][3]["propagationPolicy"] == "Background"
    assert server.asked[0][3]["preconditions"] == {"uid": "u"}


async def test_deleting_what_is_gone_is_no_error(server: Server) -> None:
    server.answer(404, {"message": "no"})

    await server.cluster.delete(JOBS, "ml", "a", uid="u")


@pytest.mark.parametrize(("status", "uid"), [(404, ""), (200, "v")], ids=["gone", "another one"])
async def test_an_object_of_the_same_name_is_left_alone(server: Server, status: int, uid: str) -> None:
    server.answer(409, {"message": "the UID in the precondition does not match"})
    server.answer(status, {"metadata": {"uid": uid}})

    await server.cluster.delete(JOBS, "ml", "a", uid="u")

    assert [asked[0] for asked in server.asked] == ["DELETE", "GET"]


async def test_a_deletion_that_is_refused_for_now_is_told(server: Server) -> None:
    server.answer(409, {"message": "try again"})
    server.answer(200, {"metadata": {"uid": "u"}})

    with pytest.raises(Conflict, match="try again"):
        await server.cluster.delete(JOBS, "ml", "a", uid="u")


async def test_a_list_whose_pages_have_expired_begins_again(server: Server) -> None:
    server.answer(200, {"metadata": {"continue": "next"}, "items": [{"a": 1}]})
    server.answer(410, {"message": "the provided continue parameter is too old"})
    server.answer(200, {"metadata": {}, "items": [{"a": 1}, {"a": 2}]})

    assert await server.cluster.list(JOBS, "ml") == [{"a": 1}, {"a": 2}]


async def test_nothing_is_written_by_one_that_may_not(server: Server) -> None:
    server.answer(404)
    async with open_cluster(server.connection, lambda *_: None, may_write=lambda: False) as cluster:
        read = await cluster.get(JOBS, "ml", "a")

        for write in (
            cluster.create(JOBS, JOB),
            cluster.patch(JOBS, "ml", "a", {}),
            cluster.delete(JOBS, "ml", "a"),
        ):
            with pytest.raises(LeadershipLost):
                await write

    assert read is None
    assert [asked[0] for asked in server.asked] == ["GET"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Refused),
        (401, ClusterUnavailable),
        (403, Refused),
        (409, Conflict),
        (410, ClusterUnavailable),
        (413, Refused),
        (422, Refused),
        (429, ClusterUnavailable),
        (500, ClusterUnavailable),
        (503, ClusterUnavailable),
    ],
)
async def test_errors_say_who_must_act(server: Server, status: int, error: type[Exception]) -> None:
    server.answer(status, {"message": "the server's words"})

    with pytest.raises(error, match=f"the server's words .HTTP {status}"):
        await server.cluster.patch(JOBS, "ml", "a", {})


async def test_a_busy_server_is_given_the_time_it_asks_for(server: Server) -> None:
    server.answer(429, **{"Retry-After": "7"})

    with pytest.raises(ClusterUnavailable) as caught:
        await server.cluster.get(JOBS, "ml", "a")

    assert caught.value.retry_after_seconds == 7


async def test_a_proxys_prose_is_told(server: Server) -> None:
    server.answer(502, "<h1>Bad Gateway</h1>")

    with pytest.raises(ClusterUnavailable, match="Bad Gateway"):
        await server.cluster.get(JOBS, "ml", "a")


async def test_a_server_that_is_not_there_is_unavailable(tmp_path) -> None:
    connection = await Connection.open(str(_kubeconfig(tmp_path, "http://127.0.0.1:9")))
    counted: list[tuple[str, str, str]] = []

    async with open_cluster(connection, lambda *request: counted.append(request)) as cluster:
        with pytest.raises(ClusterUnavailable, match="get /apis/batch"):
            await cluster.get(JOBS, "ml", "a")

    assert counted == [("get", "jobs", "error")]


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1, "b": 2}, {"b": 2}, {"a": None}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
        ({"a": [1, 2]}, {"a": [1]}, {"a": [1]}),
        ({"a": {"b": 1}}, {"a": 5}, {"a": 5}),
        ({"a": 5}, {"a": {"b": {}}}, {"a": {"b": {}}}),
    ],
)
def test_the_patch_holds_what_changed(before: dict[str, Any], after: dict[str, Any], patch: dict[str, Any]) -> None:
    assert merge_diff(before, after) == patch
