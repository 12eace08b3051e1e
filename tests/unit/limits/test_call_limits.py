"""Callers are let in as their limits say, by this process's count or by the one that replicas share."""

from __future__ import annotations

import asyncio

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.limits.call_limits import CallLimits, Counting
from docpreview_gateway.limits.gcra import Rates, Refusal, Rule
from docpreview_gateway.limits.ports import StoreUnavailableError
from docpreview_gateway.model.callers import Caller, Rate
from docpreview_gateway.model.errors import GatewayError, LimitReached
from tests.fakes.telemetry import FakeTelemetry

GET = "GetPreviewJob"


class FakeShared:
    """The port `SharedRates`; down while `down`, and hanging until `go` when there is one."""

    def __init__(self) -> None:
        self.rates = Rates()
        self.down = False
        self.asked = 0
        self.go: asyncio.Event | None = None

    async def take(self, rules: tuple[Rule, ...]) -> Refusal | None:
        self.asked += 1
        if self.go is not None:
            await self.go.wait()
        if self.down:
            raise StoreUnavailableError
        return self.rates.take(rules, asyncio.get_running_loop().time())


async def reason_of(limits: CallLimits, caller: Caller, method: str = GET) -> str:
    try:
        await limits.enter(caller, method)
    except GatewayError as error:
        return r.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
    return "OK"


async def test_caller_without_limits() -> None:
    """It passes, and leaves no trace."""
    telemetry = FakeTelemetry()
    limits = CallLimits(Counting(), telemetry)
    assert {await reason_of(limits, Caller("free")) for _ in range(1000)} == {"OK"}
    assert telemetry.limits == []


async def test_more_calls_than_the_rate() -> None:
    """The error names caller and limit, and the time after which one more passes."""
    limits = CallLimits(Counting(), telemetry := FakeTelemetry())
    caller = Caller("a", rate=Rate(2, 1))
    assert await reason_of(limits, caller) == "OK"
    with pytest.raises(LimitReached) as caught:
        await limits.enter(caller, GET)
    assert caught.value.reason == r.ERROR_REASON_RATE_LIMITED
    assert caught.value.subject == "caller:a"
    assert caught.value.retry_after == pytest.approx(0.5, abs=0.05)
    assert telemetry.limits == [("a", "rate", "allowed"), ("a", "rate", "refused")]


async def test_rate_of_one_method() -> None:
    """Other methods are not touched by it, other callers neither."""
    limits = CallLimits(Counting(), FakeTelemetry())
    rates = {GET: Rate(0.1, 1)}
    assert await reason_of(limits, Caller("a", method_rates=rates)) == "OK"
    assert await reason_of(limits, Caller("a", method_rates=rates)) == "RATE_LIMITED"
    assert await reason_of(limits, Caller("a", method_rates=rates), "ListPreviewJobs") == "OK"
    assert await reason_of(limits, Caller("b", method_rates=rates)) == "OK"


async def test_calls_at_once() -> None:
    """A place is free again when a call has ended, also one that its rate refused."""
    limits = CallLimits(Counting(), FakeTelemetry())
    caller = Caller("a", concurrency=2, rate=Rate(0.001, 3))
    assert [await reason_of(limits, caller) for _ in range(3)] == ["OK", "OK", "CONCURRENCY_LIMITED"]
    limits.leave(caller)
    assert await reason_of(limits, caller) == "OK"
    limits.leave(caller)
    assert [await reason_of(limits, caller) for _ in range(3)] == ["RATE_LIMITED"] * 3


async def test_cancelled_while_the_store_is_asked() -> None:
    """Its place is free again."""
    shared = FakeShared()
    limits = CallLimits(Counting(shared), FakeTelemetry())
    caller = Caller("a", concurrency=1, rate=Rate(100, 100))
    shared.go = asyncio.Event()
    call = asyncio.create_task(limits.enter(caller, GET))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    shared.go = None
    assert await reason_of(limits, caller) == "OK"


async def test_calls_over_a_limit_pass_in_shadow_mode_and_are_counted() -> None:
    """What would be refused passes and is counted."""
    limits = CallLimits(Counting(), telemetry := FakeTelemetry())
    caller = Caller("a", rate=Rate(0.001, 1), concurrency=1, shadow=True)
    assert [await reason_of(limits, caller) for _ in range(2)] == ["OK", "OK"]
    assert telemetry.limits[2:] == [("a", "concurrency", "shadowed"), ("a", "rate", "shadowed")]


async def test_limits_that_change() -> None:
    """The next call is judged by the new ones, and what was used up stays used up."""
    limits = CallLimits(Counting(), FakeTelemetry())
    assert await reason_of(limits, Caller("a", rate=Rate(0.001, 1))) == "OK"
    assert await reason_of(limits, Caller("a", rate=Rate(0.001, 1))) == "RATE_LIMITED"
    assert await reason_of(limits, Caller("a", rate=Rate(1000, 1000))) == "RATE_LIMITED"
    assert await reason_of(limits, Caller("a")) == "OK"


async def test_processes_that_share_nothing() -> None:
    """Each has its part of the calls at once."""
    limits = CallLimits(Counting(), FakeTelemetry(), share=2)
    caller = Caller("a", concurrency=4)
    assert [await reason_of(limits, caller) for _ in range(3)] == ["OK", "OK", "CONCURRENCY_LIMITED"]


async def test_rates_of_processes_that_share_nothing() -> None:
    """Each lets its part pass; together, while a store counts for all."""
    shared = FakeShared()
    for counting, passed in ((Counting(share=2), 3), (Counting(shared, share=2), 6)):
        limits = CallLimits(counting, FakeTelemetry(), share=2)
        answers = [await reason_of(limits, Caller("a", rate=Rate(0.001, 6))) for _ in range(10)]
        assert answers.count("OK") == passed


async def test_refusal_of_the_store() -> None:
    """The store is not asked again before it can say anything else."""
    shared = FakeShared()
    limits = CallLimits(Counting(shared), FakeTelemetry())
    caller = Caller("a", rate=Rate(10, 1))
    assert [await reason_of(limits, caller) for _ in range(20)] == ["OK"] + ["RATE_LIMITED"] * 19
    assert shared.asked == 2


async def test_store_that_is_down() -> None:
    """This process counts alone, and says so; where the settings want it, it refuses."""
    shared = FakeShared()
    shared.down = True
    limits = CallLimits(Counting(shared), telemetry := FakeTelemetry())
    caller = Caller("a", rate=Rate(0.001, 2))
    assert [await reason_of(limits, caller) for _ in range(3)] == ["OK", "OK", "RATE_LIMITED"]
    assert telemetry.limits[0] == ("a", "rate", "degraded")
    strict = CallLimits(Counting(shared, refuse_without_store=True), FakeTelemetry())
    assert await reason_of(strict, caller) == "LIMITER_UNAVAILABLE"
