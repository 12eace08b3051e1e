"""What a policy does to calls that it allows: options, limits, budget and deduplication, as words for operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf import text_format

from docpreview.v1.preview_job_pb2 import PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.model.option_rules import OptionRules
from docpreview_gateway.model.policy import CREATE
from docpreview_gateway.model.validation import selected_pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.descriptor import FieldDescriptor

    from docpreview_gateway.model.callers import Caller, PageBudget, Rate


class Applied(NamedTuple):
    """A rule that changes or bounds a call; `what` completes the sentence that begins with its path in the policy."""

    rule: str
    what: str


def applied_rules(caller: Caller, method: str, preset: str | None) -> list[Applied]:
    """Every rule for such calls of the caller, beside those that decide whether it may make them."""
    found = [*_limits(caller, method)]
    if method == CREATE and caller.rights is not None:
        used = caller.rights.presets.get(preset or "")
        found += _of_creates(caller, caller.rights.options, used or PreviewOptions())
        if used is not None:
            found.append(Applied(f"presets[{preset}]", f"sets {_options(used)}"))
    return [Applied(f"callers.{caller.name}.{rule}", what) for rule, what in found]


def budget_warnings(name: str, caller: Caller, processes: int) -> list[str]:
    """A line for each way in which the caller's budget, at path `name`, defeats its purpose.

    `processes` is the number of replicas and their workers.
    """
    if caller.budget is None or not (caller.rights is None or caller.rights.has_method(CREATE)):
        return []
    never = [] if caller.shadow else dict.fromkeys(_never_admitted(name, caller, caller.budget))
    return [*_lease_warnings(name, caller.budget, processes), *never]


def _never_admitted(name: str, caller: Caller, budget: PageBudget) -> Iterator[str]:
    """Creates without options of their own that count more pages than a whole day or month has."""
    presets: Mapping[str, PreviewOptions] = {} if caller.rights is None else caller.rights.presets
    options = OptionRules() if caller.rights is None else caller.rights.options
    request = CreatePreviewJobRequest()
    for preset, made in {"": PreviewOptions(), **presets}.items():
        result = options.apply(request, made).options
        selects = selected_pages(result) > 0
        if not selects and (preset or budget.count == "asked"):
            continue
        sources = options.sources(request, made)
        source = sources.get("end_page", sources.get("page_ranges")) if selects else "estimate"
        who = "without options of its own"
        if source == "preset":
            who, source = f"with the preset {preset}", f"presets[{preset}]"
        for period, most in _bounds(budget):
            if (pages := budget.asked(result)) > most:
                yield (
                    f"{name}: a create {who} counts {pages} pages, by {source}, of a budget of {most} in a {period}: "
                    "it is always refused with PAGE_BUDGET_TOO_SMALL"
                )


def _bounds(budget: PageBudget) -> list[tuple[str, int]]:
    """The periods that have a quota, and the pages of each."""
    return [
        (period, pages) for period, pages in (("day", budget.per_day), ("month", budget.per_month)) if pages is not None
    ]


def _lease_warnings(name: str, budget: PageBudget, processes: int) -> list[str]:
    """A line for each period of a budget that `outage_pages` of all processes use up.

    Leases never overspend, but what is leased nobody may use while the store works.
    """
    if not budget.outage_pages:
        return []
    together = budget.outage_pages * processes
    leased = _count(together)
    if processes > 1:
        leased = f"{_count(budget.outage_pages)} x {processes} processes = {leased}"
    return [
        f"{name}.outage_pages: {leased} may be leased, of a budget of {most} in a {period}: creates "
        "are refused with PAGE_BUDGET_EXHAUSTED although those pages are not used; keep it well below "
        f"{most // processes}"
        for period, most in _bounds(budget)
        if together >= most
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


def _of_creates(caller: Caller, options: OptionRules, preset: PreviewOptions) -> Iterator[Applied]:
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
        yield Applied("budget", _budget(caller.budget, options, preset, hard=not caller.shadow))
    if caller.dedupe_seconds:
        yield Applied(
            "dedupe_seconds", f"answers with the existing job of an equal create for {caller.dedupe_seconds:g} s"
        )


def _budget(budget: PageBudget, options: OptionRules, preset: PreviewOptions, *, hard: bool) -> str:
    bounds = " and ".join(f"{pages} pages a {period}" for period, pages in _bounds(budget))
    open_ended = ""
    if budget.count == "asked" and hard:
        unselected = "" if options.selecting else "without page_ranges or an end_page above 0, "
        open_ended = f"; refuses creates {unselected}with PDF as target, or of a spreadsheet without sheet_id"
    elif options.selecting is None:
        single_image = options.apply(CreatePreviewJobRequest(), preset).options.single_image
        estimate = budget.asked(PreviewOptions(single_image=single_image))
        open_ended = f"; a create without a selection counts {estimate} until its job has ended"
    outage = f"; each process leases {budget.outage_pages} of them for outages" if budget.outage_pages else ""
    return f"{f'admits {bounds}' if bounds else 'only counts pages'}{open_ended}{outage}"


def _rate(rate: Rate) -> str:
    return f"{rate.per_second:g} calls per second in bursts of {rate.burst}"


def _options(options: PreviewOptions) -> str:
    return ", ".join(f"{field.name}: {_value(field, value)}" for field, value in options.ListFields())


def _value(field: FieldDescriptor, value: Any) -> str:  # noqa: ANN401 - of any kind of field
    if field.enum_type:
        return field.enum_type.values_by_number[value].name
    return f"{{{text_format.MessageToString(value, as_one_line=True)}}}" if field.message_type else str(value)
