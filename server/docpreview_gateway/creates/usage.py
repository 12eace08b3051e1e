"""The method of UsageService, without gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview.v1.usage_service_pb2 import PageUsage, Usage
from docpreview_gateway.creates import pages, refusals
from docpreview_gateway.creates.ports import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview.v1.usage_service_pb2 import GetUsageRequest
    from docpreview_gateway.creates.pages import Pages
    from docpreview_gateway.creates.ports import CreateStore
    from docpreview_gateway.model.call import Call


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


def _usage(period: str, count: Pages, budget: int | None) -> PageUsage:
    usage = PageUsage(used_pages=count.used, reserved_pages=count.reserved)
    start, end = pages.bounds(period)
    usage.start_time.FromDatetime(start)
    usage.end_time.FromDatetime(end)
    if budget is not None:
        usage.budget_pages = budget
        usage.left_pages = max(0, budget - sum(count))
    return usage
