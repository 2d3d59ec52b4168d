"""A loopback HTTP proxy in front of an S3 server that makes chosen requests go wrong, on their way or on the way back.

Used by the tests of the storage and by whole runs: point `spec.storage.endpoint` at `proxy.endpoint`. The Host header
passes unchanged, so signatures hold. It keeps bodies in memory: for small files only.
"""

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import StrEnum
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote_plus, urlsplit


class Kind(StrEnum):
    """What goes wrong with a request."""

    INTERNAL_ERROR = "500"
    SLOW_DOWN = "503 SlowDown"
    DENIED = "403 AccessDenied"
    EXPIRED_TOKEN = "400 ExpiredToken"
    CLOCK_SKEW = "403 RequestTimeTooSkewed"
    RESET = "connection reset before the store is asked"
    LOST_ANSWER = "the store does it, but the connection is reset before its answer"
    STALL = "no answer until `release`"
    CUT_BODY = "half of the body, then the connection is closed"
    WRONG_BYTES = "one byte of the body is changed, on its way up or down"
    LOST_UPLOAD = "200 to an upload that the store never sees"


PASSING = tuple(kind for kind in Kind if kind not in {Kind.DENIED, Kind.EXPIRED_TOKEN})
"""Faults that a client should survive when they happen once."""
CLOCK_AHEAD_SECONDS = 3600
_CODES = {
    Kind.INTERNAL_ERROR: (500, "InternalError"),
    Kind.SLOW_DOWN: (503, "SlowDown"),
    Kind.DENIED: (403, "AccessDenied"),
    Kind.EXPIRED_TOKEN: (400, "ExpiredToken"),
    Kind.CLOCK_SKEW: (403, "RequestTimeTooSkewed"),
}


@dataclass
class Rule:
    """The requests `first` to `first + times - 1` of those that match go wrong."""

    kind: Kind
    method: str = ""
    """Empty: any."""
    key: str = ""
    """Regular expression, searched in the unquoted `/bucket/key?query`."""
    first: int = 1
    times: int = 1
    matched: int = 0
    """How many requests matched so far."""

    def hits(self, method: str, path: str) -> bool:
        """Counts the request if it matches; whether it is to go wrong."""
        if self.method not in {"", method} or not re.search(self.key, path):
            return False
        self.matched += 1
        return self.first <= self.matched < self.first + self.times


@dataclass
class FaultProxy:
    """A running proxy; `rules` may be changed at any time, the first that hits decides."""

    upstream: str
    endpoint: str = ""
    rules: list[Rule] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """`METHOD /bucket/key?query` of every request, unquoted."""
    injected: list[Kind] = field(default_factory=list)
    """Every fault that happened."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _released: threading.Event = field(default_factory=threading.Event)

    def reset(self) -> None:
        """No rules, nothing remembered, stalled requests let go."""
        with self._lock:
            self._released.set()
            self._released = threading.Event()
            self.rules.clear()
            self.requests.clear()
            self.injected.clear()

    def release(self) -> None:
        """Closes the connections of stalled requests, and of those to come until `reset`."""
        self._released.set()

    def stall(self) -> None:
        """Waits for `release`."""
        self._released.wait()

    def fault_of(self, method: str, path: str) -> Kind | None:
        """Notes a request; what is to go wrong with it."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            hit = [rule.kind for rule in self.rules if rule.hits(method, path)]
            self.injected += hit[:1]
            return hit[0] if hit else None


@contextlib.contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A proxy in front of `upstream` (`http://127.0.0.1:port`) on a free loopback port."""
    proxy = FaultProxy(upstream)
    methods = {f"do_{method}": _Handler.pass_on for method in ("GET", "HEAD", "PUT", "POST", "DELETE")}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy, **methods}))
    server.daemon_threads = True
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.release()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """Or each answer's body waits 40 ms for the client to acknowledge the headers."""
    proxy: FaultProxy

    def pass_on(self) -> None:
        """Answers one request, as the rules say."""
        fault = self.proxy.fault_of(self.command, unquote_plus(self.path))
        length = int(self.headers.get("Content-Length") or 0)
        if fault is Kind.CUT_BODY and length:
            self.rfile.read(length // 2)
            self._drop()
            return
        body = self.rfile.read(length)
        match fault:
            case Kind.RESET:
                self._drop()
            case Kind.STALL:
                self.proxy.stall()
                self._drop()
            case Kind.LOST_UPLOAD if self.command == "PUT":
                self._answer(200, [("ETag", '"0"')], b"")
            case kind if kind in _CODES:
                self._refuse(kind)
            case _:
                self._forward(fault, _flipped(body) if fault is Kind.WRONG_BYTES and body else body)

    def _refuse(self, kind: Kind) -> None:
        status, code = _CODES[kind]
        body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        ahead = formatdate(usegmt=True) if kind is not Kind.CLOCK_SKEW else _date_ahead()
        self._answer(status, [("Content-Type", "text/xml"), ("Date", ahead)], body)

    def _forward(self, fault: Kind | None, body: bytes) -> None:
        connection = HTTPConnection(urlsplit(self.proxy.upstream).netloc)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {"connection", "expect"}:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
        if fault is Kind.LOST_ANSWER:
            self._drop()
            return
        if fault is Kind.WRONG_BYTES and self.command == "GET" and content:
            content = _flipped(content)
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OWN_HEADERS]
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self._answer(answer.status, headers, content, length=length, cut=fault is Kind.CUT_BODY)

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
        *,
        length: str | None = None,
        cut: bool = False,
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self._drop()

    def _drop(self) -> None:
        """Resets the connection: the peer reads an error, not an end."""
        self.close_connection = True
        self.wfile.flush()
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Closing the socket is left to the server: it shuts down politely only what still lives.
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


_OWN_HEADERS = {"content-length", "connection", "transfer-encoding", "keep-alive"}


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def _date_ahead() -> str:
    return formatdate(time.time() + CLOCK_AHEAD_SECONDS, usegmt=True)
