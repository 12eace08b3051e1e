"""Retry policy of watches and waits that the gateway or the connection interrupted."""

import random
from datetime import timedelta
from typing import Final

from docpreview_client.deadline import Deadline
from docpreview_client.errors import Unavailable

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 10.0


class Reconnecting:
    """State of the retries of one watch or wait, over all its calls."""

    def __init__(self, deadline: Deadline, *, patience: timedelta) -> None:
        self._deadline = deadline
        self._patience = patience
        self._pause = _FIRST_PAUSE
        self._give_up: Deadline | None = None
        self._ever_heard = False

    def message_received(self) -> None:
        """Records that a message was received, so that the gateway counts as reachable."""
        self._ever_heard = True
        self._give_up = None
        self._pause = _FIRST_PAUSE

    async def pause_after(self, error: Unavailable) -> None:
        """Sleeps until the next attempt is due.

        Raises:
            Unavailable: `error` itself, when no gateway has ever answered (the address may be wrong), or
                when none has for longer than `Patience.unreachable`.
            DeadlineExceeded: The deadline is before the next attempt.
        """
        self._ever_heard = self._ever_heard or bool(error.reason) or error.retry_delay is not None
        if not self._ever_heard:
            raise error
        self._give_up = self._give_up or Deadline.after(self._patience)
        if not self._give_up.remaining():
            raise error
        await self._deadline.sleep(self._next_pause(error))

    def _next_pause(self, error: Unavailable) -> float:
        """The next pause: exponential backoff with jitter, at least the gateway's retry delay."""
        pause = self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        asked = error.retry_delay.total_seconds() if error.retry_delay is not None else 0.0
        return max(asked, pause) * random.uniform(1.0, 1.3)  # noqa: S311 - spreads clients, protects nothing
