"""Rate and concurrency limits of callers, counted locally or in a shared store."""

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
    """`SharedRates` that fails while `down`, and waits for `go` when it is set."""

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


async def test_a_caller_without_limits_is_admitted_without_telemetry() -> None:
    """1,000 calls."""
    telemetry = FakeTelemetry()
    limits = CallLimits(Counting(), telemetry)
    assert {await reason_of(limits, Caller("free")) for _ in range(1000)} == {"OK"}
    assert telemetry.limits == []


async def test_a_call_over_the_rate_is_rejected_with_its_wait() -> None:
    """The error names caller and limit."""
    limits = CallLimits(Counting(), telemetry := FakeTelemetry())
    caller = Caller("a", rate=Rate(2, 1))
    assert await reason_of(limits, caller) == "OK"
    with pytest.raises(LimitReached) as caught:
        await limits.enter(caller, GET)
    assert caught.value.reason == r.ERROR_REASON_RATE_LIMITED
    assert caught.value.subject == "caller:a"
    assert caught.value.retry_after == pytest.approx(0.5, abs=0.05)
    assert telemetry.limits == [("a", "rate", "allowed"), ("a", "rate", "refused")]


async def test_the_rate_of_a_method_limits_that_method_only() -> None:
    """Other methods and other callers are admitted."""
    limits = CallLimits(Counting(), FakeTelemetry())
    rates = {GET: Rate(0.1, 1)}
    assert await reason_of(limits, Caller("a", method_rates=rates)) == "OK"
    assert await reason_of(limits, Caller("a", method_rates=rates)) == "RATE_LIMITED"
    assert await reason_of(limits, Caller("a", method_rates=rates), "ListPreviewJobs") == "OK"
    assert await reason_of(limits, Caller("b", method_rates=rates)) == "OK"


async def test_a_permit_is_free_again_after_the_call() -> None:
    """Also after a call that its rate rejected."""
    limits = CallLimits(Counting(), FakeTelemetry())
    caller = Caller("a", concurrency=2, rate=Rate(0.001, 3))
    assert [await reason_of(limits, caller) for _ in range(3)] == ["OK", "OK", "CONCURRENCY_LIMITED"]
    limits.leave(caller)
    assert await reason_of(limits, caller) == "OK"
    limits.leave(caller)
    assert [await reason_of(limits, caller) for _ in range(3)] == ["RATE_LIMITED"] * 3


async def test_a_call_cancelled_during_the_store_request_frees_its_permit() -> None:
    """The next call is admitted."""
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


async def test_calls_over_a_limit_are_admitted_in_shadow_mode_and_counted() -> None:
    """As shadowed."""
    limits = CallLimits(Counting(), telemetry := FakeTelemetry())
    caller = Caller("a", rate=Rate(0.001, 1), concurrency=1, shadow=True)
    assert [await reason_of(limits, caller) for _ in range(2)] == ["OK", "OK"]
    assert telemetry.limits[2:] == [("a", "concurrency", "shadowed"), ("a", "rate", "shadowed")]


async def test_new_limits_apply_to_the_next_call() -> None:
    """What was used before still counts."""
    limits = CallLimits(Counting(), FakeTelemetry())
    assert await reason_of(limits, Caller("a", rate=Rate(0.001, 1))) == "OK"
    assert await reason_of(limits, Caller("a", rate=Rate(0.001, 1))) == "RATE_LIMITED"
    assert await reason_of(limits, Caller("a", rate=Rate(1000, 1000))) == "RATE_LIMITED"
    assert await reason_of(limits, Caller("a")) == "OK"


async def test_each_process_admits_its_part_of_the_concurrency() -> None:
    """Half of it for two processes."""
    limits = CallLimits(Counting(), FakeTelemetry(), share=2)
    caller = Caller("a", concurrency=4)
    assert [await reason_of(limits, caller) for _ in range(3)] == ["OK", "OK", "CONCURRENCY_LIMITED"]


async def test_each_process_admits_its_part_of_a_rate_unless_a_store_is_shared() -> None:
    """With a shared store the whole rate."""
    shared = FakeShared()
    for counting, passed in ((Counting(share=2), 3), (Counting(shared, share=2), 6)):
        limits = CallLimits(counting, FakeTelemetry(), share=2)
        answers = [await reason_of(limits, Caller("a", rate=Rate(0.001, 6))) for _ in range(10)]
        assert answers.count("OK") == passed


async def test_the_store_is_not_asked_again_before_the_wait_ends() -> None:
    """Calls are rejected locally until then."""
    shared = FakeShared()
    limits = CallLimits(Counting(shared), FakeTelemetry())
    caller = Caller("a", rate=Rate(10, 1))
    assert [await reason_of(limits, caller) for _ in range(20)] == ["OK"] + ["RATE_LIMITED"] * 19
    assert shared.asked == 2


async def test_an_unavailable_store_is_replaced_by_local_counting() -> None:
    """Reported as degraded; with `refuse_without_store` all calls are rejected."""
    shared = FakeShared()
    shared.down = True
    limits = CallLimits(Counting(shared), telemetry := FakeTelemetry())
    caller = Caller("a", rate=Rate(0.001, 2))
    assert [await reason_of(limits, caller) for _ in range(3)] == ["OK", "OK", "RATE_LIMITED"]
    assert telemetry.limits[0] == ("a", "rate", "degraded")
    strict = CallLimits(Counting(shared, refuse_without_store=True), FakeTelemetry())
    assert await reason_of(strict, caller) == "LIMITER_UNAVAILABLE"


async def test_further_reads_of_a_call_are_charged_to_all_of_its_rates() -> None:
    """And to nobody else's; the next call waits for the debt of the slowest."""
    limits = CallLimits(Counting(), telemetry := FakeTelemetry())
    caller = Caller("a", rate=Rate(100, 10), method_rates={GET: Rate(1, 10)})
    charge = await limits.enter(caller, GET)
    assert charge is not None
    await charge(99)
    with pytest.raises(LimitReached) as caught:
        await limits.enter(caller, GET)
    assert caught.value.subject == f"caller:a:{GET}"
    assert caught.value.retry_after == pytest.approx(91.0, abs=0.5)
    assert await reason_of(limits, Caller("b", rate=Rate(1, 1))) == "OK"
    assert telemetry.limits[:2] == [("a", "rate", "allowed"), ("a", "method_rate", "allowed")]


async def test_a_caller_without_rates_has_nothing_to_charge() -> None:
    """Also with a limit of its concurrency."""
    limits = CallLimits(Counting(), FakeTelemetry())
    assert await limits.enter(Caller("free"), GET) is None
    assert await limits.enter(Caller("a", concurrency=1), GET) is None


@pytest.mark.parametrize("shadow", [False, True])
async def test_reads_that_cannot_be_counted_fail_unless_limits_are_a_dry_run(shadow: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """With `without_store: refuse`."""
    shared = FakeShared()
    limits = CallLimits(Counting(shared, refuse_without_store=True), FakeTelemetry())
    charge = await limits.enter(Caller("a", rate=Rate(1, 1), shadow=shadow), GET)
    assert charge is not None
    shared.down = True
    if shadow:
        await charge(5)
        return
    with pytest.raises(GatewayError) as caught:
        await charge(5)
    assert caught.value.reason == r.ERROR_REASON_LIMITER_UNAVAILABLE
