"""The API over HTTP: the kubernetes client, watches, pages, faults, the record of requests."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lora_devcluster import DevCluster, watching
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.errors import ApiError
from lora_devcluster.proto import decode
from lora_devcluster.requests import RequestInfo, parse_request
from lora_devcluster.server import Cut

CONFIGS = "/api/v1/namespaces/default/configmaps"


class Client:
    """Plain HTTP to a cluster."""

    def __init__(self, cluster: DevCluster, session: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.session = session

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        async with self.session.request(method, self.cluster.url + path, json=body, headers=headers) as response:
            return response.status, json.loads(await response.read())

    async def create(self, name: str, **meta: Any) -> Any:
        code, created = await self.send("POST", CONFIGS, {"metadata": {"name": name, **meta}})
        assert code == 201, created
        return created

    async def watch(self, query: str) -> AsyncIterator[Any]:
        async with self.session.get(f"{self.cluster.url}{CONFIGS}?watch=true&{query}") as response:
            async for line in response.content:
                yield json.loads(line)

    async def events(self, query: str, count: int) -> list[tuple[str, str]]:
        """The first events of a watch: (type, name)."""
        seen = []
        async with asyncio.timeout(60):
            async for event in self.watch(query):
                seen.append((event["type"], event["object"].get("metadata", {}).get("name", "")))
                if len(seen) == count:
                    return seen
        return seen


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with (
        DevCluster(tmp_path, ClusterSetting(history=5)) as cluster,
        aiohttp.ClientSession() as session,
    ):
        await _furnished(cluster)
        yield Client(cluster, session)


async def _furnished(cluster: DevCluster) -> None:
    """Namespaces get their standard objects one turn of the loop later."""
    while len(cluster.store.objects("", "configmaps")) < 4:
        await asyncio.sleep(0)


OURS = "labelSelector=ours"


async def test_a_watch_starts_with_what_is_there_and_goes_on(client: Client) -> None:
    await client.create("a", labels={"ours": ""})
    watching = asyncio.create_task(client.events(OURS, 2))
    while not any(r.verb == "watch" for r in client.cluster.requests):
        await asyncio.sleep(0)
    await client.create("b", labels={"ours": ""})

    assert await watching == [("ADDED", "a"), ("ADDED", "b")]


async def test_a_watch_from_a_version_shows_only_what_came_after(client: Client) -> None:
    first = await client.create("a")
    await client.create("b")
    await client.send("DELETE", f"{CONFIGS}/a")

    version = first["metadata"]["resourceVersion"]

    assert await client.events(f"resourceVersion={version}", 2) == [("ADDED", "b"), ("DELETED", "a")]


async def test_an_object_that_stops_matching_is_deleted_for_the_watcher(client: Client) -> None:
    first = await client.create("a", labels={"ours": ""})
    patch = {"Content-Type": "application/merge-patch+json"}
    await client.send("PATCH", f"{CONFIGS}/a", {"metadata": {"labels": None}}, **patch)

    version = int(first["metadata"]["resourceVersion"]) - 1

    assert await client.events(f"{OURS}&resourceVersion={version}", 2) == [("ADDED", "a"), ("DELETED", "a")]


async def test_a_version_that_history_has_forgotten_is_answered_with_410(client: Client) -> None:
    first = await client.create("a")
    for number in range(8):
        await client.create(f"b{number}")
    version = first["metadata"]["resourceVersion"]

    [event] = [event async for event in client.watch(f"resourceVersion={version}")]

    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_initial_events_end_with_a_marked_bookmark(client: Client) -> None:
    query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1"

    events = [event async for event in client.watch(query)]

    assert [event["type"] for event in events[:2]] == ["ADDED", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_bookmarks_come_in_time_however_busy_the_collection_is(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "BOOKMARK_SECONDS", 0.05)
    query = "allowWatchBookmarks=true&labelSelector=nobodys"
    seen: list[Any] = []

    async def keep_busy() -> None:
        while not seen:
            await client.create("other")
            await client.send("DELETE", f"{CONFIGS}/other")

    busy = asyncio.create_task(keep_busy())
    async with asyncio.timeout(60):
        async for event in client.watch(query):
            seen.append(event)
            break
    await busy

    assert seen[0]["type"] == "BOOKMARK"


async def test_a_watch_ends_after_its_timeout(client: Client) -> None:
    assert await client.events(f"{OURS}&timeoutSeconds=1", 1) == []


async def test_dropped_watches_end_as_if_the_line_was_cut(client: Client) -> None:
    await client.create("a", labels={"ours": ""})
    seen = []
    async for event in client.watch(OURS):
        seen.append(event["type"])
        client.cluster.server.watches.drop()

    assert seen == ["ADDED"]


async def test_lists_come_in_pages(client: Client) -> None:
    for number in range(5):
        await client.create(f"c{number}", labels={"ours": ""})
    names, token = [], ""

    while True:
        _, page = await client.send("GET", f"{CONFIGS}?{OURS}&limit=2&continue={token}")
        names.append([item["metadata"]["name"] for item in page["items"]])
        token = page["metadata"].get("continue", "")
        if not token:
            break

    assert names == [["c0", "c1"], ["c2", "c3"], ["c4"]]


async def test_a_collection_can_be_deleted_by_selector(client: Client) -> None:
    await client.create("a", labels={"ours": ""})
    await client.create("b")

    await client.send("DELETE", f"{CONFIGS}?{OURS}")

    _, left = await client.send("GET", CONFIGS)
    assert [item["metadata"]["name"] for item in left["items"]] == ["b", "kube-root-ca.crt"]


async def test_metadata_alone_can_be_asked_for(client: Client) -> None:
    await client.create("a")

    _, found = await client.send(
        "GET", f"{CONFIGS}/a", Accept="application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    )

    assert (found["kind"], found["metadata"]["name"], "data" in found) == ("PartialObjectMetadata", "a", False)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", f"{CONFIGS}/missing", 404),
        ("GET", "/apis/example.com/v1/namespaces/default/things", 404),
        ("GET", "/nowhere", 404),
        ("PUT", CONFIGS, 405),
        ("GET", f"{CONFIGS}/a/status", 404),
        ("POST", "/api/v1/namespaces/nowhere/configmaps", 404),
        ("GET", f"{CONFIGS}?labelSelector=a b", 400),
        ("POST", f"{CONFIGS}?dryRun=Some", 400),
        ("GET", f"{CONFIGS}?watch=1&resourceVersion=x", 400),
        ("GET", f"{CONFIGS}?limit=many", 400),
        ("GET", f"{CONFIGS}?continue=x", 400),
    ],
)
async def test_wrong_requests_are_refused_with_a_status(client: Client, method: str, path: str, code: int) -> None:
    seen, body = await client.send(method, path, {"metadata": {"name": "a"}} if method in ("POST", "PUT") else None)

    assert (seen, body["kind"], body["status"], body["code"]) == (code, "Status", "Failure", code)


async def test_a_body_that_cannot_be_read_is_refused(client: Client) -> None:
    url = client.cluster.url + CONFIGS

    async with client.session.post(url, data="{", headers={"Content-Type": "application/json"}) as response:
        code = response.status
    async with client.session.post(url, data="x", headers={"Content-Type": "text/plain"}) as response:
        codes = (code, response.status)

    assert codes == (400, 415)


async def test_unknown_fields_are_answered_with_a_warning(client: Client) -> None:
    body = {"metadata": {"name": "a"}, "date": {}}

    async with client.session.post(client.cluster.url + CONFIGS, json=body) as response:
        warnings = response.headers.getall("Warning")

    assert warnings == ['299 - "unknown field \\"date\\""']


async def test_faults_answer_instead_of_the_server(client: Client) -> None:
    def overloaded(info: RequestInfo) -> ApiError | None:
        return ApiError(429, "TooManyRequests", "later") if info.verb == "create" else None

    client.cluster.faults.append(overloaded)
    refused, _ = await client.send("POST", CONFIGS, {"metadata": {"name": "a"}})
    client.cluster.faults.clear()
    accepted, _ = await client.send("POST", CONFIGS, {"metadata": {"name": "a"}})

    assert (refused, accepted) == (429, 201)


@pytest.mark.parametrize(("cut", "is_done"), [(Cut.BEFORE, False), (Cut.AFTER, True), (Cut.STALL, True)])
async def test_a_cut_connection_leaves_the_client_without_an_answer(client: Client, cut: Cut, is_done: bool) -> None:
    client.cluster.server.breaks.append(lambda info: cut if info.verb == "create" else None)

    with pytest.raises((aiohttp.ClientError, TimeoutError)):
        async with asyncio.timeout(0.2):
            await client.send("POST", CONFIGS, {"metadata": {"name": "a"}})
    code, _ = await client.send("GET", f"{CONFIGS}/a")

    assert code == (200 if is_done else 404)


async def test_a_watch_can_lose_single_events(client: Client) -> None:
    client.cluster.server.watches.losses.append(lambda event: event["type"] == "DELETED")
    watching = asyncio.create_task(client.events(OURS, 2))
    await asyncio.sleep(0)

    await client.create("a", labels={"ours": ""})
    await client.send("DELETE", f"{CONFIGS}/a")
    await client.create("b", labels={"ours": ""})

    assert await watching == [("ADDED", "a"), ("ADDED", "b")]


async def test_requests_are_recorded_as_rbac_sees_them(client: Client) -> None:
    headers = {"User-Agent": "tester/1", "Authorization": "Bearer someone"}
    await client.send("GET", f"{CONFIGS}/missing", **headers)

    last = client.cluster.requests[-1]

    assert (last.verb, last.group, last.target, last.namespace, last.name) == (
        "get",
        "",
        "configmaps",
        "default",
        "missing",
    )
    assert (last.user, last.user_agent, last.code) == ("someone", "tester/1", 404)


async def test_an_evicted_pod_is_marked_and_goes(client: Client) -> None:
    pods = "/api/v1/namespaces/default/pods"
    body = {
        "metadata": {"name": "p", "finalizers": ["example.com/hold"]},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
    await client.send("POST", pods, body)

    code, _ = await client.send("POST", f"{pods}/p/eviction", {"apiVersion": "policy/v1", "kind": "Eviction"})

    _, pod = await client.send("GET", f"{pods}/p")
    marks = {c["type"]: c.get("reason") for c in pod["status"]["conditions"]}
    assert (code, marks["DisruptionTarget"]) == (201, "EvictionByEvictionAPI")
    assert pod["metadata"]["deletionTimestamp"]


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/api/v1/namespaces", {}, ("list", "", "namespaces", "", "")),
        ("GET", "/api/v1/namespaces/n", {}, ("get", "", "namespaces", "n", "n")),
        ("PUT", "/api/v1/namespaces/n/finalize", {}, ("update", "", "namespaces/finalize", "n", "n")),
        ("GET", "/api/v1/namespaces/n/pods", {"watch": "1"}, ("watch", "", "pods", "n", "")),
        ("GET", "/api/v1/namespaces/n/pods/p/log", {}, ("get", "", "pods/log", "n", "p")),
        ("GET", "/apis/batch/v1/jobs", {}, ("list", "batch", "jobs", "", "")),
        ("PATCH", "/apis/batch/v1/namespaces/n/jobs/j/status", {}, ("patch", "batch", "jobs/status", "n", "j")),
        ("DELETE", "/apis/batch/v1/namespaces/n/jobs", {}, ("deletecollection", "batch", "jobs", "n", "")),
    ],
)
def test_paths_are_read_as_rbac_reads_them(
    method: str, path: str, query: dict[str, str], expected: tuple[str, ...]
) -> None:
    info = parse_request(method, path, query)

    assert info is not None
    assert (info.verb, info.group, info.target, info.namespace, info.name) == expected


@pytest.mark.parametrize("path", ["/version", "/api", "/apis/batch/v1", "/openapi/v3/apis/batch/v1"])
def test_other_paths_name_no_resource(path: str) -> None:
    assert parse_request("GET", path, {}) is None


def test_protocol_buffers_that_are_none_are_refused() -> None:
    with pytest.raises(ApiError, match="does not start with the prefix"):
        decode(b"{}")
