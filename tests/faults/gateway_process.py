"""The real `docpreview-gateway serve` in a process of its own, which can be killed and restarted on the same port."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Self

import grpc

from tests.deployments import deployed
from tests.edge_process import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

BUCKET = "examplebucket-1250000000"
REGION = "ap-chongqing"
SECRET_ID = "example-secret-id"
SECRET_KEY = "EXAMPLEsecretKEY00000000000000000"

SIGNATURE, SLACK, VISIBILITY = 5.0, 1.0, 2.0
"""The ledger's shortest useful times in seconds: an unknown create can be reconciled after eight."""

RECONCILED = SIGNATURE + SLACK + VISIBILITY


class GatewayProcess:
    """A gateway process: `async with GatewayProcess(folder, upstream_port) as gateway`; its address never changes."""

    def __init__(
        self, folder: Path, upstream_port: int, changes: Mapping[str, object] | None = None, **ledger: float
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.port, self.admin_port = free_port(), free_port()
        self._config = folder / "gateway.yaml"
        values = deployed(self._configuration(upstream_port, ledger) | dict(changes or {}))
        self._config.write_text(json.dumps(values))
        self._process: asyncio.subprocess.Process | None = None
        self.kills = 0
        self.prefix: tuple[str, ...] = ()
        """Arguments before the command, such as `taskset -c 0`."""
        self.variables: dict[str, str] = {}
        """What is added to its environment."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self._folder / "gateway.log").read_text()

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._kill()

    async def restart(self) -> None:
        """Kill -9, and restart immediately."""
        await self._kill()
        self.kills += 1
        await self._start()

    async def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """Send SIGTERM, and wait for the end of the drain."""
        self.signal(signal.SIGTERM)
        assert self._process is not None
        assert await asyncio.wait_for(self._process.wait(), 60) == 0, self.log[-2000:]

    async def start(self) -> None:
        """Start again after `stop`."""
        await self._start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the running process."""
        assert self._process is not None
        self._process.send_signal(number)

    async def _start(self) -> None:
        with (self._folder / "gateway.log").open("a") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(*self.prefix, sys.executable, "-m", "docpreview_gateway", "serve", "--config", str(self._config)),
                env={name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")}
                | self.variables,
                stderr=log,
            )
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 100)]
        async with grpc.aio.insecure_channel(self.address, options) as channel:
            ready = asyncio.ensure_future(channel.channel_ready())
            ended = asyncio.ensure_future(self._process.wait())
            await asyncio.wait((ready, ended), timeout=30, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if not ready.done():
                ready.cancel()
                raise AssertionError(f"the gateway did not start:\n{self.log[-2000:]}")

    def _configuration(self, upstream_port: int, ledger: dict[str, float]) -> dict[str, Any]:
        times = {"signature": SIGNATURE, "fence_slack": SLACK, "visibility": VISIBILITY} | ledger
        return {
            "listen": self.address,
            "admin_listen": f"127.0.0.1:{self.admin_port}",
            "state_dir": str(self._folder / "state"),
            "buckets": [{"name": BUCKET, "region": REGION, "credentials": "main"}],
            "credentials": {"main": {"secret_id": SECRET_ID, "secret_key": SECRET_KEY}},
            "upstream": {"endpoint": f"http://127.0.0.1:{upstream_port}", "timeout_seconds": 2},
            "ledger": {f"{name}_seconds": seconds for name, seconds in times.items()},
            # The rest is the default; but an open breaker would refuse most calls of a campaign.
            "breaker": {"min_calls": 0},
            "logging": {"format": "json"},
        }
