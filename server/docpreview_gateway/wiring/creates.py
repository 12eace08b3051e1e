"""Puts together creates: what stands before them, and the stores that they leave something in."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.creates.budgeted import PageBudgets, PageQuotaStores
from docpreview_gateway.creates.deduplicated import DeduplicatedCreates
from docpreview_gateway.creates.idempotent import IdempotentCreates
from docpreview_gateway.creates.ports import LedgerError, PageQuotaStoreError
from docpreview_gateway.creates.sqlite_ledger import SqliteLedger
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.wiring import tuning
from docpreview_gateway.wiring.stores import page_quota_stores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.creates.ports import RequestLedger
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.upstream.ports import ObjectTags, PreviewUpstream
    from docpreview_gateway.wiring.observability import Observability


class CreateParts(NamedTuple):
    """From the outside in. Each is asked for its own background work."""

    outermost: DeduplicatedCreates
    budgets: PageBudgets
    creating: IdempotentCreates


class Stores(NamedTuple):
    """What creates leave behind: records, and pages."""

    records: RequestLedger
    books: PageQuotaStores


@asynccontextmanager
async def stores(settings: Settings) -> AsyncIterator[Stores]:
    """The stores, opened; StartError when that is not possible."""
    async with AsyncExitStack() as stack:
        records = await _records(settings, stack)
        try:
            pages = await stack.enter_async_context(page_quota_stores(settings))
        except PageQuotaStoreError as error:
            raise StartError(f"state_dir: {error}; pages are counted in a folder that can be written") from error
        yield Stores(records, pages)


async def _records(settings: Settings, stack: AsyncExitStack) -> RequestLedger:
    state = settings.shared_state
    if url := state.ledger_url or state.url:
        # Imported only with shared state: the library takes 20 MiB and half a second.
        from docpreview_gateway.creates.redis_ledger import RedisLedger  # noqa: PLC0415
        from docpreview_gateway.storage.redis_connections import redis_commands  # noqa: PLC0415

        # Connections of its own: a crowd at the cache does not keep creates waiting.
        send = await stack.enter_async_context(redis_commands(url.get_secret_value()))
        return RedisLedger(send, seconds=state.ledger_timeout_seconds)
    try:
        return await stack.enter_async_context(SqliteLedger(settings.state_dir / "ledger.db"))
    except LedgerError as error:
        raise StartError(f"state_dir: {error}; creates with request_id need a folder that can be written") from error


def create_parts(  # noqa: PLR0913 - collaborators, named by wiring
    settings: Settings,
    upstream: PreviewUpstream,
    tags: ObjectTags,
    stores: Stores,
    *,
    buckets: BucketRegistry,
    clock: Clock,
    observed: Observability,
) -> CreateParts:
    """The parts, of one process, which gets a name of its own among all that share the stores."""
    records, books = stores
    owner, timing = secrets.token_hex(8), tuning.timing(settings)
    creating = IdempotentCreates(
        upstream, buckets, records, clock=clock, telemetry=observed.metrics, timing=timing, owner=owner
    )
    budgets = PageBudgets(
        creating, books, buckets=buckets, upstream=upstream, records=records, clock=clock, telemetry=observed.limits
    )
    outermost = DeduplicatedCreates(
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
