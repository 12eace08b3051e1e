"""Retries of creates with a `request_id` until their outcome is known; all attempts together make one job."""

import random
from collections.abc import Awaitable, Callable
from typing import Final

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client.deadline import Deadline
from docpreview_client.errors import DocPreviewError, OutcomeUnknown, Unavailable

_ATTEMPTS: Final = 5
_FIRST_PAUSE: Final = 0.2
_AMBIGUOUS: Final = "CREATE_OUTCOME_AMBIGUOUS"
"""The reason of an outcome that no later attempt can resolve."""


async def repeated(attempt: Callable[[float], Awaitable[PreviewJob]], deadline: Deadline) -> PreviewJob:
    """Makes up to five attempts within the deadline; `attempt` takes the seconds that it may last.

    A pause is at least the gateway's retry delay; if that ends after the deadline, the error is raised immediately.

    Raises:
        OutcomeUnknown: One of the attempts may have made the job, and no later one could resolve it.
        Unavailable: No attempt was accepted.
    """
    unknown: OutcomeUnknown | None = None
    for number in range(_ATTEMPTS):
        try:
            return await attempt(deadline.remaining())
        except (Unavailable, OutcomeUnknown) as error:
            if error.reason == _AMBIGUOUS:
                raise
            if isinstance(error, OutcomeUnknown):
                unknown = error
            pause = _pause(number, error)
            if number + 1 == _ATTEMPTS or pause >= deadline.remaining():
                raise unknown or error from None
            await deadline.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _pause(number: int, error: DocPreviewError) -> float:
    asked = error.retry_delay.total_seconds() if error.retry_delay is not None else 0.0
    return max(asked, _FIRST_PAUSE * float(2**number)) * random.uniform(1.0, 1.3)  # noqa: S311 - spreads clients, protects nothing
