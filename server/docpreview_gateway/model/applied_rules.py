"""What a policy does to calls that it allows: options, limits, budget and deduplication, as words for operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.model.policy import CREATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docpreview.v1.preview_job_pb2 import PreviewOptions
    from docpreview_gateway.model.callers import Caller, PageBudget, Rate
    from docpreview_gateway.model.option_rules import OptionRules


class Applied(NamedTuple):
    """A rule that changes or bounds a call; `what` completes the sentence that begins with its path in the policy."""

    rule: str
    what: str


def applied_rules(caller: Caller, method: str, preset: str | None) -> list[Applied]:
    """Every rule for such calls of the caller, beside those that decide whether it may make them."""
    found = [*_limits(caller, method)]
    if method == CREATE and caller.rights is not None:
        found += _of_creates(caller, caller.rights.options)
        used = caller.rights.presets.get(preset or "")
        if used is not None:
            found.append(Applied(f"presets[{preset}]", f"sets {_options(used)}"))
    return [Applied(f"callers.{caller.name}.{rule}", what) for rule, what in found]


def lease_warnings(name: str, budget: PageBudget | None, processes: int) -> list[str]:
    """A line for each period of a budget that `outage_pages` of all `processes` (replicas and their workers) use up.

    Leases never overspend, but what is leased nobody may use while the store works.
    """
    if budget is None or not budget.outage_pages:
        return []
    together = budget.outage_pages * processes
    leased = _count(together)
    if processes > 1:
        leased = f"{_count(budget.outage_pages)} x {processes} processes = {leased}"
    return [
        f"{name}.outage_pages: {leased} may be leased, of a budget of {most} in a {period}: creates "
        "are refused with PAGE_BUDGET_EXHAUSTED although those pages are not used; keep it well below "
        f"{most // processes}"
        for period, most in (("day", budget.per_day), ("month", budget.per_month))
        if most is not None and together >= most
    ]


def _count(pages: int) -> str:
    return "1 page" if pages == 1 else f"{pages} pages"


def _limits(caller: Caller, method: str) -> Iterator[Applied]:
    if caller.rate is not None:
        yield Applied("rate", f"admits {_rate(caller.rate)}, all methods together")
    if method in caller.method_rates:
        yield Applied(f"method_rates.{method}", f"admits {_rate(caller.method_rates[method])}")
    if caller.concurrency is not None:
        yield Applied("concurrency", f"admits {caller.concurrency} calls at a time")
    if caller.shadow:
        yield Applied("shadow", "is true: limits and budget only count")


def _of_creates(caller: Caller, options: OptionRules) -> Iterator[Applied]:
    for name, layer, why in (
        ("default", options.default, "where neither the create nor its preset does"),
        ("force", options.force, "whatever the create says"),
    ):
        if layer.ListFields():
            yield Applied(f"options.{name}", f"sets {_options(layer)}, {why}")
    for name, most in options.at_most.items():
        yield Applied(f"options.at_most.{name}", f"refuses more than {most}")
    if options.max_pages is not None:
        what = f"refuses more than {options.max_pages} pages and PDF as target, and selects as many without a selection"
        yield Applied("options.max_pages", what)
    if caller.budget is not None:
        yield Applied("budget", _budget(caller.budget, estimates=options.max_pages is None))
    if caller.dedupe_seconds:
        yield Applied(
            "dedupe_seconds", f"answers with the existing job of an equal create for {caller.dedupe_seconds:g} s"
        )


def _budget(budget: PageBudget, *, estimates: bool) -> str:
    periods = {"day": budget.per_day, "month": budget.per_month}
    bounds = " and ".join(f"{pages} pages a {period}" for period, pages in periods.items() if pages is not None)
    estimate = f"; a create without a selection counts {budget.estimate} until its job has ended" if estimates else ""
    outage = f"; each process leases {budget.outage_pages} of them for outages" if budget.outage_pages else ""
    return f"{f'admits {bounds}' if bounds else 'only counts pages'}{estimate}{outage}"


def _rate(rate: Rate) -> str:
    return f"{rate.per_second:g} calls per second in bursts of {rate.burst}"


def _options(options: PreviewOptions) -> str:
    return ", ".join(
        f"{field.name}: {field.enum_type.values_by_number[value].name if field.enum_type else value}"
        for field, value in options.ListFields()
    )
