"""Puts together what stands before the creates of jobs: what was rendered already, budgets, and the ledger."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway import tuning
from docpreview_gateway.service.budgeting import Books, PageBudgets
from docpreview_gateway.service.creating import Creating
from docpreview_gateway.service.rendering_once import RenderingOnce

if TYPE_CHECKING:
    from docpreview_gateway.observability import Observability
    from docpreview_gateway.ports import Clock, ObjectTags, PreviewUpstream, RequestLedger
    from docpreview_gateway.service.bucket_register import BucketRegister
    from docpreview_gateway.settings import Settings


class CreateParts(NamedTuple):
    """From the outside in. Each is asked for its own background work."""

    outermost: RenderingOnce
    budgets: PageBudgets
    creating: Creating


class Stores(NamedTuple):
    """What creates leave behind: records, and pages."""

    records: RequestLedger
    books: Books


def create_parts(  # noqa: PLR0913 - collaborators, named by wiring
    settings: Settings,
    upstream: PreviewUpstream,
    tags: ObjectTags,
    stores: Stores,
    *,
    buckets: BucketRegister,
    clock: Clock,
    observed: Observability,
) -> CreateParts:
    """The parts, of one process, which gets a name of its own among all that share the stores."""
    records, books = stores
    owner, timing = secrets.token_hex(8), tuning.timing(settings)
    creating = Creating(upstream, buckets, records, clock=clock, telemetry=observed.metrics, timing=timing, owner=owner)
    budgets = PageBudgets(
        creating, books, buckets=buckets, upstream=upstream, records=records, clock=clock, telemetry=observed.limits
    )
    outermost = RenderingOnce(
        budgets,
        buckets,
        tags,
        upstream=upstream,
        records=records,
        clock=clock,
        telemetry=observed.limits,
        timing=timing,
        owner=owner,
    )
    return CreateParts(outermost, budgets, creating)
