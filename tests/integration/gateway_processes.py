"""`docpreview-gateway serve` as a process, the way it is deployed."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import httpx

from tests.deployments import deployed
from tests.integration.conftest import BUCKET, REGION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from docpreview_emulator import Emulator
    from tests.fakes.job_cloud import JobCloud

_WITHOUT_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP: each would else read all authorities of the machine, slower than its request."""


async def page(port: int, path: str) -> tuple[int, str]:
    """Status and text of a page of an admin port."""
    async with httpx.AsyncClient(trust_env=False, verify=_WITHOUT_AUTHORITIES) as browser:
        answer = await browser.get(f"http://127.0.0.1:{port}{path}")
        return answer.status_code, answer.text


@dataclass
class Running:
    """A serving gateway process."""

    process: asyncio.subprocess.Process
    port: int
    admin_port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def kill(self) -> None:
        """Kill -9: no drain."""
        self.process.kill()
        await self.process.wait()


def configuration(cloud: Emulator | JobCloud, folder: Path, **changes: object) -> Path:
    values: dict[str, object] = {
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "state_dir": str(folder),
        "buckets": [{"name": BUCKET, "region": REGION, "credentials": "main"}],
        "credentials": {"main": {"secret_id": "example-secret-id", "secret_key": "EXAMPLEsecretKEY00000000000000000"}},
        "upstream": {"endpoint": cloud.url},
        "drain": {"delay_seconds": 0.5, "grace_seconds": 20},
        "logging": {"format": "json"},
    }
    path = folder / "gateway.yaml"
    path.write_text(json.dumps(deployed(values | changes)))
    return path


@asynccontextmanager
async def running(
    path: Path, *arguments: str, variables: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Running]:
    """Start the command and wait until it serves; processes that are left at the end are killed.

    `variables` are added to its environment.
    """
    log = path.with_name(f"{path.stem}-{os.urandom(4).hex()}.log")
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "docpreview_gateway", "serve", "--config", str(path), *arguments),
            env={name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")}
            | dict(variables),
            stderr=errors,
        )
    try:
        entry = await asyncio.wait_for(_serving(process, log.read_text), 60)
        yield Running(process, entry["grpc_port"], entry["admin_port"])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _serving(process: asyncio.subprocess.Process, log: Callable[[], str]) -> dict[str, int]:
    """Fields of the log line with the served ports."""
    while process.returncode is None:
        for line in log().splitlines():
            entry = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
            if entry.get("event") == "serving":
                return entry
        await asyncio.sleep(0.05)
    raise AssertionError(f"the gateway did not start:\n{log()[-2000:]}")
