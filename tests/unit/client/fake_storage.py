"""A storage that keeps objects, fails where a test wants it to, and records what it was asked."""

import hashlib
import threading
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PATIENCE = 10.0


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class FakeStorage:
    """Objects by path.

    A fault of a path is a status, `cut` (half of the content, then the connection breaks), `stop` (half of the content,
    then nothing) or `long` (the content twice, its length not told); of a PUT `cut`, `page` (a proxy's) or `bare` (no
    ETag).
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    faults: dict[str, list[int | str]] = field(default_factory=lambda: defaultdict(list))
    types: dict[str, str] = field(default_factory=dict)
    """Content types by path; others have none."""
    connections: int = 0
    most_at_once: int = 0
    gathering: threading.Barrier | None = None
    """When it is set, requests wait for each other."""

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self.over = threading.Event()
        self._running = 0
        handler = type("Handler", (_Handler,), {"kept": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def begin(self, asked: Asked) -> int | str | None:
        with self._lock:
            self.asked.append(asked)
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
            faults = self.faults[asked.path]
            fault = faults.pop(0) if faults else None
        if self.gathering is not None:
            with suppress(threading.BrokenBarrierError):  # the test has seen enough
                self.gathering.wait(PATIENCE)
        return fault

    def end(self) -> None:
        with self._lock:
            self._running -= 1

    def of(self, method: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == method]


class _Handler(BaseHTTPRequestHandler):
    kept: FakeStorage
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def setup(self) -> None:
        super().setup()
        self.kept.connections += 1

    def do_GET(self) -> None:
        fault, path = self._begin(b"")
        try:
            if isinstance(fault, int):
                self._answer(fault, b"<Error>refused</Error>", {})
                return
            content = self.kept.objects.get(path)
            if content is None:
                self._answer(404, b"", {})
                return
            asked = self.headers.get("Range", "")
            begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            span = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if asked else {}
            span |= {"Content-Type": self.kept.types[path]} if path in self.kept.types else {}
            if asked and begin >= len(content):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            self._answer(206 if asked else 200, content[begin:], span, fault=fault)
        finally:
            self.kept.end()

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault, path = self._begin(body)
        try:
            if fault == "cut":
                self.close_connection = True
                return
            if isinstance(fault, int):
                self._answer(fault, b"", {})
                return
            etag = {"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'}
            if fault == "page":
                self._answer(200, b"<html>", {**etag, "Content-Type": "text/html; charset=utf-8"})
                return
            self.kept.objects[path] = body
            self._answer(200, b"", {} if fault == "bare" else etag)
        finally:
            self.kept.end()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing."""

    def _begin(self, body: bytes) -> tuple[int | str | None, str]:
        path = self.path.partition("?")[0]
        return self.kept.begin(Asked(self.command, path, dict(self.headers.items()), body)), path

    def _answer(self, status: int, body: bytes, headers: dict[str, str], *, fault: int | str | None = None) -> None:
        self.send_response(status)
        told = {"Connection": "close"} if fault == "long" else {"Content-Length": str(len(body))}
        for name, value in {**told, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # the client may have enough of it
            self.wfile.write(body if fault is None else body * 2 if fault == "long" else body[: len(body) // 2])
        if fault == "stop":
            self.kept.over.wait(PATIENCE)
        self.close_connection = fault is not None
