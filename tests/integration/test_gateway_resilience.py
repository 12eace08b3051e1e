"""Resilience as callers see it: a cloud that throttles, hangs, is full or gone, with the default protection."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import pytest

from docpreview.v1.preview_job_service_pb2 import (
    GetPreviewJobRequest,
    WaitPreviewJobRequest,
    WatchPreviewJobRequest,
)
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_client import DocPreviewClient, OutcomeUnknown, Throttled, Unavailable
from docpreview_emulator import Emulator
from docpreview_gateway.settings.sections import LimitSettings, WatchSettings
from docpreview_gateway.settings.upstream import (
    BreakerSettings,
    CacheSettings,
    ConcurrencySettings,
    RetrySettings,
    UpstreamSettings,
)
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, REGION, World, settings, until
from tests.standstills import standstills
from tests.unit.rpc.conftest import error_info

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub

QUICK = RetrySettings(base_seconds=0.01, cap_seconds=0.05)


@asynccontextmanager
async def protected(**changes: object) -> AsyncIterator[World]:
    """A gateway with its default protection, in front of a cloud with a document."""
    values: dict[str, object] = {"retry": QUICK, "breaker": BreakerSettings()} | changes
    async with Emulator() as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", b"%PDF-1.4")
        emulator.hold_jobs()
        upstream = values.pop("upstream", {})
        assert isinstance(upstream, dict)
        values["upstream"] = UpstreamSettings(endpoint=emulator.url, **upstream)
        async with (
            Gateway(settings(emulator, **values)) as gateway,
            DocPreviewClient(f"127.0.0.1:{gateway.port}") as client,
        ):
            yield World(emulator, gateway, client)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with protected() as found:
        yield found


async def create(world: World, *, request_id: str = "") -> str:
    job = await world.client.create(BUCKET, "a.pdf", output_object="out/p-${Page}.jpg", request_id=request_id)
    return job.job_id


def value(world: World, name: str, **labels: str) -> float:
    return world.gateway.registry.get_sample_value(f"docpreview_upstream_{name}", labels) or 0.0


def retries(world: World, operation: str) -> float:
    return value(world, "retries_total", operation=operation, outcome="made")


@asynccontextmanager
async def stubs(world: World, count: int = 1) -> AsyncIterator[list[PreviewJobServiceAsyncStub]]:
    """Callers with one connection each and without retries, so that the gateway's retries are tested."""
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(f"127.0.0.1:{world.gateway.port}", options=options)
            )
            for _ in range(count)
        ]
        yield [PreviewJobServiceStub(channel) for channel in channels]


async def read(stub: PreviewJobServiceAsyncStub, job_id: str, seconds: float) -> tuple[str, float]:
    """OK or the reason of a read, and its latency."""
    begin = asyncio.get_running_loop().time()
    call = stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id=job_id), timeout=seconds)
    reason = await reason_of(call)
    return reason, asyncio.get_running_loop().time() - begin


