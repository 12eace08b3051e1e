"""Retry policy of watches and waits that the gateway or the connection interrupted."""

from datetime import timedelta

from docpreview_client.deadline import Deadline
from docpreview_client.errors import Unavailable, is_drain
from docpreview_client.retries import Pauses


class Reconnecting:
    """State of the retries of one watch or wait, over all its calls."""

    def __init__(self, deadline: Deadline, *, patience: timedelta) -> None:
        self._deadline = deadline
        self._patience = patience
        self._pauses = Pauses()
        self._give_up: Deadline | None = None
        self._ever_heard = False

    def message_received(self) -> None:
        """Records that a message was received, so that the gateway counts as reachable."""
        self._ever_heard = True
        self._give_up = None
        self._pauses.reset()

    async def pause_after(self, error: Unavailable) -> None:
        """Sleeps until the next attempt is due.

        Raises:
            Unavailable: `error` itself, when no gateway has ever answered (the address may be wrong), or
                when none has for longer than `Patience.unreachable`.
            DeadlineExceeded: The deadline is before the next attempt.
        """
        answered = bool(error.reason) or error.retry_delay is not None or is_drain(error)
        self._ever_heard = self._ever_heard or answered
        if not self._ever_heard:
            raise error
        self._give_up = self._give_up or Deadline.after(self._patience)
        if not self._give_up.remaining():
            raise error
        await self._deadline.sleep(self._pauses.after(error.retry_delay))
