"""A gateway process started on what version 0.x has left: `tests/vectors/stores/old`, its dates moved to today."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from redis import Redis

from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview.v1.usage_service_pb2 import GetUsageRequest
from docpreview.v1.usage_service_pb2_grpc import UsageServiceStub
from docpreview_emulator import Emulator
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.client import CloudClient
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.operations import CreateJob
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.contract.stored_forms import BUCKET, DAY, FORMS, NOW, copy_old_files, old_digest, request, restore
from tests.fakes.credentials import FakeCredentials
from tests.fakes.telemetry import FakeTelemetry
from tests.integration.conftest import REGION
from tests.integration.gateway_processes import Running, configuration, running
from tests.integration.identity import Policy, bearer
from tests.redis_server import RedisServer, running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview.v1.usage_service_pb2 import Usage

TIMES = ("expires_at", "sent_at", "fence", "lease_until", "made_at", "look_at")


def moved_files(folder: Path, seconds: float, today: str) -> None:
    """The old files, as if they had been written `seconds` later, today."""
    copy_old_files(folder)
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger, ledger:
        for name in TIMES[:4]:
            ledger.execute(f"UPDATE creates SET {name} = {name} + ? WHERE {name} != 0", (seconds,))  # noqa: S608
    with closing(sqlite3.connect(folder / "pages.db")) as pages, pages:
        # Other days of this month may be there already.
        pages.execute("DELETE FROM pages WHERE period NOT IN (?, ?)", (DAY, DAY[:7]))
        for old, new in ((DAY, today), (DAY[:7], today[:7])):
            pages.execute("UPDATE pages SET period = ? WHERE period = ?", (new, old))
        pages.execute("UPDATE reservations SET day = ?, month = ? WHERE day = ?", (today, today[:7], DAY))
        for name in TIMES[4:]:
            pages.execute(f"UPDATE reservations SET {name} = {name} + ?", (seconds,))  # noqa: S608


def moved_keys(server: Redis, seconds: float, today: str) -> None:
    """As above, of the keys in Redis."""

    def moved(words: list[bytes]) -> list[bytes]:
        command, key, *rest = words
        for at in range(0, len(rest) - 1, 2):
            name, value = rest[at].decode(errors="replace"), rest[at + 1]
            if command == b"HSET" and name in TIMES and float(value):
                rest[at + 1] = repr(float(value) + seconds).encode()
            if name in {"day", "month"}:
                rest[at + 1] = value.replace(DAY.encode(), today.encode()).replace(DAY[:7].encode(), today[:7].encode())
        for old, new in ((f"pages:{DAY}:", f"pages:{today}:"), (f"pages:{DAY[:7]}:", f"pages:{today[:7]}:")):
            key = key.replace(old.encode(), new.encode())
        return [command, key, *rest]

    restore(server, FORMS / "old" / "redis.json", moved)


@dataclass
class Upgraded:
    """The gateway after the upgrade, its cloud, and the old caller."""

    gateway: Running
    emulator: Emulator
    metadata: tuple[tuple[str, str], ...]

    async def create(self, wanted: CreatePreviewJobRequest) -> PreviewJob:
        async with grpc.aio.insecure_channel(self.gateway.address) as channel:
            stub: Any = PreviewJobServiceStub(channel)
            job: PreviewJob = await stub.CreatePreviewJob(wanted, metadata=self.metadata, timeout=30)
            return job

    async def refusal(self, wanted: CreatePreviewJobRequest) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.create(wanted)
        return caught.value.code()

    async def usage(self) -> Usage:
        async with grpc.aio.insecure_channel(self.gateway.address) as channel:
            stub: Any = UsageServiceStub(channel)
            usage: Usage = await stub.GetUsage(GetUsageRequest(), metadata=self.metadata, timeout=10)
            return usage

    async def make_old_job(self, name: str, marker: str) -> str:
        """Make the job that version 0.x had sent, at the cloud. Its id."""
        bucket = Bucket(BUCKET, REGION, "main")
        sent = request("")
        sent.user_data = f"{sent.user_data} {marker}"
        async with BuiltinTransport(base_url=self.emulator.url, connect_seconds=3, read_seconds=10) as transport:
            client = CloudClient(
                transport, FakeCredentials(), CloudTimes(SystemClock()), telemetry=FakeTelemetry(), timeout_seconds=10
            )
            made = await client(CreateJob(sent, bucket, bucket), Call(name, asyncio.get_running_loop().time() + 30))
        return made.job_id


def old_marker(name: str) -> str:
    with closing(sqlite3.connect(FORMS / "old" / "ledger.db")) as ledger:
        (found,) = ledger.execute("SELECT marker FROM creates WHERE key = ?", (old_digest(name),)).fetchone()
        return str(found)


@pytest.fixture(params=["files", "redis"])
async def upgraded(
    request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer
) -> AsyncIterator[Upgraded]:
    async with upgraded_from(request.param, tmp_path, redis_server) as found:
        yield found


@asynccontextmanager
async def upgraded_from(
    kind: str, folder: Path, server: RedisServer, *arguments: str, frozen: bool = False
) -> AsyncIterator[Upgraded]:
    policy = Policy(folder / "policy.yaml")
    policy.add("one", budget={"per_day": 1000, "per_month": 2000})
    policy.write()
    # Sent half a minute ago: the fence has not passed yet.
    now = SystemClock().now()
    seconds, today = now - 30 - NOW, datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    changes: dict[str, object] = {"policy": {"file": str(policy.path)}}
    if kind == "redis":
        moved_keys(Redis.from_url(server.url), seconds, today)
        changes["shared_state"] = {"url": server.url}
        if frozen:
            server.freeze()
    else:
        moved_files(folder, seconds, today)
    async with Emulator() as emulator:
        emulator.put_object(BUCKET, REGION, "in/a.pdf", b"%PDF-1.4\n")
        emulator.hold_jobs()
        async with running(configuration(emulator, folder, **changes), *arguments) as gateway:
            yield Upgraded(gateway, emulator, bearer(policy.tokens["one"]))


async def test_a_repeated_request_id_of_before_is_answered_with_its_job(upgraded: Upgraded) -> None:
    """As version 0.x recorded it, without a create at the cloud."""
    for name, job_id in (("accepted", "d-accepted"), ("settled", "d-settled"), ("reused", "d-accepted")):
        job = await upgraded.create(request(name))
        assert (job.job_id, job.user_data) == (job_id, "of the caller")
    assert upgraded.emulator.accepted_jobs == 0


async def test_a_request_id_of_before_with_another_body_is_refused(upgraded: Upgraded) -> None:
    """Also when the document's password alone is another one."""
    for name in ("accepted", "unknown", "reused"):
        other = request(name)
        other.options.password = "another"
        assert await upgraded.refusal(other) == grpc.StatusCode.ALREADY_EXISTS
    assert upgraded.emulator.accepted_jobs == 0


