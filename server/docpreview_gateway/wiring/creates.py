"""Creates: their stores, the layers in front of the cloud, and their background rounds."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import structlog

from docpreview_gateway.creates.budgeted import PageBudgets, PageQuotaStores
from docpreview_gateway.creates.deduplicated import DeduplicatedCreates
from docpreview_gateway.creates.idempotent import IdempotentCreates
from docpreview_gateway.creates.ports import LedgerError, PageQuotaStoreError
from docpreview_gateway.creates.sqlite_ledger import SqliteLedger
from docpreview_gateway.creates.sqlite_pages import SqlitePages
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.storage.background import repeated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.creates.ports import RequestLedger
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.upstream.ports import ObjectTags
    from docpreview_gateway.wiring.observability import Observability

RECONCILE_SECONDS = 10.0
"""Interval of reconciliation rounds."""

CHARGE_PAGES_SECONDS = 2.0
"""Interval of rounds that charge the pages of ended jobs."""

log = structlog.get_logger("docpreview_gateway.creates")


class CreateParts(NamedTuple):
    """The outermost layer of creates, and the page budgets."""

    creates: DeduplicatedCreates
    budgets: PageBudgets


@asynccontextmanager
async def create_parts(  # noqa: PLR0913 - collaborators, named by wiring
    settings: Settings,
    upstream: Upstream,
    tags: ObjectTags,
    *,
    buckets: BucketRegistry,
    clock: Clock,
    observed: Observability,
) -> AsyncIterator[CreateParts]:
    """The parts, running. Leaving drains their background tasks, ends their rounds, then closes the stores.

    StartError when a store cannot be opened.
    """
    async with AsyncExitStack() as stack:
        ledger, quotas = await _ledger(settings, stack), await _page_quota_stores(settings, stack)
        # Unique among all processes that share the ledger.
        owner, timing, telemetry = secrets.token_hex(8), settings.ledger.timing(), observed.creates
        idempotent = IdempotentCreates(
            upstream, buckets, ledger, clock=clock, telemetry=telemetry, timing=timing, owner=owner
        )
        budgets = PageBudgets(
            idempotent, quotas, buckets=buckets, upstream=upstream, ledger=ledger, clock=clock, telemetry=telemetry
        )
        creates = DeduplicatedCreates(
            budgets,
            buckets,
            tags,
            upstream=upstream,
            ledger=ledger,
            clock=clock,
            telemetry=telemetry,
            timing=timing,
            owner=owner,
        )
        await stack.enter_async_context(repeated(budgets.charge, CHARGE_PAGES_SECONDS))
        await stack.enter_async_context(repeated(idempotent.reconcile, RECONCILE_SECONDS))
        for part in (creates, budgets, idempotent):
            stack.push_async_callback(part.drained)
        yield CreateParts(creates, budgets)


async def _ledger(settings: Settings, stack: AsyncExitStack) -> RequestLedger:
    state = settings.shared_state
    if url := state.ledger_url or state.url:
        # Imported only with shared state: redis takes 20 MiB and half a second.
        from docpreview_gateway.creates.redis_ledger import RedisLedger  # noqa: PLC0415
        from docpreview_gateway.storage.redis_connections import redis_commands  # noqa: PLC0415

        # Separate connections, so that creates do not queue behind cache look-ups.
        send = await stack.enter_async_context(redis_commands(url.get_secret_value()))
        return RedisLedger(send, seconds=state.ledger_timeout_seconds)
    try:
        return await stack.enter_async_context(SqliteLedger(settings.state_dir / "ledger.db"))
    except LedgerError as error:
        raise StartError(f"state_dir: {error}; creates with request_id need a folder that can be written") from error


async def _page_quota_stores(settings: Settings, stack: AsyncExitStack) -> PageQuotaStores:
    """A file, or the server of the shared ledger with the file as fallback."""
    state, refuse = settings.shared_state, settings.limits.without_store == "refuse"
    url = state.ledger_url or state.url
    local: SqlitePages | None = None
    try:
        local = await stack.enter_async_context(SqlitePages(settings.state_dir / "pages.db"))
        if url is None:
            return PageQuotaStores(local, refuse=refuse)
    except PageQuotaStoreError as error:
        if url is None:
            raise StartError(f"state_dir: {error}; pages are counted in a folder that can be written") from error
        log.warning("local page quota store unavailable, no fallback for the shared one", error=str(error))

    from docpreview_gateway.creates.redis_pages import RedisPages  # noqa: PLC0415 - as above
    from docpreview_gateway.storage.redis_connections import redis_commands  # noqa: PLC0415 - as above

    send = await stack.enter_async_context(redis_commands(url.get_secret_value()))
    return PageQuotaStores(RedisPages(send, seconds=state.ledger_timeout_seconds), fallback=local, refuse=refuse)
