"""A model hub on loopback that speaks as much of the Hugging Face API as `snapshot_download` asks for."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "a" * 40
TOKEN = "hf_secret"


@dataclass
class FakeHub:
    """Repositories by `owner/name`; those in `gated` need TOKEN."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    endpoint: str = ""


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        name = next((name for name in self.hub.repositories if f"/{name}/" in f"{path}/"), None)
        if name is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
        elif name in self.hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, with_body)
        elif path.startswith(("/api/models/", "/api/datasets/")):
            self._send_listing(name, path, with_body)
        else:
            self._send_file(name, path, with_body)

    def _send_listing(self, name: str, path: str, with_body: bool) -> None:
        revision = path.rpartition("/")[2] if "/revision/" in path else "main"
        if revision not in {"main", "v1", COMMIT}:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body)
            return
        files = self.hub.repositories[name]
        if "/tree/" in path:
            rows: Any = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in files.items()
            ]
        else:
            rows = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
        self._send(200, json.dumps(rows).encode(), {"Content-Type": "application/json"}, with_body)

    def _send_file(self, name: str, path: str, with_body: bool) -> None:
        data = self.hub.repositories[name][path.removeprefix("/datasets").split("/", 5)[5]]
        etag = hashlib.sha1(data).hexdigest()
        self._send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, with_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub for the time of the `with` block."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
