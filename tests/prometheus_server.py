"""A real Prometheus server on a free loopback port, and its `promtool`."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path


def promtool(*arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    words = [need("promtool"), *map(str, arguments)]
    return subprocess.run(words, input=text, check=False, capture_output=True, text=True, timeout=60)


@dataclass
class Prometheus:
    """A server that runs."""

    url: str

    async def get(self, path: str, **parameters: object) -> Any:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(
                f"{self.url}{path}", params={key: str(value) for key, value in parameters.items()}
            )
        return answer.json()["data"] if answer.status_code == httpx.codes.OK else None

    async def until(self, condition: Callable[[Any], object], path: str, **parameters: object) -> Any:
        """What it answers, once that fulfils the condition: it scrapes and evaluates every half second."""
        async with asyncio.timeout(60):
            while True:
                try:
                    found = await self.get(path, **parameters)
                except httpx.TransportError:
                    found = None
                if found is not None and condition(found):
                    return found
                await asyncio.sleep(0.2)


@asynccontextmanager
async def running_prometheus(
    folder: Path, port: int | None, rules: Sequence[Path], *, targets: Path | None = None, patience: str = "500ms"
) -> AsyncIterator[Prometheus]:
    """A server that scrapes the port as the job `docpreview-gateway` and evaluates the rules, until the block ends.

    Further targets are those of the files `*.json` in the folder `targets`, as they are there and change. `patience` is
    the interval of scrapes, and their time limit.
    """
    scraped: list[dict[str, object]] = []
    if port is not None:
        own = [{"targets": [f"127.0.0.1:{port}"]}]
        scraped.append({"job_name": "docpreview-gateway", "static_configs": own})
    if targets is not None:
        files = [{"files": [str(targets / "*.json")], "refresh_interval": "1s"}]
        scraped.append({"job_name": "by-file", "file_sd_configs": files})
    configuration = {
        "global": {"scrape_interval": patience, "scrape_timeout": patience, "evaluation_interval": "500ms"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": scraped,
    }
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(configuration))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listens = probe.getsockname()[1]
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            need("prometheus"),
            f"--config.file={path}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{listens}",
            "--enable-feature=exemplar-storage",
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(f"http://127.0.0.1:{listens}")
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 20)
