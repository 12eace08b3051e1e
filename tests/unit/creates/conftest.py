"""Tests of creates run in virtual time, but for those of files and servers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.simulation.virtual_loop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pytest

REAL_TIME = frozenset({"test_server_health.py", "test_redis_creates.py", "test_sqlite_creates.py"})


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 - as the hook is called
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Loops in which hours pass at once."""
    if item.path.name in REAL_TIME:
        return {"real": asyncio.new_event_loop}
    return {"virtual": VirtualLoop}
