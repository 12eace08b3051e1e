"""Callers and their limits. Authentication is in `access`, counting in `limits` and `creates`."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from docpreview_gateway.model.validation import MAX_SINGLE_IMAGE_PAGES, selected_pages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docpreview.v1.preview_job_pb2 import PreviewOptions
    from docpreview_gateway.model.policy import Rights


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate limit: `per_second` calls on average, in bursts of up to `burst` calls; both above 0."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class PageBudget:
    """Pages that a caller's jobs may produce in a day and in a month (UTC); None: unlimited.

    `estimate` is the number of pages that a create counts for that does not say how many it wants. With `count: asked`
    such creates are refused, so that no job makes more pages than were counted for it. `outage_pages` are what each
    replica may let the caller make in a day while it cannot reach the store.
    """

    per_day: int | None = None
    per_month: int | None = None
    estimate: int = 50
    count: Literal["estimate", "asked"] = "estimate"
    outage_pages: int = 0

    def asked(self, options: PreviewOptions) -> int:
        """Pages that a create with valid options may make: the number it selects, or the estimate."""
        selected = selected_pages(options)
        if selected > 0:
            return selected
        return min(self.estimate, MAX_SINGLE_IMAGE_PAGES) if options.single_image else self.estimate


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller, its limits and its rights."""

    name: str
    """Name in the configuration, never text from a call: it is a label of metrics."""
    weight: float = 1.0
    """Share of the cloud's capacity while callers queue for it."""
    rate: Rate | None = None
    """Rate limit of all calls together; None: unlimited."""
    method_rates: Mapping[str, Rate] = field(default_factory=lambda: MappingProxyType({}))
    """Additional rate limits, by the name of the RPC."""
    concurrency: int | None = None
    """Most concurrent calls, waits and watches included; None: unlimited."""
    budget: PageBudget | None = None
    """Page budget; None: unlimited."""
    shadow: bool = False
    """Shadow mode: limits and budget are counted and reported, and reject nothing."""
    dedupe_seconds: float = 0.0
    """Seconds within which an equal create of an unchanged input returns the existing job; 0: no deduplication."""
    rights: Rights | None = None
    """What the caller may do; None: everything, because the gateway has no policy."""


ANONYMOUS = Caller("anonymous")
"""The caller of every call to a gateway without authentication."""

GATEWAY = Caller("gateway")
"""The caller of the gateway's own reads, which reconcile creates and charge pages."""
