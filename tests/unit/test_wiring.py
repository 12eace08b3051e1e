"""What the command runs on."""

from __future__ import annotations

import asyncio

import pytest

from docpreview_gateway import wiring


def test_event_loop() -> None:
    """uvloop's, and what the work gives or raises comes through."""

    async def work() -> str:
        return type(asyncio.get_running_loop()).__module__

    async def failing() -> None:
        raise KeyError("x")

    assert wiring.run(work()) == "uvloop"
    with pytest.raises(KeyError):
        wiring.run(failing())
