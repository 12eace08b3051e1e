"""Envoy as the edge, with what `docpreview-gateway edge-config` writes for a gateway's settings."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import httpx

from docpreview_gateway.settings.loading import load
from docpreview_gateway.wiring import edge_config
from tests.programs import need

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

PATIENCE = 30.0
"""Time-out in seconds of every expected event."""


_WITHOUT_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP: each would else read all authorities of the machine, slower than its request."""


_GIVEN: set[int] = set()
"""Ports that tests of this process have got: who asks for several gets different ones."""


def free_port() -> int:
    """A port that is free now, that was not given before, and below those of the kernel for outgoing connections."""
    while True:
        # Not of `random`, whose state Hypothesis sets: all processes would have the same ports.
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            if port not in _GIVEN:
                probe.bind(("127.0.0.1", port))
                _GIVEN.add(port)
                return port


def edge_settings(**changes: Any) -> dict[str, Any]:
    """The section `edge` with free ports."""
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("listen", "metrics_listen", "admin_listen")}
    return ports | changes


class EdgeProcess:
    """A running Envoy: `async with EdgeProcess(gateway_yaml, folder) as edge`. It is there when its listeners are."""

    def __init__(self, config: Path, folder: Path) -> None:
        self._program = need("envoy")
        self._config = config
        self._folder = folder
        values = json.loads(config.read_text())
        self.listen, self.metrics, self.admin = (
            values["edge"][name] for name in ("listen", "metrics_listen", "admin_listen")
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def log(self) -> str:
        return (self._folder / "envoy.log").read_text()

    @property
    def has_ended(self) -> bool:
        assert self._process is not None
        return self._process.returncode is not None

    async def __aenter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        settings = load(self._config)
        for name, content in edge_config.files(settings, self._folder).items():
            (self._folder / name).write_bytes(content)
        bootstrap = self._folder / edge_config.BOOTSTRAP
        bootstrap.write_text(self.configured(bootstrap.read_text()))
        arguments = edge_config.arguments(settings, self._folder)
        with (self._folder / "envoy.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._program, *arguments, "--concurrency", "2", "--log-level", "warning", stdout=log, stderr=log
            )
        await asyncio.wait_for(self._ready(), PATIENCE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        await asyncio.wait_for(self._process.wait(), PATIENCE)

    def configured(self, bootstrap: str) -> str:
        """What Envoy is started with; tests may change what takes minutes."""
        return bootstrap

    async def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the port of metrics."""
        async with httpx.AsyncClient(trust_env=False, verify=_WITHOUT_AUTHORITIES) as browser:
            answer = await browser.get(f"http://{self.metrics}{path}")
            return answer.status_code, answer.text

    async def count(self, name: str, **labels: str) -> float:
        """The sum of a metric over all samples with these labels, by Envoy's name in Prometheus' form."""
        _, text = await self.page("/stats/prometheus")
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.partition("{")[0] == name and all(f'{key}="{value}"' in line for key, value in labels.items())
        )

    async def _ready(self) -> None:
        while True:
            assert self._process is not None
            assert self._process.returncode is None, self.log
            try:
                status, _ = await self.page("/ready")
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except (httpx.TransportError, OSError):
                status = 0
            else:
                writer.close()
            if status == httpx.codes.OK:
                return
            await asyncio.sleep(0.05)
