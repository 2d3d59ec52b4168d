"""Serves /metrics, /healthz and /readyz on a thread of its own, so that a stuck event loop can be told."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

log = logging.getLogger(__name__)

STOP_SECONDS = 0.1
"""How long it may take until the server sees that it shall stop."""
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Checks:
    """What the probes ask. Each answers with what is wrong, or with nothing."""

    health: Callable[[], str]
    readiness: Callable[[], str]


class Server:
    """The HTTP server; listens from its creation on."""

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, checks: Checks) -> None:
        self._http = ThreadingHTTPServer(address, _handler(registry, checks))
        self._http.daemon_threads = True
        serve = partial(self._http.serve_forever, poll_interval=STOP_SECONDS)
        self._thread = threading.Thread(target=serve, name="http", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Port that it listens on."""
        return int(self._http.server_address[1])

    def close(self) -> None:
        """Stops listening and waits for the thread."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _handler(registry: CollectorRegistry, checks: Checks) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10
        server_version = "lora-operator"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._send(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path in {"/healthz", "/readyz"}:
                problem = checks.health() if path == "/healthz" else checks.readiness()
                self._send(503 if problem else 200, PLAIN, f"{problem or 'ok'}\n".encode())
            else:
                self._send(404, PLAIN, b"try /metrics, /healthz or /readyz\n")

        def _send(self, status: int, content_type: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            log.debug(format, *args)

    return Handler
