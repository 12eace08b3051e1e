"""A full disk, and a locked or corrupt ledger file: creates that cannot be recorded are not sent."""

from __future__ import annotations

import random
import resource
import sqlite3
import uuid
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from tests.faults.campaign import Clients, Intent, cloud
from tests.faults.gateway_process import BUCKET, GatewayProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_emulator import Emulator
    from tests.faults.history import Operation

ONE, OTHER = (
    Intent(str(uuid.UUID(int=number, version=4)), "first", 0, twins=False, tries_other=False) for number in (1, 2)
)


@dataclass
class Scene:
    """A gateway with one job in its ledger."""

    emulator: Emulator
    gateway: GatewayProcess
    clients: Clients
    database: Path
    job_id: str = ""

    async def create(self, intent: Intent) -> Operation:
        (answer,) = await self.clients.ask([intent])
        return answer

    async def read(self) -> str:
        """The id of the job as read from the cloud, past the cache."""
        async with grpc.aio.insecure_channel(self.gateway.address) as channel:
            request = GetPreviewJobRequest(bucket=BUCKET, job_id=self.job_id)
            call = PreviewJobServiceStub(channel).GetPreviewJob(
                request, timeout=10, metadata=(("cache-control", "no-cache"),)
            )
            return str((await call).job_id)

    async def refuses_creates_and_serves_reads(self) -> None:
        """Assert that creates with `request_id` fail closed, while reads succeed."""
        refused = await self.create(OTHER)
        assert (refused.outcome, refused.reason) == ("info", "LEDGER_UNAVAILABLE")
        assert self.emulator.accepted_jobs == 1
        assert await self.read() == self.job_id

    async def recovers(self) -> None:
        """Assert that the refused id gets its job in the same process, and that the first id still has its own."""
        made, again = await self.create(OTHER), await self.create(ONE)
        assert (made.outcome, again.job_id) == ("ok", self.job_id)
        assert self.emulator.accepted_jobs == 2


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with made(tmp_path) as scene:
        yield scene


@asynccontextmanager
async def made(folder: Path) -> AsyncIterator[Scene]:
    async with (
        cloud() as emulator,
        GatewayProcess(folder, emulator.port) as gateway,
        Clients([gateway.address], random.Random(1)) as clients,  # noqa: S311 - a seed makes it repeatable
    ):
        scene = Scene(emulator, gateway, clients, folder / "state" / "creates.db")
        scene.job_id = (await scene.create(ONE)).job_id
        assert scene.job_id
        yield scene


async def test_a_full_disk_refuses_creates_while_reads_go_on(scene: Scene) -> None:
    """RLIMIT_FSIZE keeps every file of the process from growing, its log's included."""
    usual = resource.prlimit(scene.gateway.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(scene.gateway.pid, resource.RLIMIT_FSIZE, (1, usual[1]))
    await scene.refuses_creates_and_serves_reads()
    resource.prlimit(scene.gateway.pid, resource.RLIMIT_FSIZE, usual)
    await scene.recovers()


async def test_a_database_locked_by_another_refuses_creates_while_reads_go_on(scene: Scene) -> None:
    """Another process holds the file's lock for longer than the gateway waits for it."""
    with closing(sqlite3.connect(scene.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await scene.refuses_creates_and_serves_reads()
        assert "database is locked" in scene.gateway.log
        other.execute("ROLLBACK")
    await scene.recovers()


async def test_a_broken_ledger_file_prevents_the_start_and_is_named(scene: Scene) -> None:
    """With the original file back the gateway starts, and its job is known."""
    await scene.gateway.stop()
    good = scene.database.read_bytes()
    scene.database.write_bytes(b"\0" * 100 + good[100:])
    with pytest.raises(AssertionError, match=r"state_dir: .*creates\.db: file is not a database"):
        await scene.gateway.start()
    scene.database.write_bytes(good)
    await scene.gateway.start()
    await scene.recovers()