async def reason_of(call: Awaitable[object]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return "DEADLINE_EXCEEDED"
        return str(error_info(error).reason)
    return "OK"


class TestRetries:
    @pytest.mark.parametrize("kind", ["throttle", "error", "drop_before", "drop_after", "truncate"])
    async def test_a_read_that_fails_twice_is_retried_until_it_succeeds(self, world: World, kind: str) -> None:
        """The cloud gets three requests."""
        job_id = await create(world)
        world.emulator.clear_requests()
        world.emulator.add_fault(kind, "get", times=2)
        assert (await world.client.get(BUCKET, job_id)).job_id == job_id
        assert len(world.emulator.requests) == 3
        assert retries(world, "get") == 2

    async def test_a_throttled_create_is_retried_and_makes_one_job(self, world: World) -> None:
        """Throttling proves that the cloud accepted nothing. Before the first one a list tells the cloud's time."""
        world.emulator.add_fault("throttle", "create", times=2)
        await create(world)
        assert [record.operation for record in world.emulator.requests] == ["list", *["create"] * 3]
        assert world.emulator.accepted_jobs == 1

    async def test_a_throttled_create_with_request_id_is_retried_and_makes_one_job(self, world: World) -> None:
        """As without `request_id`."""
        world.emulator.add_fault("throttle", "create", times=2)
        request_id = "6b1f2b0e-4a53-4d6c-9d2b-0d4b5a1c7e11"
        first = await create(world, request_id=request_id)
        assert await create(world, request_id=request_id) == first
        assert world.emulator.accepted_jobs == 1

    @pytest.mark.parametrize("kind", ["drop_before", "error", "truncate", "garbage"])
    async def test_a_create_that_may_have_been_accepted_is_never_sent_again(self, world: World, kind: str) -> None:
        """A list finds its job, by its marker, or the caller gets CREATE_OUTCOME_UNKNOWN."""
        world.emulator.add_fault(kind, "create")
        if kind in {"drop_before", "error"}:
            with pytest.raises(OutcomeUnknown):
                await create(world)
        else:
            assert await create(world) == world.emulator.jobs[0].job_id
        assert [record.operation for record in world.emulator.requests].count("create") == 1
        assert retries(world, "create") == 0

    async def test_persistent_throttling_is_answered_after_two_retries_and_does_not_open_the_breaker(
        self, world: World
    ) -> None:
        """The answer has a retry delay."""
        job_id = await create(world)
        world.emulator.add_fault("throttle", "get", times=None)
        for _ in range(25):
            with pytest.raises(Throttled):
                await world.client.get(BUCKET, job_id, timeout=timedelta(seconds=5))
        made, calls = retries(world, "get"), 25
        assert made <= 10 + 0.1 * (calls + 1)
        assert value(world, "breaker_state", bucket=BUCKET) == 0


class TestSilence:
    @pytest.mark.alone
    async def test_a_hanging_cloud_opens_the_breaker_and_its_recovery_is_noticed_soon(self) -> None:
        """Every call ends by its deadline; with the breaker open, immediately."""
        # A call that is cancelled counts once it has lasted for a second in the gateway, where it may arrive late.
        seconds, loop = 2.0, asyncio.get_running_loop()
        async with protected(breaker=BreakerSettings(open_seconds=2.0)) as world, stubs(world) as (stub,):
            job_id = await create(world)
            world.emulator.add_fault("latency", "get", seconds=60, times=None)
            ended = await asyncio.gather(*(read(stub, f"d{number:032x}", seconds) for number in range(40)))
            assert {reason for reason, _ in ended} <= {"DEADLINE_EXCEEDED", "OVERLOADED", "UPSTREAM_BREAKER_OPEN"}
            assert max(took for _, took in ended) < seconds + 0.5
            # The callers' own clocks may end the calls before the gateway has counted their failures.
            await until(lambda: value(world, "breaker_transitions_total", bucket=BUCKET, state="open") >= 1)
            reason, took = await read(stub, job_id, seconds)
            assert (reason, took < 0.5) == ("UPSTREAM_BREAKER_OPEN", True)
            world.emulator.clear_faults()
            back = loop.time()
            while (await read(stub, job_id, seconds))[0] != "OK":
                assert loop.time() - back < 10
                await asyncio.sleep(0.1)
            results = await asyncio.gather(*(read(stub, job_id, 5) for _ in range(20)))
            assert {reason for reason, _ in results} == {"OK"}

    async def test_reads_and_creates_fail_immediately_while_the_cloud_refuses_connections(self) -> None:
        """UNAVAILABLE with a retry delay, for creates too since nothing was sent."""
        breaker = BreakerSettings(min_calls=5, open_seconds=30)
        async with protected(breaker=breaker, retry=RetrySettings(max_retries=0)) as world, stubs(world) as (stub,):
            await world.emulator.__aexit__(None, None, None)
            for number in range(5):
                await read(stub, f"d{number:032x}", 5)
            with pytest.raises(Unavailable) as caught:
                await create(world)
            assert caught.value.reason == "UPSTREAM_BREAKER_OPEN"
            assert caught.value.retry_delay is not None
            assert timedelta(seconds=20) < caught.value.retry_delay <= timedelta(seconds=30)

    async def test_a_cached_job_is_served_stale_while_the_breaker_is_open(self) -> None:
        """No request is sent, and `x-cache` is `stale`."""
        breaker, cache = BreakerSettings(min_calls=1, open_seconds=30), CacheSettings(active_seconds=0)
        async with protected(breaker=breaker, cache=cache) as world, stubs(world) as (stub,):
            job_id = await create(world)
            world.emulator.add_fault("error", "get", times=None)
            await read(stub, "d" + "1" * 32, 5)
            world.emulator.clear_requests()
            call = stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id=job_id), timeout=5)
            assert (await call).job_id == job_id
            assert dict(await call.trailing_metadata())["x-cache"] == "stale"
            assert world.emulator.requests == []


