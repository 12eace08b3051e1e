"""Who calls, and what that caller may use up.

How a caller proves its name is not this module's affair, nor is the counting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docpreview_gateway.model.policy import Rights


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` calls in the long run, up to `burst` at once; both above 0."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class PageBudget:
    """Pages that a caller's jobs may make in a day and in a month (UTC); None: no bound.

    `estimate` is what a create counts for while nobody knows how many pages its document has.
    """

    per_day: int | None = None
    per_month: int | None = None
    estimate: int = 50


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller by its name in the configuration, never by words of its own: the name is a label of metrics.

    `rate` holds for all of its calls together, `method_rates` for those of the RPCs that it names, in addition.
    `concurrency` bounds its calls at once, waits and watches included. `weight` is its share when callers wait for the
    cloud. With `shadow` its limits and budget are counted and reported, and nothing is refused. Within `dedupe_seconds`
    an equal create of an unchanged input answers the job that is there. `rights` is what it may do; None: whatever the
    gateway offers, because it has no policy.
    """

    name: str
    weight: float = 1.0
    rate: Rate | None = None
    method_rates: Mapping[str, Rate] = field(default_factory=lambda: MappingProxyType({}))
    concurrency: int | None = None
    budget: PageBudget | None = None
    shadow: bool = False
    dedupe_seconds: float = 0.0
    rights: Rights | None = None


ANONYMOUS = Caller("anonymous")
"""The caller of every call to a gateway that has no authentication."""

GATEWAY = Caller("gateway")
"""The caller of the gateway's own reads: reconciliation of creates, and charging of pages."""
