"""What the command runs on."""

from __future__ import annotations

import asyncio

import pytest

from docpreview_gateway.wiring import event_loop


def test_work_runs_on_uvloop_and_its_result_or_error_comes_through() -> None:
    """uvloop's, and what the work gives or raises comes through."""

    async def work() -> str:
        return type(asyncio.get_running_loop()).__module__

    async def failing() -> None:
        raise KeyError("x")

    assert event_loop.run(work()) == "uvloop"
    with pytest.raises(KeyError):
        event_loop.run(failing())