class TestOverload:
    @pytest.mark.alone
    async def test_a_tenfold_burst_is_served_to_capacity_and_the_rest_refused_immediately(self) -> None:
        """Ten times the cloud's capacity; every admitted call succeeds, and at least half of the capacity is used.

        Callers, gateway and cloud are this one process. When the machine lets it stand still, the time of each call
        that is under way goes on, and more than the quarter that the gateway keeps in reserve may be gone: such calls
        may be late, and no others.
        """
        patience, concurrency = 1.0, ConcurrencySettings(initial=4, lowest=4, highest=4)
        async with protected(concurrency=concurrency) as world, stubs(world, 5) as callers, standstills() as stood:
            loop = asyncio.get_running_loop()
            # The cloud does 20 reads a second.
            world.emulator.add_fault("latency", "get", seconds=0.2, times=None)
            for number in range(8):
                await read(callers[number % 5], f"e{number:032x}", 5)
            tasks: list[asyncio.Task[tuple[str, float]]] = []
            begun: list[float] = []
            for number in range(200):
                begun.append(loop.time())
                tasks.append(asyncio.create_task(read(callers[number % 5], f"d{number:032x}", patience)))
                await asyncio.sleep(0.005)
            ended = await asyncio.gather(*tasks)
            accepted = [took for reason, took in ended if reason == "JOB_NOT_FOUND"]
            refused = sorted(took for reason, took in ended if reason == "OVERLOADED")
            outcomes = Counter(reason for reason, _ in ended)
            late = [
                begin
                for begin, (reason, took) in zip(begun, ended, strict=True)
                if reason == "DEADLINE_EXCEEDED" and stood.during(begin, begin + took) < patience / 8
            ]
            assert late == [], (outcomes, stood.found)
            end = loop.time()
            ran = end - begun[0] - stood.during(begun[0], end)
            assert len(accepted) >= 0.5 * 20 * ran, (outcomes, ran)
            assert refused[len(refused) // 2] < patience / 10
            # The gateway's refusal of a call that stood still may have come late, too.
            others = len(ended) - len(accepted) - len(refused)
            assert 0 <= value(world, "shed_total", bucket=BUCKET, reason="deadline") - len(refused) <= others
            assert value(world, "in_flight", bucket=BUCKET) == value(world, "queued", bucket=BUCKET) == 0

    async def test_waits_beyond_their_limit_are_refused_and_other_calls_are_served(self) -> None:
        """Watches and waits share the limit; the reason is OVERLOADED."""
        async with protected(watch=WatchSettings(max_watches=1)) as world, stubs(world) as (stub,):
            job_id = await create(world)
            watch = stub.WatchPreviewJob(WatchPreviewJobRequest(bucket=BUCKET, job_id=job_id))
            await anext(aiter(watch))
            wait = stub.WaitPreviewJob(WaitPreviewJobRequest(bucket=BUCKET, job_id=job_id), timeout=5)
            assert await reason_of(wait) == "OVERLOADED"
            assert (await read(stub, job_id, 5))[0] == "OK"
            watch.cancel()

    async def test_calls_beyond_the_servers_limit_are_refused_immediately_with_a_reason(self) -> None:
        """The limit is on concurrent calls; the reason is OVERLOADED."""
        async with protected(limits=LimitSettings(max_calls=1)) as world, stubs(world) as (stub,):
            world.emulator.add_fault("latency", "get", seconds=0.5)
            slow = asyncio.create_task(read(stub, "d" + "1" * 32, 5))
            others = await asyncio.gather(*(read(stub, f"d{number:032x}", 5) for number in range(3)))
            assert {reason for reason, _ in others} | {(await slow)[0]} == {"OVERLOADED", "JOB_NOT_FOUND"}
