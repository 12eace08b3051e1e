# noqa: INP001 - a folder of the path, not a package
"""Imported by Python processes with this folder on their path: the gateway's wall clock is ahead by what a file says.

Not by libfaketime: it breaks the sleeps and waits of Python's threads as soon as its clock is behind. Only where the
gateway reads the wall clock: gRPC compares `time.time` with deadlines that its C core took from the true clock.
"""

import os
import sys
import time

_PATH = os.environ["MACHINE_CLOCK_FILE"]
_TRUE, _ELAPSED = time.time, time.monotonic  # noqa: TID251 - this is the clock
_AGE = 0.05
_READER = "docpreview_gateway.wiring.system_clock"
_read_at, _ahead = -1.0, 0.0


def _time() -> float:
    global _read_at, _ahead
    if sys._getframe(1).f_globals.get("__name__") != _READER:
        return _TRUE()
    now = _ELAPSED()
    if now - _read_at > _AGE:
        with open(_PATH, encoding="ascii") as file:  # noqa: PTH123 - pathlib would be imported by every process
            _read_at, _ahead = now, float(file.read())
    return _TRUE() + _ahead


time.time = _time  # noqa: TID251 - this is the clock
