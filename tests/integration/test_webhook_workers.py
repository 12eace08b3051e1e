"""Outgoing webhooks of `serve --workers 2`: workers share one queue, in a file or in Redis."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from docpreview_client import ClientOptions, DocPreviewClient
from docpreview_gateway.storage.redis_keys import slot_prefix
from docpreview_gateway.webhooks.delivering import MOST_PER_TARGET
from docpreview_gateway.wiring.state_files import WEBHOOKS_FILE
from tests.integration.conftest import until
from tests.integration.gateway_processes import Running, configuration, running
from tests.integration.test_webhooks import Hooks, hooks
from tests.integration.test_workers import family
from tests.redis_server import RedisServer, running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["hooks"]

JOBS, CLIENTS = 24, 8
LEASE_SHOWN_SECONDS = 3.0
"""For so long a test watches that nobody else takes up what a process has in hand: three rounds of each worker."""


@dataclass
class Workers:
    """Two workers, and clients that have connections to both."""

    gateway: Running
    clients: list[DocPreviewClient]
    folder: Path
    redis: RedisServer | None

    def outcomes(self) -> list[dict[str, Any]]:
        """The log lines of attempts."""
        (log,) = self.folder.glob("gateway-*.log")
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "webhook"]

    def sender_of(self, port: int) -> int:
        """The process whose connection has this local port."""
        for pid in family(self.gateway.process.pid):
            sockets = {
                fields[9]
                for fields in map(str.split, Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:])
                if int(fields[1].rpartition(":")[2], 16) == port
            }
            for each in Path(f"/proc/{pid}/fd").iterdir():
                if each.is_symlink() and str(each.readlink()).removeprefix("socket:[").rstrip("]") in sockets:
                    return pid
        raise AssertionError(f"no process has a connection from port {port}")

    def end_leases(self) -> None:
        """What is in hand is due, as if the minute of its lease were over."""
        if self.redis is not None:
            prefix = slot_prefix("docs", "webhooks")
            for name in self._ids():
                self.redis.command("ZADD", f"{prefix}due", "XX", "0", name)
            return
        with closing(sqlite3.connect(self.folder / WEBHOOKS_FILE)) as queue, queue:
            queue.execute("UPDATE deliveries SET due = 0")

    def _ids(self) -> list[str]:
        assert self.redis is not None
        answer = self.redis.command("ZRANGE", f"{slot_prefix('docs', 'webhooks')}due", "0", "-1").decode()
        return [line for line in answer.split("\r\n") if line.startswith("evt_")]


@asynccontextmanager
async def workers(hooks: Hooks, folder: Path, *, shared: bool) -> AsyncIterator[Workers]:
    """A gateway with two workers, whose queue is in Redis if `shared`."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running_redis(folder)) if shared else None
        changes: dict[str, object] = {"policy": {"file": str(hooks.folder / "policy.yaml")}}
        if server is not None:
            changes["shared_state"] = {"url": server.url, "namespace": "docs", "timeout_seconds": 1.0}
        gateway = await stack.enter_async_context(
            running(configuration(hooks.emulator, folder, **changes), "--workers", "2")
        )
        options = ClientOptions(request_ids=False, metadata=lambda: {"authorization": f"Bearer {hooks.token}"})
        clients = [
            await stack.enter_async_context(DocPreviewClient(gateway.address, options=options)) for _ in range(CLIENTS)
        ]
        yield Workers(gateway, clients, folder, server)


@pytest.mark.parametrize("shared", [False, True], ids=["sqlite", "redis"])
async def test_each_event_is_sent_once_by_one_of_two_workers(hooks: Hooks, tmp_path: Path, *, shared: bool) -> None:
    """None is lost, whichever worker has made the job."""
    hooks.emulator.hold_jobs()
    async with workers(hooks, tmp_path, shared=shared) as both, asyncio.timeout(90):
        made = await asyncio.gather(*(hooks.create(both.clients[each % CLIENTS]) for each in range(JOBS)))
        jobs = {job.job_id for job in made}
        assert len(jobs) == JOBS
        hooks.receiver.answering.clear()
        hooks.emulator.release_jobs()
        # So many are under way only when each worker sends as many as it may; no two send the same.
        held = await hooks.receiver.next(2 * MOST_PER_TARGET)
        assert len({each.id for each in held}) == 2 * MOST_PER_TARGET
        hooks.receiver.answering.set()
        await until(lambda: len(both.outcomes()) >= JOBS, seconds=60)
        await asyncio.sleep(LEASE_SHOWN_SECONDS)
        assert Counter(each.event["subject"] for each in hooks.receiver.received) == Counter(jobs)
        assert [each["outcome"] for each in both.outcomes()] == ["delivered"] * JOBS


@pytest.mark.parametrize("shared", [False, True], ids=["sqlite", "redis"])
async def test_a_worker_that_dies_in_a_delivery_leaves_it_to_the_other(
    hooks: Hooks, tmp_path: Path, *, shared: bool
) -> None:
    """While it holds the event nobody else sends it; when its lease is over another does, with the same id."""
    hooks.receiver.answering.clear()
    async with workers(hooks, tmp_path, shared=shared) as both, asyncio.timeout(90):
        job = await hooks.create(both.clients[0])
        (first,) = await hooks.receiver.next()
        await asyncio.sleep(LEASE_SHOWN_SECONDS)
        assert len(hooks.receiver.received) == 1
        os.kill(both.sender_of(hooks.receiver.senders[0]), signal.SIGKILL)
        await asyncio.sleep(LEASE_SHOWN_SECONDS)
        assert len(hooks.receiver.received) == 1
        hooks.receiver.answering.set()
        both.end_leases()
        again = (await hooks.receiver.next(2))[1]
        assert (again.id, again.body) == (first.id, first.body)
        assert again.event["subject"] == job.job_id
        await until(lambda: [each["outcome"] for each in both.outcomes()] == ["delivered"])
        assert both.outcomes()[0]["attempt"] == 1
