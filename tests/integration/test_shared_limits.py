"""Rate limits that two replicas share in a real Redis server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.limits.call_limits import CallLimits, Counting
from docpreview_gateway.limits.gcra import rule
from docpreview_gateway.limits.ports import StoreUnavailableError
from docpreview_gateway.limits.redis_rates import RedisRates
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import Caller, Rate
from docpreview_gateway.model.errors import LimitReached
from docpreview_gateway.storage.redis_connections import redis_batches
from docpreview_gateway.upstream.middleware.rate_limited import RateLimited
from docpreview_gateway.upstream.operations import GetJob
from tests.deployments import NAMESPACE
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.redis_server import RedisServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


async def driven(limits: CallLimits, caller: Caller, per_second: float, seconds: float) -> int:
    """Number of admitted calls of an evenly spread load."""
    passed, begin = 0, time.monotonic()
    for number in range(int(per_second * seconds)):
        await asyncio.sleep(max(0.0, begin + number / per_second - time.monotonic()))
        try:
            await limits.enter(caller, "GetPreviewJob")
        except LimitReached:
            continue
        passed += 1
        limits.leave(caller)
    return passed


async def shares(server: RedisServer, seconds: float) -> dict[str, float]:
    """Admitted calls as a share of the limit, of five callers at three times their limits over two replicas."""
    async with redis_batches(server.url) as one, redis_batches(server.url) as other:
        counters = [Counting(RedisRates(send, NAMESPACE, seconds=5)) for send in (one, other)]
        replicas = [CallLimits(counter, FakeTelemetry()) for counter in counters]
        callers = [Caller(f"c{weight}", rate=Rate(5.0 * weight, 5 * weight)) for weight in range(1, 6)]
        begin = time.monotonic()
        got = await asyncio.gather(
            *(
                driven(replica, caller, 1.5 * caller.rate.per_second, seconds)
                for caller in callers
                if caller.rate
                for replica in replicas
            )
        )
        took = time.monotonic() - begin
    found = {}
    for number, caller in enumerate(callers):
        assert caller.rate is not None
        passed = got[2 * number] + got[2 * number + 1]
        assert passed <= caller.rate.burst + took * caller.rate.per_second
        found[caller.name] = passed / (caller.rate.burst + took * caller.rate.per_second)
    return found


@pytest.mark.alone
async def test_five_callers_beyond_their_limits_get_their_limits_over_two_replicas(server: RedisServer) -> None:
    """Each gets its limit over both replicas within 5 % and a call."""
    for name, part in (await shares(server, 4.0)).items():
        assert part == pytest.approx(1.0, abs=0.05 + 1 / (20.0 * int(name[1:]))), name


@pytest.mark.long
async def test_five_callers_for_a_minute_get_their_limits_within_5_percent(server: RedisServer) -> None:
    """The same load for longer."""
    found = await shares(server, 60.0)
    for name, part in found.items():
        assert part == pytest.approx(1.0, abs=0.05), name


async def test_concurrent_calls_at_two_replicas_admit_exactly_the_burst(server: RedisServer) -> None:
    """The retry delay is exact to the millisecond."""
    found = rule("a", "rate", Rate(0.1, 7))
    async with redis_batches(server.url) as one, redis_batches(server.url) as other:
        replicas = [RedisRates(send, NAMESPACE, seconds=5) for send in (one, other)]
        answers = await asyncio.gather(*(replicas[n % 2].take((found,)) for n in range(50)))
        assert sum(answer is None for answer in answers) == 7
        assert all(answer.wait == pytest.approx(10.0, abs=1.0) for answer in answers if answer)


async def sent(upstream: RateLimited, bucket: Bucket, seconds: float) -> int:
    """Number of attempts that passed the account's rate limit under continuous load."""
    end = time.monotonic() + seconds

    async def ask(number: int) -> int:
        passed = 0
        while time.monotonic() < end:
            try:
                await upstream(GetJob(bucket, "d1"), Call("r1", min(end, time.monotonic() + 0.4), Caller(f"c{number}")))
                passed += 1
            except LimitReached as error:
                await asyncio.sleep(min(error.retry_after or 0.0, 0.02))
        return passed

    return sum(await asyncio.gather(*(ask(number) for number in range(6))))


