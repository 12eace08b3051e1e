"""When to leave a helper alone that does not answer: one that calls can do without, such as the shared cache."""

from __future__ import annotations

import math


class Outage:
    """Declared after so many `failures` in a row; then one call every `pause` seconds may try, the others do without.

    Instants are seconds of any clock that does not go back. A try whose end is never told (its caller left) holds up
    nothing: the next one is admitted a pause later.
    """

    def __init__(self, *, failures: int = 3, pause: float = 1.0) -> None:
        self._failures = failures
        self._pause = pause
        self._in_a_row = 0
        self._next_try = -math.inf
        self._last_answer = -math.inf
        self._last_failure = -math.inf

    @property
    def is_on(self) -> bool:
        """Whether calls do without now."""
        return self._in_a_row >= self._failures

    @property
    def is_likely(self) -> bool:
        """Whether the last call got no answer, so that what can wait better waits."""
        return self._in_a_row > 0

    def failed_since(self, instant: float) -> bool:
        """Whether a call got no answer after that instant, so that whoever has waited since then better goes on."""
        return self._last_failure > instant

    def admits(self, now: float) -> bool:
        """Whether this call may try. During an outage, yes means that the next ones may not."""
        if not self.is_on:
            return True
        if now < self._next_try:
            return False
        self._next_try = now + self._pause
        return True

    def answered(self, now: float) -> bool:
        """A call got an answer, whatever it says. Whether that ended an outage."""
        ended = self.is_on
        self._in_a_row = 0
        self._last_answer = now
        return ended

    def failed(self, begun: float, now: float) -> bool:
        """A call got no answer. Whether that began an outage.

        It counts only when nobody else got one meanwhile: otherwise the crowd was the reason, not the helper. Calls
        that were under way together count once: they may share a moment in which this process stood still.
        """
        if self._last_answer >= begun or self._last_failure > begun:
            return False
        self._last_failure = now
        was_on = self.is_on
        self._in_a_row += 1
        if self.is_on:
            self._next_try = now + self._pause
        return self.is_on and not was_on
