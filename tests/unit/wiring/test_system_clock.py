"""The machine's clock."""

from __future__ import annotations

import time

from docpreview_gateway.wiring.system_clock import SystemClock


def test_the_system_clock_gives_unix_time_in_seconds() -> None:
    """Unix time in seconds."""
    assert abs(SystemClock().now() - time.time()) < 5  # noqa: TID251 - what it is compared with
