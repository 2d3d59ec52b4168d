"""A plain client of the Kubernetes API for load tests: requests and watches. Used by `scale_site` and `fake_node`."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from lora_operator.connection import Connection

Manifest = dict[str, Any]
MERGE_PATCH = "application/merge-patch+json"
CONNECTIONS = 32
MAX_LINE_BYTES = 1 << 22
"""The longest event of a watch."""


class ApiRefusal(Exception):
    """What the API server answered instead of doing what it was asked for."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"{words} (HTTP {code})")
        self.code = code


@dataclass(frozen=True)
class Client:
    """One client of one API server."""

    session: aiohttp.ClientSession
    connection: Connection

    async def send(self, method: str, path: str, body: object = None) -> Manifest:
        """The answer to one request. Raises ApiRefusal in the server's words."""
        kind = MERGE_PATCH if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind, **await self._headers()}
        async with self.session.request(method, self.connection.url + path, data=data, headers=headers) as response:
            answer: Manifest = json.loads(await response.read())
            if response.status >= 300:
                raise ApiRefusal(response.status, str(answer.get("message")))
            return answer

    async def create(self, path: str, body: Manifest) -> None:
        """Creates the object unless one of that name is there."""
        try:
            await self.send("POST", path, body)
        except ApiRefusal as error:
            if error.code != 409:
                raise

    async def watch(self, path: str, **query: str) -> AsyncIterator[tuple[str, Manifest]]:
        """What is there and what changes, for ever: type of each event and object, again from the start after a cut."""
        while True:
            async with self.session.get(
                self.connection.url + path,
                params={"watch": "true", **query},
                headers=await self._headers(),
                timeout=aiohttp.ClientTimeout(total=None, connect=10),
            ) as response:
                if response.status != 200:
                    raise ApiRefusal(response.status, await response.text())
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] in {"ADDED", "MODIFIED", "DELETED"}:
                        yield event["type"], event["object"]
            await asyncio.sleep(0.2)

    async def _headers(self) -> dict[str, str]:
        authorization = await self.connection.authorization()
        return {"Authorization": authorization} if authorization else {}


@asynccontextmanager
async def open_client(kubeconfig: str, agent: str) -> AsyncIterator[Client]:
    """A client whose connections are closed at the end; `agent` is its User-Agent."""
    connection = await Connection.open(kubeconfig)
    connector = aiohttp.TCPConnector(ssl=await connection.ssl_context() or True, limit=CONNECTIONS)
    async with aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": agent},
        timeout=aiohttp.ClientTimeout(total=60),
        read_bufsize=MAX_LINE_BYTES,
    ) as session:
        yield Client(session, connection)
