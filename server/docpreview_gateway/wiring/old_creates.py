"""What earlier versions have left of creates, taken over at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from docpreview_gateway.creates.imported import OldStoreError
from docpreview_gateway.creates.migration import FilesMigration, Migration, RedisMigration
from docpreview_gateway.creates.old_sqlite import LEDGER, PAGES
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.settings.loading import StartError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AsyncExitStack

    from docpreview_gateway.creates.imported import OldIds
    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.redis_creates import RedisCreates
    from docpreview_gateway.creates.sqlite_creates import SqliteCreates
    from docpreview_gateway.settings.loading import Settings

log = structlog.get_logger("docpreview_gateway.creates")


async def old_creates(
    settings: Settings, store: RedisCreates | SqliteCreates, keys: CreateKeys, ids: OldIds, stack: AsyncExitStack
) -> Callable[[], Awaitable[None]]:
    """Take over what an earlier version has left. What to do before the store is used, should that not be possible now.

    StartError when there is something that cannot be taken over.
    """
    state, timing, folder = settings.shared_state, settings.ledger.timing(), settings.state_dir
    if url := state.ledger_url or state.url:
        from docpreview_gateway.creates.old_redis import OldRedis  # noqa: PLC0415 - as in `creates`
        from docpreview_gateway.storage.redis_connections import redis_commands  # noqa: PLC0415 - as in `creates`

        send = await stack.enter_async_context(redis_commands(url.get_secret_value()))
        old = OldRedis(send, seconds=state.ledger_timeout_seconds)
        shared = RedisMigration(old, store, keys=keys, timing=timing, ids=ids)
        # What this replica counted while the server was away.
        own = FilesMigration(folder, [PAGES], store, keys=keys, timing=timing, ids=ids)
        migration = Migration(shared, own)
    else:
        migration = Migration(FilesMigration(folder, [LEDGER, PAGES], store, keys=keys, timing=timing, ids=ids))
    try:
        await migration.run()
    except OldStoreError as error:
        raise StartError(f"creates of an earlier version: {error}") from error
    except StoreError as error:
        if not url:
            raise StartError(f"state_dir: {error}") from error
        # As at every start without the server: reads go on, and creates wait for it.
        log.warning("what an earlier version has left is not taken over yet", error=str(error))
    return _prepare(migration)


def _prepare(migration: Migration) -> Callable[[], Awaitable[None]]:
    async def prepare() -> None:
        try:
            await migration.run()
        except OldStoreError as error:
            raise StoreError(f"creates of an earlier version: {error}") from error

    return prepare
