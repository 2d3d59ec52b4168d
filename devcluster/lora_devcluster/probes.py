"""HTTP and TCP probes of a running container: its readiness, and whether it must be restarted."""

import asyncio
from collections.abc import Callable

import aiohttp

from lora_devcluster.errors import Json


def _port(container: Json, wanted: int | str) -> int:
    if isinstance(wanted, int):
        return wanted
    return next((int(port["containerPort"]) for port in container.get("ports") or () if port.get("name") == wanted), 0)


async def _answers(container: Json, probe: Json, address: str) -> bool:
    timeout = probe["timeoutSeconds"]
    try:
        if probe.get("httpGet"):
            target = probe["httpGet"]
            url = f"http://{target.get('host') or address}:{_port(container, target['port'])}{target['path']}"
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout)) as session,
                session.get(url) as response,
            ):
                return 200 <= response.status < 400
        port = _port(container, (probe.get("tcpSocket") or {}).get("port", 0))
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), timeout)
        writer.close()
    except (OSError, TimeoutError, aiohttp.ClientError):
        return False
    return True


class ProbeRunner:
    """Keeps a container's `ready` true to its readiness probe and ends when its liveness or startup probe gives up."""

    def __init__(self, container: Json, address: str, status: Json, publish: Callable[[], None]) -> None:
        self._container = container
        self._address = address
        self._status = status
        self._publish = publish

    async def until_unhealthy(self) -> None:
        """Returns when the container has to be restarted; runs on without end while it is well."""
        kinds = ("startup", "liveness", "readiness")
        startup, liveness, readiness = (self._container.get(f"{kind}Probe") for kind in kinds)
        if startup is not None and not await self._started(startup):
            return
        keeper = asyncio.ensure_future(self._keep_ready(readiness)) if readiness else None
        try:
            await (self._until_dead(liveness) if liveness else asyncio.Event().wait())
        finally:
            if keeper:
                keeper.cancel()

    async def _started(self, probe: Json) -> bool:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        for _ in range(probe["failureThreshold"]):
            if await _answers(self._container, probe, self._address):
                return True
            await asyncio.sleep(probe["periodSeconds"])
        return False

    async def _until_dead(self, probe: Json) -> None:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        failures = 0
        while failures < probe["failureThreshold"]:
            await asyncio.sleep(probe["periodSeconds"])
            failures = 0 if await _answers(self._container, probe, self._address) else failures + 1

    async def _keep_ready(self, probe: Json) -> None:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        failures = 0
        while True:
            if await _answers(self._container, probe, self._address):
                failures = 0
                self._set_ready(True)
            else:
                failures += 1
                if failures >= probe["failureThreshold"]:
                    self._set_ready(False)
            # A container that is not ready yet is asked sooner, so that small clusters come up quickly.
            await asyncio.sleep(probe["periodSeconds"] if self._status["ready"] else min(0.5, probe["periodSeconds"]))

    def _set_ready(self, ready: bool) -> None:
        if self._status["ready"] is not ready:
            self._status["ready"] = ready
            self._publish()
