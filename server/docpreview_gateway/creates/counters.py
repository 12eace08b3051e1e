"""A comparison of callers' counted pages with the sum of the records in the store, which also finds unreadable ones."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import structlog

from docpreview_gateway.creates.pages import Periods
from docpreview_gateway.creates.records import Held

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from docpreview_gateway.creates.pages import PageCount
    from docpreview_gateway.creates.ports import CreateStore

log = structlog.get_logger("docpreview_gateway.reconciliation")

DAY_SECONDS = 86400.0


class Difference(NamedTuple):
    """A caller's pages of a day as they are counted, and as the records and leases have them."""

    caller: str
    day: str
    counted: Held
    recorded: Held


class CounterReport(NamedTuple):
    """What was found; `unreadable` are keys of records and why they cannot be read."""

    differences: Sequence[Difference]
    unreadable: Mapping[str, str]


async def compare_counters(store: CreateStore, keep: float) -> CounterReport:
    """Compare the counters of each day that a record counts to. StoreError.

    Used pages of creates that are forgotten stay counted. So more than the records have is a difference only on the
    store's day, and if creates are remembered for a day or longer (`keep`, in seconds). What changes meanwhile is left
    out.
    """
    first = await store.survey()
    before = await _counted(store, first.counted)
    # Once more, because creates go on: what is the same in both was not touched in between.
    survey = await store.survey()
    after = await _counted(store, first.counted)
    leased: Counter[tuple[str, str]] = Counter()
    for lease in await store.leases():
        leased[lease.caller, lease.day] += lease.pages
    today = (await store.state()).day
    found = []
    for caller, day in sorted(first.counted):
        used, held = survey.counted.get((caller, day), Held())[::-1]
        counted = after[caller, day].day
        if before[caller, day] != after[caller, day] or first.counted[caller, day] != Held(held, used):
            continue
        recorded = Held(held + leased[caller, day], used)
        may_be_more = day != today or keep < DAY_SECONDS
        if counted.reserved != recorded.held or counted.used < used or (counted.used > used and not may_be_more):
            found.append(Difference(caller, day, Held(counted.reserved, counted.used), recorded))
    return CounterReport(found, survey.unreadable)


def tell(report: CounterReport) -> None:
    """A log line for each finding."""
    for caller, day, counted, recorded in report.differences:
        log.error(
            "pages are counted that differ from those of the records",
            caller=caller,
            day=day,
            counted=counted._asdict(),
            recorded=recorded._asdict(),
        )
    for key, why in report.unreadable.items():
        log.error("a record of a create cannot be read", key=key, why=why)


async def _counted(store: CreateStore, days: Mapping[tuple[str, str], Held]) -> dict[tuple[str, str], PageCount]:
    return {(caller, day): await store.count(caller, Periods(day, day[:7])) for caller, day in days}
