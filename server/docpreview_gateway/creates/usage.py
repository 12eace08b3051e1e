"""Pages that callers have used: the method of UsageService, without gRPC, and the metrics of all callers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from docpreview.v1.usage_service_pb2 import PageUsage, Usage
from docpreview_gateway.creates import pages, refusals
from docpreview_gateway.creates.pages import CallerPages
from docpreview_gateway.creates.ports import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from docpreview.v1.usage_service_pb2 import GetUsageRequest
    from docpreview_gateway.creates.days import Days
    from docpreview_gateway.creates.pages import PageCount, Pages
    from docpreview_gateway.creates.ports import CreatesTelemetry, CreateStore, Lease
    from docpreview_gateway.model.call import Call, Clock
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.upstream.cloud_clock import CloudTimes

PAGES_SECONDS = 15.0
"""Interval of readings for metrics."""

READINGS = 3
"""Most readings of a round: what is reserved and what is leased have to be of one moment."""

KEEP_SECONDS = 120.0
"""How long the last reading is shown while the store cannot be read."""


class PageUsages:
    """Tells callers what they have used. `today` is the day to which pages are counted now."""

    def __init__(self, store: CreateStore, today: Callable[[], str]) -> None:
        self._store = store
        self._today = today

    async def get_usage(self, _request: GetUsageRequest, call: Call) -> Usage:
        """The caller's used and reserved pages in the current day and month (UTC). LIMITER_UNAVAILABLE."""
        caller = call.caller
        if caller.budget is None:
            return Usage(caller=caller.name)
        try:
            now = pages.periods(self._today())
            count = await self._store.count(caller.name, now)
        except StoreError as error:
            raise refusals.not_countable(error) from None
        return Usage(
            caller=caller.name,
            day=_usage(now.day, count.day, caller.budget.per_day),
            month=_usage(now.month, count.month, caller.budget.per_month),
        )


class PageMetrics:
    """Metrics of the pages of `callers`, all that the gateway knows now; those without a budget are not counted.

    Read from the store, because other replicas and ended jobs change them too.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        store: CreateStore,
        days: Days,
        callers: Callable[[], Iterable[Caller]],
        *,
        times: CloudTimes,
        clock: Clock,
        telemetry: CreatesTelemetry,
    ) -> None:
        self._store = store
        self._days = days
        self._callers = callers
        self._times = times
        self._clock = clock
        self._telemetry = telemetry
        self._read_at = times.elapsed()

    async def round(self) -> None:
        """Read once. To be repeated every PAGES_SECONDS; the store itself tells that it cannot be read."""
        counted = [caller for caller in self._callers() if caller.budget is not None]
        try:
            found = await self._read(counted) if counted else []
        except StoreError:
            if self._times.elapsed() - self._read_at > KEEP_SECONDS:
                self._telemetry.pages([])
            return
        self._read_at = self._times.elapsed()
        self._telemetry.pages(found)

    async def _read(self, counted: Sequence[Caller]) -> list[CallerPages]:
        """The pages of these callers, one after the other: many of them must not keep creates waiting."""
        self._days.learn((await self._store.state()).day)
        now = pages.periods(self._days.today(self._clock.now()))
        leases = _leased_pages(await self._store.leases())
        for _ in range(READINGS):
            counts = [(caller, await self._store.count(caller.name, now)) for caller in counted]
            before, leases = leases, _leased_pages(await self._store.leases())
            if leases == before:
                break
        return [each for caller, count in counts for each in _of_caller(caller, count, leases, now.day)]


def _leased_pages(leases: Iterable[Lease]) -> Counter[tuple[str, str]]:
    """Leased pages by caller and period. How much each replica leased, and when, does not matter."""
    found: Counter[tuple[str, str]] = Counter()
    for lease in leases:
        for period in pages.periods(lease.day):
            found[lease.caller, period] += lease.pages
    return found


def _of_caller(
    caller: Caller, count: PageCount, leases: Mapping[tuple[str, str], int], today: str
) -> Iterator[CallerPages]:
    budget = caller.budget
    if budget is None:
        return
    of_day, of_month = (leases.get((caller.name, period), 0) for period in pages.periods(today))
    yield _caller_pages(caller.name, "day", count.day, of_day, budget.per_day)
    yield _caller_pages(caller.name, "month", count.month, of_month, budget.per_month)


def _caller_pages(
    caller: str, period: Literal["day", "month"], count: Pages, leased: int, budget: int | None
) -> CallerPages:
    # They may have changed with every reading.
    leased = min(leased, count.reserved)
    left = None if budget is None else max(0, budget - sum(count))
    return CallerPages(caller, period, count.used, count.reserved - leased, leased, left)


def _usage(period: str, count: Pages, budget: int | None) -> PageUsage:
    usage = PageUsage(used_pages=count.used, reserved_pages=count.reserved)
    start, end = pages.bounds(period)
    usage.start_time.FromDatetime(start)
    usage.end_time.FromDatetime(end)
    if budget is not None:
        usage.budget_pages = budget
        usage.left_pages = max(0, budget - sum(count))
    return usage
