"""W3C Trace Context: the `traceparent` header of a call."""

from __future__ import annotations

import re
from typing import NamedTuple

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?", re.ASCII)
_SAMPLED = 1


class Trace(NamedTuple):
    """A position in a trace: the ids of trace and span in hexadecimal, and whether the trace is recorded."""

    trace_id: str
    span_id: str
    sampled: bool


def parse(traceparent: str) -> Trace | None:
    """Parse the header. None when it is malformed: that is no error, the call starts a new trace."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    trace_id, span_id, flags = found.groups()
    # Version 00 has nothing after the flags; ids of zeros are invalid.
    if (traceparent[:2] == "00" and len(traceparent) > 55) or not int(trace_id, 16) or not int(span_id, 16):  # noqa: PLR2004
        return None
    return Trace(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def exemplar(trace: Trace | None) -> dict[str, str] | None:
    """The exemplar that links a measurement to its trace; None unless the trace is recorded."""
    return {"trace_id": trace.trace_id} if trace is not None and trace.sampled else None
