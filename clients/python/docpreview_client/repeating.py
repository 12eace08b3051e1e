"""Retries of creates with a `request_id` until their outcome is known; all attempts together make one job."""

import asyncio
from collections.abc import Awaitable, Callable

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client.deadline import Deadline
from docpreview_client.errors import DocPreviewError, OutcomeUnknown
from docpreview_client.retries import Pauses


async def repeated(attempt: Callable[[], Awaitable[PreviewJob]], deadline: Deadline) -> PreviewJob:
    """Makes attempts until the deadline, as long as their errors say `now`.

    A pause is at least the gateway's retry delay; if that ends after the deadline, the error is raised immediately.

    Raises:
        OutcomeUnknown: One of the attempts may have made the job, and no later one could resolve it.
        DocPreviewError: The error of the last attempt.
    """
    pauses = Pauses()
    unknown: OutcomeUnknown | None = None
    while True:
        try:
            return await attempt()
        except DocPreviewError as error:
            if error.retry != "now":
                raise
            if isinstance(error, OutcomeUnknown):
                unknown = error
            pause = pauses.after(error.retry_delay)
            if pause >= deadline.remaining():
                raise unknown or error from None
        await asyncio.sleep(pause)
