"""The machine's wall clock."""

from __future__ import annotations

import time


class SystemClock:
    """The port `Clock`."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()  # noqa: TID251 - the one place
