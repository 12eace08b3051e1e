"""A circuit breaker: when most calls of a host fail, it stops asking for a while and then tries with one call.

closed ──most fail──▶ open ──time is over──▶ half-open ──the probe succeeds──▶ closed
                       ▲                        │
                       └────the probe fails─────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.model.sliding_window import SlidingCounts

if TYPE_CHECKING:
    from collections.abc import Callable

SICK = frozenset(
    {
        r.ERROR_REASON_UPSTREAM_UNREACHABLE,
        r.ERROR_REASON_UPSTREAM_TIMEOUT,
        r.ERROR_REASON_UPSTREAM_INTERNAL,
        r.ERROR_REASON_UPSTREAM_UNAVAILABLE,
        r.ERROR_REASON_UPSTREAM_BAD_RESPONSE,
        r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN,
    }
)
"""Reasons that tell of a host that is not well. A refusal, also for too many requests, is a healthy host's answer."""


class State(Enum):
    """What a breaker does with calls; the value is what the metric shows."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """Open when `share` of at least `calls` calls in `seconds` failed, for `open_seconds`. No calls: never open."""

    calls: int = 20
    share: float = 0.5
    seconds: float = 10.0
    open_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Admission:
    """Leave for one call. `epoch` numbers the state that gave it; `probe` numbers probes, 0 is none."""

    epoch: int
    probe: int = 0


class Breaker:
    """The breaker of one host. Times are of one clock that never goes back; `jitter` gives numbers in [0, 1)."""

    def __init__(self, rules: BreakerRules, jitter: Callable[[], float]) -> None:
        self.state = State.CLOSED
        self._rules = rules
        self._jitter = jitter
        self._counts = SlidingCounts(rules.seconds)
        self._epoch = 0
        self._probes = 0
        self._next_probe = 0.0

    def wait(self, now: float) -> float:
        """Seconds until a call may go; 0 when it may now."""
        return 0.0 if self.state is State.CLOSED else max(0.0, self._next_probe - now)

    def admit(self, now: float) -> Admission | None:
        """Leave for a call, which must come back to `ended`; None when it must fail at once."""
        if self.state is State.CLOSED:
            return Admission(self._epoch)
        if now < self._next_probe:
            return None
        if self.state is State.OPEN:
            self._become(State.HALF_OPEN)
        # A probe that hangs is not waited for: the next one follows in time, and the host's recovery is seen by that.
        self._next_probe = now + self._pause()
        self._probes += 1
        return Admission(self._epoch, self._probes)

    def ended(self, admission: Admission, now: float, *, failed: bool | None) -> None:
        """A call ended; None: without telling anything of the host. What belongs to an earlier state is ignored."""
        if admission.epoch != self._epoch:
            return
        if self.state is State.CLOSED:
            self._count(now, failed=failed)
        elif failed is False:
            self._become(State.CLOSED)
        elif admission.probe == self._probes:
            self._probe_failed(now, failed=failed)

    def _count(self, now: float, *, failed: bool | None) -> None:
        if failed is None or not self._rules.calls:
            return
        self._counts.add(now, calls=1, special=int(failed))
        calls, failures = self._counts.totals(now)
        if failed and calls >= self._rules.calls and failures >= self._rules.share * calls:
            self._open(now)

    def _probe_failed(self, now: float, *, failed: bool | None) -> None:
        if failed is None:
            self._next_probe = now
        else:
            self._open(now)

    def _open(self, now: float) -> None:
        self._become(State.OPEN)
        self._next_probe = now + self._pause()

    def _become(self, state: State) -> None:
        self.state = state
        self._epoch += 1
        self._counts.clear()

    def _pause(self) -> float:
        """Replicas must not all probe at once."""
        return self._rules.open_seconds * (0.8 + 0.2 * self._jitter())
