"""Asks running pods how far they are (`GET http://<pod ip>:9400/progress`), and for a state (`POST …/checkpoint`).

Used by `poller`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from lora_api import ProgressReport, names
from lora_operator.observed import parse_report

log = logging.getLogger(__name__)

SIDE_BY_SIDE = 20
"""Pods that are asked at once; with the timeout it bounds how long a round of dead pods takes."""
TIMEOUT = aiohttp.ClientTimeout(total=3, connect=1)
MAX_BYTES = 1 << 20


class ProgressReader:
    """Reads the progress of pods, a bounded number at once; what a pod answers is never trusted."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._turn = asyncio.Semaphore(SIDE_BY_SIDE)

    async def read(self, address: str) -> ProgressReport | None:
        """What the pod at this IP address says, or None when it says nothing useful."""
        async with self._turn:
            try:
                return await self._read(f"{_origin(address)}/progress")
            except (aiohttp.ClientError, OSError, ValueError) as error:
                # Normal while a pod starts or ends; the next round asks again.
                log.debug("%s did not tell its progress: %s", address, error)
                return None

    async def request_state(self, address: str, request: str) -> None:
        """Asks the pod at this IP address to save a state after its next step; that it did, its progress will tell."""
        async with self._turn:
            try:
                await self._post(f"{_origin(address)}/checkpoint", {"request": request})
            except (aiohttp.ClientError, OSError) as error:
                log.debug("%s could not be asked for a state: %s", address, error)

    async def _post(self, url: str, content: dict[str, str]) -> None:
        async with self._session.post(url, json=content, allow_redirects=False) as response:
            if response.status != 202:
                log.debug("%s answered %s to a request for a state", url, response.status)

    async def _read(self, url: str) -> ProgressReport | None:
        async with self._session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                return None
            content = await response.content.read(MAX_BYTES + 1)
            while not response.content.at_eof() and len(content) <= MAX_BYTES:
                content += await response.content.read(MAX_BYTES + 1 - len(content))
            return parse_report(content, ProgressReport) if len(content) <= MAX_BYTES else None


def _origin(address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{names.TRAINER_PORT}"


@asynccontextmanager
async def open_progress_reader() -> AsyncIterator[ProgressReader]:
    """A reader whose connections are closed at the end."""
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        yield ProgressReader(session)
