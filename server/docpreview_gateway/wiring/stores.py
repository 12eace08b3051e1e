"""Wiring of the stores that limit callers: the counter of call rates, and the page quota store."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from docpreview_gateway.creates.budgeted import PageQuotaStores
from docpreview_gateway.creates.ports import PageQuotaStoreError
from docpreview_gateway.creates.sqlite_pages import SqlitePages
from docpreview_gateway.limits.call_limits import Counting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.settings.loading import Settings

log = structlog.get_logger("docpreview_gateway.budgets")


@asynccontextmanager
async def counting(settings: Settings) -> AsyncIterator[Counting]:
    """The counter of call rates, shared by replicas if shared state is configured. It connects at first use."""
    state = settings.shared_state
    if state.url is None:
        yield Counting(share=settings.processes)
        return
    # Imported only with shared state: the library takes 20 MiB and half a second.
    from docpreview_gateway.limits.redis_rates import RedisRates  # noqa: PLC0415
    from docpreview_gateway.storage.redis_connections import redis_batches  # noqa: PLC0415

    async with redis_batches(state.url.get_secret_value()) as send:
        refuse = settings.limits.without_store == "refuse"
        shared = RedisRates(send, seconds=state.timeout_seconds)
        yield Counting(shared, refuse_without_store=refuse, share=settings.processes)


@asynccontextmanager
async def page_quota_stores(settings: Settings) -> AsyncIterator[PageQuotaStores]:
    """The page quota store: a file, or the ledger's Redis server with a file as its fallback."""
    state, refuse = settings.shared_state, settings.limits.without_store == "refuse"
    url = state.ledger_url or state.url
    async with AsyncExitStack() as stack:
        local = SqlitePages(settings.state_dir / "pages.db")
        if url is None:
            yield PageQuotaStores(await stack.enter_async_context(local), refuse=refuse)
            return
        fallback: SqlitePages | None = None
        try:
            fallback = await stack.enter_async_context(local)
        except PageQuotaStoreError as error:
            log.warning("page quota fallback unavailable, pages are not counted while Redis is down", error=str(error))

        from docpreview_gateway.creates.redis_pages import RedisPages  # noqa: PLC0415
        from docpreview_gateway.storage.redis_connections import redis_commands  # noqa: PLC0415 - as above

        send = await stack.enter_async_context(redis_commands(url.get_secret_value()))
        yield PageQuotaStores(RedisPages(send, seconds=state.ledger_timeout_seconds), fallback=fallback, refuse=refuse)
