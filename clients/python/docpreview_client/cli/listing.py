"""The filters of `docpreview list`."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsRequest
from docpreview_client.requests import LARGEST_PAGE, ListFields


class State(StrEnum):
    """States of jobs."""

    SUBMITTED = "submitted"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    PAUSED = "paused"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Filters of a list."""

    state: Annotated[list[State] | None, typer.Option("--state", help="Only these; may be repeated.")] = None
    queue_id: Annotated[str | None, typer.Option("--queue-id", help="Only jobs of this queue.")] = None
    after: Annotated[
        datetime | None, typer.Option("--after", help="Only jobs created at or after this local time.")
    ] = None
    before: Annotated[
        datetime | None, typer.Option("--before", help="Only jobs created at or before this local time.")
    ] = None
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Default: newest first.")] = False
    include_pages: Annotated[bool, typer.Option("--include-pages", help="With --json: the pages too.")] = False
    limit: Annotated[int, typer.Option("--limit", min=0, help="Maximum number of jobs; 0 means all.")] = 50

    def fields(self, timeout: timedelta | None) -> ListFields:
        """The filters as the client's `ListFields`, with the timeout."""
        order = (
            ListPreviewJobsRequest.ORDER_OLDEST_FIRST
            if self.oldest_first
            else ListPreviewJobsRequest.ORDER_NEWEST_FIRST
        )
        found = ListFields(
            timeout=timeout,
            states=[PreviewJob.State.Value(f"STATE_{state.name}") for state in self.state or ()],
            queue_id=self.queue_id or "",
            order=order,
            include_pages=self.include_pages,
            page_size=min(self.limit or LARGEST_PAGE, LARGEST_PAGE),
        )
        if self.after is not None:
            found["created_after"] = self.after.astimezone()
        if self.before is not None:
            found["created_before"] = self.before.astimezone()
        return found


async def first(jobs: AsyncIterator[PreviewJob], limit: int) -> AsyncIterator[PreviewJob]:
    """The first `limit` jobs; all of them when it is 0. Fetches only the necessary pages."""
    count = 0
    async for job in jobs:
        yield job
        count += 1
        if count == limit:
            return