@pytest.mark.alone
async def test_an_accounts_rate_limit_holds_over_replicas_and_buckets(server: RedisServer) -> None:
    """Together they never exceed the account's rate, and use at least 95 % of it."""
    rate, seconds = Rate(40.0, 20), 3.0
    buckets = [Bucket(f"{name}-1250000000", "ap-chongqing", "main") for name in ("docs", "images")]
    cloud = FakeUpstream()
    for bucket in buckets:
        cloud.add_job(bucket.name, "d1", PreviewJob.STATE_RUNNING)
    async with redis_batches(server.url) as one, redis_batches(server.url) as other:
        replicas = [
            RateLimited(cloud, Counting(RedisRates(send, NAMESPACE, seconds=5)), rate=rate, telemetry=FakeTelemetry())
            for send in (one, other)
        ]
        begin = time.monotonic()
        got = await asyncio.gather(*(sent(*each, seconds) for each in zip(replicas, buckets, strict=True)))
        took = time.monotonic() - begin
    assert sum(got) == len(cloud.asked)
    assert 0.95 * rate.per_second * seconds <= sum(got) <= rate.burst + rate.per_second * took
    assert min(got) > 0


async def test_a_call_refused_by_one_rule_is_not_charged_to_another(server: RedisServer) -> None:
    """Both rules must admit a call before either is charged."""
    wide, narrow = rule("wide", "rate", Rate(0.1, 3)), rule("narrow", "method_rate", Rate(0.1, 1))
    async with redis_batches(server.url) as send:
        rates = RedisRates(send, NAMESPACE, seconds=5)
        assert await rates.take((wide, narrow)) is None
        refusals = [await rates.take((wide, narrow)) for _ in range(5)]
        assert {refusal.rule for refusal in refusals if refusal} == {narrow}
        assert [await rates.take((wide,)) for _ in range(2)] == [None, None]


async def test_keys_of_idle_callers_expire(server: RedisServer) -> None:
    """Their TTL ends when the bucket is full again."""
    async with redis_batches(server.url) as send:
        await RedisRates(send, NAMESPACE, seconds=5).take((rule("a", "rate", Rate(1000, 1)),))
        await asyncio.sleep(0.05)
        assert await send("KEYS", "*") == []


@pytest.mark.parametrize("answer", [None, b"yes", [1, b"abc"], [9, b"1"], [b"1", b"1"], 1.5])
async def test_a_reply_of_the_wrong_type_counts_as_no_reply(answer: object) -> None:
    """The process falls back to its local limit."""

    async def send(*_command: object) -> object:
        return answer

    with pytest.raises(StoreUnavailableError):
        await RedisRates(send, NAMESPACE).take((rule("a", "rate", Rate(1, 1)),))


async def test_limits_are_local_while_redis_is_down_and_shared_again_afterwards(server: RedisServer) -> None:
    """No call waits longer than the time-out of a command."""
    caller = Caller("a", rate=Rate(0.001, 3))
    async with redis_batches(server.url) as send:
        limits = CallLimits(Counting(RedisRates(send, NAMESPACE, seconds=0.2)), telemetry := FakeTelemetry())
        assert await driven(limits, caller, 1000, 0.001) == 1
        server.kill()
        begin = time.monotonic()
        assert await driven(limits, caller, 1000, 0.05) == 3
        assert time.monotonic() - begin < 2
        assert ("a", "rate", "degraded") in telemetry.limits
        server.start()
        await asyncio.sleep(1.1)
        fresh = Caller("b", rate=Rate(0.001, 1))
        assert await driven(limits, fresh, 1000, 0.001) == 1
        assert telemetry.limits[-1] == ("b", "rate", "allowed")


async def test_a_hanging_redis_costs_a_call_at_most_the_time_out(server: RedisServer) -> None:
    """The local limit applies."""
    async with redis_batches(server.url) as send:
        rates = RedisRates(send, NAMESPACE, seconds=0.05)
        server.freeze()
        try:
            begin = time.monotonic()
            with pytest.raises(StoreUnavailableError):
                await rates.take((rule("a", "rate", Rate(1, 1)),))
            assert time.monotonic() - begin < 1
        finally:
            server.thaw()
