"""A real Redis server on a free loopback port, for one test or for all."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator

READY = b"Ready to accept connections"
SENTINEL_READY = b"# Sentinel ID is"
ATTEMPTS = 5
MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there has a name of its own
"""Files there end with the machine, not with the server."""


@dataclass
class RedisServer:
    """A server that keeps nothing on the disk. Tests stop, kill and start it again, always on the same port."""

    folder: Path
    data: Path
    arguments: tuple[str, ...] = ()
    config: str = ""
    mode: tuple[str, ...] = ()
    high_port: bool = True
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, and return when it listens. A port that another process took meanwhile is tried for again."""
        for _ in range(ATTEMPTS):
            if self._started(self.port or _free_port(high=self.high_port)):
                return
        raise RuntimeError("redis-server does not start")

    def kill(self) -> None:
        """End it at once, without a word to its clients. Harmless when it has ended."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def freeze(self) -> None:
        """It accepts connections and bytes, by the kernel's grace, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """Send one inline command; the first bytes of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.recv(65536)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def _started(self, port: int) -> bool:
        options = ["--port", str(port), "--bind", "127.0.0.1"]
        if not self.mode:
            options += ["--dir", str(self.data), "--save", "", "--appendonly", "no"]
        named = [self.config] if self.config else []
        process = subprocess.Popen(
            [need("redis-server"), *named, *options, *self.arguments, *self.mode],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        if not any(READY in line or SENTINEL_READY in line for line in process.stdout):
            process.communicate()
            return False
        self.port, self.process = port, process
        return True


def _free_port(*, high: bool) -> int:
    """A free port; not `high`, one that leaves room for the port of a cluster's bus, 10,000 above it."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if high or port < 55536:
            return port


@contextmanager
def running_redis(
    folder: Path, *arguments: str, config: str = "", mode: tuple[str, ...] = (), high_port: bool = True
) -> Iterator[RedisServer]:
    """A server for as long as the context lasts.

    One that writes each command (`--appendonly`) keeps its data in memory where it can: on the disk it answers only
    once that has written what all other tests write, which takes seconds at times.
    """
    with ExitStack() as stack:
        data = folder
        if "--appendonly" in arguments and MEMORY.is_dir():
            data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="docpreview-redis-", dir=MEMORY)))
        server = RedisServer(folder, data, arguments, config, mode, high_port)
        stack.callback(server.kill)
        server.start()
        yield server