async def test_pages_of_before_count_in_the_budget(upgraded: Upgraded) -> None:
    day = (await upgraded.usage()).day
    assert (day.used_pages, day.reserved_pages) == (9, 14)


async def test_an_unknown_create_of_before_gets_its_job_by_its_old_marker(upgraded: Upgraded) -> None:
    """A job of another create with equal output is not taken for it; while nothing is found nothing is sent."""
    assert await upgraded.refusal(request("sent")) in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE}
    made = await upgraded.make_old_job("unknown", old_marker("unknown"))
    assert (await upgraded.create(request("unknown"))).job_id == made
    assert (await upgraded.create(request("unknown"))).job_id == made
    assert upgraded.emulator.accepted_jobs == 1


async def test_an_intended_create_of_before_is_sent_now(upgraded: Upgraded) -> None:
    """It never was, and its pages are free again."""
    job = await upgraded.create(request("intent"))
    assert (await upgraded.create(request("intent"))).job_id == job.job_id
    assert upgraded.emulator.accepted_jobs == 1


async def test_workers_that_start_at_once_take_old_files_over_once(tmp_path: Path, redis_server: RedisServer) -> None:
    async with upgraded_from("files", tmp_path, redis_server, "--workers", "2") as found:
        for _ in range(4):
            assert (await found.create(request("accepted"))).job_id == "d-accepted"
            day = (await found.usage()).day
            assert (day.used_pages, day.reserved_pages) == (9, 14)


async def test_a_server_that_is_silent_at_the_start_is_taken_over_before_the_first_create(tmp_path: Path) -> None:
    """Until then creates fail, and the gateway serves all else."""
    with running_redis(tmp_path) as server:
        async with upgraded_from("redis", tmp_path, server, frozen=True) as found:
            assert await found.refusal(request("accepted")) == grpc.StatusCode.UNAVAILABLE
            server.thaw()
            async with asyncio.timeout(30):
                while True:
                    try:
                        job = await found.create(request("accepted"))
                        break
                    except grpc.aio.AioRpcError as error:
                        if error.code() != grpc.StatusCode.UNAVAILABLE:
                            raise
            assert job.job_id == "d-accepted"
            assert found.emulator.accepted_jobs == 0


async def test_old_files_that_cannot_be_read_stop_the_process_with_a_way_out(tmp_path: Path) -> None:
    copy_old_files(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE creates SET stage = 'elsewhere' WHERE key = ?", (old_digest("accepted"),))
    async with Emulator() as emulator:
        with pytest.raises(AssertionError, match="the gateway did not start") as caught:
            async with running(configuration(emulator, tmp_path)):
                pass
    assert old_digest("accepted") in str(caught.value)
    assert "Delete it, and it is forgotten: sqlite3" in str(caught.value)
