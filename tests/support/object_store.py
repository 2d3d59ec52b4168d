"""An S3 server (moto) in this process that can be told to fail: answers of 5xx and 403, cut and damaged bodies."""

import contextlib
import itertools
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from lora_api.cluster_spec import Storage
from lora_trainer.settings import Settings
from lora_trainer.storage import Connection

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_numbers = itertools.count(1)


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of `method` whose path contains `path`."""

    method: str
    path: str = ""
    status: int | None = None
    """Answer with this status and `code` instead of asking the store."""
    code: str = ""
    cut_body: bool = False
    """Send half of the body, then close the connection."""
    flip_byte: bool = False
    """Change the last byte of the body."""
    lose: bool = False
    """Say 200 to an upload, and store nothing."""
    lose_answer: bool = False
    """Let the store do it, then close the connection without an answer."""
    header: str = ""
    """Only requests that have a header whose name begins so."""
    times: int = 1_000_000

    def applies(self, environ: dict[str, Any]) -> bool:
        return (
            self.times > 0
            and environ["REQUEST_METHOD"] == self.method
            and self.path in f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}"
            and any(name.startswith(f"HTTP_{self.header.upper().replace('-', '_')}") for name in environ)
        )


@dataclass
class FaultyStore:
    """A running server; `faults` may be changed at any time."""

    endpoint: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """`METHOD path` of every request since the last `reset`."""

    signed_with: list[str] = field(default_factory=list)
    """Access key of every signed request since the last `reset`."""
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    page_size: int | None = None
    """Objects that a listing shows at once."""

    @cached_property
    def client(self) -> Any:
        """A plain client that stores no checksums of its own, as older tools do."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="k",
            aws_secret_access_key="s",
            config=Config(request_checksum_calculation="when_required"),
        )

    def make_bucket(self) -> str:
        """A new bucket."""
        name = f"bucket-{next(_numbers)}"
        self.client.create_bucket(Bucket=name)
        return name

    def connection(self, work_dir: Path, *, attempts: int = 2, **storage: Any) -> Connection:
        """A connection with credentials on files; pauses between tries take no time."""
        credentials = work_dir / "credentials"
        credentials.mkdir(parents=True, exist_ok=True)
        (credentials / "AWS_ACCESS_KEY_ID").write_text("k\n")
        (credentials / "AWS_SECRET_ACCESS_KEY").write_text("s\n")
        return Connection(
            Storage(**{"endpoint": self.endpoint, **storage}),
            Settings(work_dir=work_dir / "work", credentials_dir=credentials),
            attempts=attempts,
            pause=lambda _: None,
        )

    def reset(self) -> None:
        """No faults, no requests."""
        self.page_size = None
        self.faults.clear()
        self.requests.clear()
        self.signed_with.clear()

    def wrap(self, app: App) -> App:
        """`app` with the faults in front of it."""

        def failing(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
            self.signed_with += re.findall(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
            if self.page_size and "list-type=2" in environ["QUERY_STRING"]:
                environ["QUERY_STRING"] += f"&max-keys={self.page_size}"
            fault = next((fault for fault in self.faults if fault.applies(environ)), None)
            if fault is None and environ["REQUEST_METHOD"] == "PUT":
                # moto checks a condition and writes in two steps.
                with self._one_at_a_time:
                    return list(app(environ, start_response))
            if fault is None:
                return app(environ, start_response)
            fault.times -= 1
            return _fail(fault, app, environ, start_response)

        return failing


def _fail(fault: Fault, app: App, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if fault.status is not None:
        body = f"<Error><Code>{fault.code}</Code><Message>secret-key-in-message</Message></Error>".encode()
        start_response(f"{fault.status} Fault", [("Content-Length", str(len(body))), ("Content-Type", "text/xml")])
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
    if fault.lose:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("200 OK", [("ETag", '"0"'), ("Content-Length", "0")])
        return []
    if fault.lose_answer:
        list(app(environ, lambda *_: None))
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError("the test loses this answer")
    body = b"".join(app(environ, start_response))
    if fault.flip_byte:
        return [body[:-1] + bytes([body[-1] ^ 1])]
    return _cut(body)


def _cut(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    raise ConnectionAbortedError("the test cuts this body")


@contextlib.contextmanager
def faulty_store(certificate: ssl.SSLContext | None = None) -> Iterator[FaultyStore]:
    """A server on a free loopback port for the time of the `with` block; with a certificate it speaks TLS."""
    store = FaultyStore()
    app = store.wrap(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=certificate)
    store.endpoint = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
