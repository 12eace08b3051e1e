"""The circuit breaker of a bucket's host: its rules, and the errors that count as failures of the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.model.circuit_breaker import CircuitBreaker, FailureShare

if TYPE_CHECKING:
    from collections.abc import Callable

HOST_FAILURES = frozenset(
    {
        r.ERROR_REASON_UPSTREAM_UNREACHABLE,
        r.ERROR_REASON_UPSTREAM_TIMEOUT,
        r.ERROR_REASON_UPSTREAM_INTERNAL,
        r.ERROR_REASON_UPSTREAM_UNAVAILABLE,
        r.ERROR_REASON_UPSTREAM_BAD_RESPONSE,
        r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN,
    }
)
"""Reasons that count as failures of the host. A refusal, throttling included, is a healthy host's answer."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """Open for `open_seconds` once `share` of at least `calls` calls within `seconds` failed. `calls` 0: never open."""

    calls: int = 20
    share: float = 0.5
    seconds: float = 10.0
    open_seconds: float = 5.0


def host_breaker(rules: BreakerRules, jitter: Callable[[], float]) -> CircuitBreaker:
    """A closed breaker for one host. `jitter` gives numbers in [0, 1)."""
    rule = FailureShare(calls=rules.calls, share=rules.share, seconds=rules.seconds)
    return CircuitBreaker(rule, open_seconds=rules.open_seconds, jitter=jitter)
