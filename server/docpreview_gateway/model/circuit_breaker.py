"""A circuit breaker: it fails calls immediately while a dependency is down, and probes until it recovers.

closed ──the trip rule decides──▶ open ──the open time is over──▶ half-open ──a probe succeeds──▶ closed
                                   ▲                                  │
                                   └──────the latest probe fails──────┘

A trip rule decides when a closed breaker opens. There are two: `FailureShare` counts over a sliding window,
`ConsecutiveFailures` counts failures in a row. The breaker clears its rule whenever its state changes. Instants are
seconds of one clock that never goes back.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.model.sliding_window import SlidingCounts

if TYPE_CHECKING:
    from collections.abc import Callable


class State(Enum):
    """State of a breaker; the value is what the metric shows."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2

    @property
    def word(self) -> str:
        """Its name wherever people read it: `closed` (healthy), `half-open` or `open`."""
        return self.name.lower().replace("_", "-")


class Admission(NamedTuple):
    """Permission for one call. `epoch` numbers the state that admitted it; `probe` numbers probes, 0 is none."""

    epoch: int
    admitted_at: float
    probe: int = 0


class CircuitBreaker:
    """A breaker that stays open for 80 to 100 % of `open_seconds`; `jitter` gives numbers in [0, 1] within that range.

    An admission that is never reported to `ended` delays nothing: the next probe follows after the open time.
    """

    def __init__(
        self,
        rule: FailureShare | ConsecutiveFailures,
        *,
        open_seconds: float,
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.state = State.CLOSED
        self._rule = rule
        self._open_seconds = open_seconds
        self._jitter = jitter
        self._epoch = 0
        self._probes = 0
        self._next_probe = 0.0

    def wait(self, now: float) -> float:
        """Seconds until a call can be admitted; 0 when it can be now."""
        return 0.0 if self.state is State.CLOSED else max(0.0, self._next_probe - now)

    def admit(self, now: float) -> Admission | None:
        """Permission for a call, to be reported to `ended`; None when the call must fail immediately."""
        if self.state is State.CLOSED:
            return Admission(self._epoch, now)
        if now < self._next_probe:
            return None
        if self.state is State.OPEN:
            self._become(State.HALF_OPEN)
        # The next probe does not wait for this one, which may hang: recovery is seen within the open time.
        self._next_probe = now + self._open_time()
        self._probes += 1
        return Admission(self._epoch, now, self._probes)

    def ended(self, admission: Admission, now: float, *, failed: bool | None) -> None:
        """Report the end of a call. None: it says nothing about the dependency.

        Calls admitted in an earlier state are ignored, apart from a success where the trip rule accepts a late one.
        """
        if admission.epoch != self._epoch and (failed is not False or not self._rule.late_success_closes):
            return
        if failed is None:
            self._probe_without_result(admission, now)
        elif failed:
            self._failed(admission, now)
        else:
            self._succeeded(now)

    def _succeeded(self, now: float) -> None:
        self._rule.succeeded(now)
        if self.state is not State.CLOSED:
            self._become(State.CLOSED)

    def _failed(self, admission: Admission, now: float) -> None:
        opens = self._rule.failed(admission.admitted_at, now)
        if self.state is State.HALF_OPEN:
            opens = admission.probe == self._probes
        if opens:
            self._become(State.OPEN)
            self._next_probe = now + self._open_time()

    def _probe_without_result(self, admission: Admission, now: float) -> None:
        if self.state is State.HALF_OPEN and admission.probe == self._probes:
            self._next_probe = now

    def _become(self, state: State) -> None:
        self.state = state
        self._epoch += 1
        self._rule.clear()

    def _open_time(self) -> float:
        """Jittered, so that replicas do not probe at the same moment."""
        return self._open_seconds * (0.8 + 0.2 * self._jitter())


class FailureShare:
    """Trip rule: `share` of at least `calls` calls within `seconds` failed. `calls` 0: never."""

    late_success_closes = False
    """A success of a call admitted before the breaker opened is no recovery: some calls succeed while most fail."""

    def __init__(self, *, calls: int, share: float, seconds: float) -> None:
        self._calls = calls
        self._share = share
        self._window = SlidingCounts(seconds)

    def succeeded(self, now: float) -> None:
        """Count a success in the window."""
        self._window.add(now, calls=1)

    def failed(self, _admitted_at: float, now: float) -> bool:
        """Count a failure in the window. Whether the share is reached."""
        self._window.add(now, calls=1, special=1)
        calls, failures = self._window.totals(now)
        return 0 < self._calls <= calls and failures >= self._share * calls

    def clear(self) -> None:
        """Empty the window."""
        self._window.clear()


class ConsecutiveFailures:
    """Trip rule: `count` failures without a success in between.

    Concurrent failures count once, because all of them may share one moment in which this process stood still. A
    failure does not count when another call succeeded meanwhile: then the dependency is busy, not down.
    """

    late_success_closes = True
    """Any success ends the run of failures, also of a call admitted before the breaker opened."""

    def __init__(self, count: float) -> None:
        self._count = count
        self._run = 0
        self._last_success = -math.inf
        self._last_failure = -math.inf

    @property
    def is_failing(self) -> bool:
        """Whether the latest counted call failed."""
        return self._last_failure > self._last_success

    def failed_since(self, instant: float) -> bool:
        """Whether a counted call failed after this instant."""
        return self._last_failure > instant

    def succeeded(self, now: float) -> None:
        """End the run of failures."""
        self._last_success = now
        self._run = 0

    def failed(self, admitted_at: float, now: float) -> bool:
        """Count a failure, unless another call ended while this one was in flight. Whether the run is long enough."""
        if self._last_success >= admitted_at or self._last_failure > admitted_at:
            return False
        self._last_failure = now
        self._run += 1
        return self._run >= self._count

    def clear(self) -> None:
        """Begin a new run."""
        self._run = 0
