"""Lengths of time as callers give them: a `timedelta`, or a number of seconds."""

import math
from datetime import timedelta
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration

Span: TypeAlias = timedelta | float


def seconds(span: Span) -> float:
    """The length in seconds.

    Raises:
        ValueError: It is negative, infinite or no number.
    """
    length = span.total_seconds() if isinstance(span, timedelta) else float(span)
    if not math.isfinite(length) or length < 0:
        raise ValueError(f"{span!r} is not a length of time: give seconds, 0 or more, or a timedelta.")
    return length


def duration(span: Span | None) -> Duration | None:
    """The protobuf form of a length of time."""
    if span is None:
        return None
    wire = Duration()
    wire.FromTimedelta(timedelta(seconds=seconds(span)))
    return wire
