"""The rate of an account: kept over all its buckets, shared fairly by those who wait, refused at once when hopeless."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.limits.call_limits import Counting
from docpreview_gateway.limits.gcra import Refusal, Rule
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import Caller, Rate
from docpreview_gateway.model.errors import GatewayError, LimitReached
from docpreview_gateway.upstream.middleware.rate_limited import RateLimited
from docpreview_gateway.upstream.operations import GetJob
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

DOCS, IMAGES = (Bucket(f"{name}-1250000000", "ap-chongqing", "main", "") for name in ("docs", "images"))
OTHERS = Bucket("docs-1260000000", "ap-chongqing", "main", "")


class World:
    def __init__(self, per_second: float, burst: int, counting: Counting | None = None) -> None:
        self.cloud, self.telemetry = FakeUpstream(), FakeTelemetry()
        for bucket in (DOCS, IMAGES, OTHERS):
            self.cloud.add_job(bucket.name, "d1", PreviewJob.STATE_RUNNING)
        self.paced = RateLimited(
            self.cloud, counting or Counting(), rate=Rate(per_second, burst), telemetry=self.telemetry
        )
        self.served: Counter[str] = Counter()
        self.wanted = 400
        self.enough = asyncio.Event()

    async def get(self, bucket: Bucket = DOCS, *, seconds: float = 30.0, caller: Caller | None = None) -> None:
        call = Call("r1", time.monotonic() + seconds, caller or Caller("a"))
        await self.paced(GetJob(bucket, "d1"), call)
        self.served[call.caller.name] += 1
        if self.served.total() >= self.wanted:
            self.enough.set()


async def test_buckets_of_an_account() -> None:
    """They share its rate; another account has its own."""
    world = World(0.1, 2)
    await world.get(DOCS)
    await world.get(IMAGES)
    with pytest.raises(LimitReached) as caught:
        await world.get(IMAGES, seconds=5)
    assert caught.value.reason == r.ERROR_REASON_ACCOUNT_RATE_LIMITED
    assert caught.value.subject == "account:1250000000"
    assert caught.value.retry_after == pytest.approx(10.0, abs=0.5)
    await world.get(OTHERS)
    assert world.telemetry.limits == [
        ("a", "account", outcome) for outcome in ["allowed", "allowed", "refused", "allowed"]
    ]


async def test_a_call_that_would_be_too_late_is_refused_and_costs_nothing() -> None:
    """It is refused at once, and costs the others nothing."""
    world = World(10, 1)
    await world.get()
    begin = time.monotonic()
    with pytest.raises(LimitReached):
        await world.get(seconds=0.1)
    assert time.monotonic() - begin < 0.05
    await world.get()


async def test_callers_that_wait() -> None:
    """Each of five at three times the rate gets the part that its weight is of all weights."""
    world = World(400, 1)
    callers = [Caller(f"c{weight}", weight=weight) for weight in range(1, 6)]
    calls = [asyncio.create_task(world.get(caller=caller)) for caller in callers for _ in range(240)]
    await world.enough.wait()
    served = Counter(world.served)
    for weight in range(1, 6):
        assert served[f"c{weight}"] == pytest.approx(served.total() * weight / 15, rel=0.05, abs=2)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_callers_that_leave_while_they_wait() -> None:
    """They take no turn from those who stay."""
    world = World(20, 1)
    await world.get()
    leaving = [asyncio.create_task(world.get()) for _ in range(50)]
    await asyncio.sleep(0)
    staying = asyncio.create_task(world.get(caller=Caller("b")))
    await asyncio.sleep(0)
    for call in leaving:
        call.cancel()
    begin = time.monotonic()
    await staying
    assert time.monotonic() - begin < 1
    assert len(world.cloud.asked) == 2


class Failing(Counting):
    """Lets the first pass, makes the second wait, and then fails."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def take(self, rules: tuple[Rule, ...]) -> tuple[Refusal | None, bool]:
        self.asked += 1
        if self.asked == 1:
            return Refusal(rules[0], 0.01), False
        raise GatewayError(r.ERROR_REASON_LIMITER_UNAVAILABLE, "no")


async def test_count_that_fails_while_a_call_waits() -> None:
    """The call hears of it, and the next ones do too."""
    world = World(100, 1, Failing())
    for _ in range(2):
        with pytest.raises(GatewayError, match="no"):
            await asyncio.wait_for(world.get(), 5)
