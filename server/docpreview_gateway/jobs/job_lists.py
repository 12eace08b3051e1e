"""Lists of jobs: the cloud's pages, without the jobs that the caller may not see.

A page is filled with visible jobs, and a token is given only when another visible job follows: pages, tokens and their
number are the same whether or not there are hidden jobs. The work of a call is bounded. Where a bound ends it, the page
is short, even empty, and its token leads on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsRequest, ListPreviewJobsResponse
from docpreview_gateway.access import visibility
from docpreview_gateway.jobs.page_tokens import MAX_TOKEN, filters_of
from docpreview_gateway.model.errors import ReplyTooLarge, bad_response
from docpreview_gateway.upstream.operations import ListJobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.jobs.page_tokens import PageTokens
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.operations import JobPage, Upstream

DEFAULT_PAGE_SIZE = 10
LARGEST_PAGE = 100
"""Jobs of the largest page, the cloud's and a caller's. Callers from whom jobs may be hidden are served from such."""

MOST_READS = 20
"""Most requests to the cloud for one call."""

MAX_LIST_BYTES = 4 * 1024 * 1024 - 64 * 1024
"""Size limit of a list reply, below gRPC's default message limit of 4 MiB."""

_JOB_OVERHEAD = 8
"""Most bytes of a job's tag and length in a reply."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a list continues: in the cloud's page at `cursor`, after the job with the id `after`; empty: at its begin.

    `created` is the time of that job in Unix seconds. It stands in for the job when that is no longer in the page.
    """

    cursor: str = ""
    after: str = ""
    created: int = 0

    def __str__(self) -> str:
        return f"{self.created}\n{self.after}\n{self.cursor}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position that `str` made; of an empty text the begin of the list."""
        if not text:
            return cls()
        created, after, cursor = text.split("\n", 2)
        return cls(cursor, after, int(created))

    def after_job(self, job: PreviewJob) -> Position:
        """The position after a job of the page at `cursor`."""
        return Position(self.cursor, job.job_id, job.create_time.seconds)

    def jobs_left(self, jobs: Sequence[PreviewJob], *, oldest_first: bool) -> Sequence[PreviewJob] | None:
        """The jobs of the page that follow; None: the whole page is before the position.

        The page may have changed: new jobs move those of a first page on, and a job leaves a list of states when its
        state changes. Then the time decides, and a job of the same second is listed again rather than left out.
        """
        if not self.after:
            return jobs
        for index, job in enumerate(jobs):
            if job.job_id == self.after:
                return jobs[index + 1 :]
        return [job for job in jobs if self._may_follow(job.create_time.seconds, oldest_first=oldest_first)] or None

    def _may_follow(self, created: int, *, oldest_first: bool) -> bool:
        if not created or not self.created:
            return True
        return created >= self.created if oldest_first else created <= self.created


class JobLists:
    """The use-case of ListPreviewJobs."""

    def __init__(self, upstream: Upstream, tokens: PageTokens) -> None:
        self._upstream = upstream
        self._tokens = tokens

    async def page(self, request: ListPreviewJobsRequest, bucket: Bucket, call: Call) -> ListPreviewJobsResponse:
        """One page of the jobs that the caller may see."""
        position = Position.parse(self._tokens.decode(request, bucket, call.caller))
        page = _Page(min(request.page_size or DEFAULT_PAGE_SIZE, LARGEST_PAGE))
        end = await self._fill(page, position, request, bucket, call)
        token = "" if end is None else self._tokens.encode(request, bucket, call.caller, str(end))
        return ListPreviewJobsResponse(jobs=page.jobs, next_page_token=token)

    async def _fill(
        self, page: _Page, position: Position, request: ListPreviewJobsRequest, bucket: Bucket, call: Call
    ) -> Position | None:
        """Fill the page from `position`. Returns where the list continues; None: it has ended."""
        may_hide = visibility.may_hide(bucket, call)
        # The caller's page size would make the number of reads depend on the hidden jobs before each visible one.
        reads = _Reads(self._upstream, request, bucket, call, size=LARGEST_PAGE if may_hide else page.size)
        oldest_first = request.order == ListPreviewJobsRequest.ORDER_OLDEST_FIRST
        while True:
            found = await reads.read(position.cursor)
            left = position.jobs_left(found.jobs, oldest_first=oldest_first)
            for job in visibility.seen(left or (), bucket, call):
                if not page.add(job):
                    return position
                position = position.after_job(job)
            if not found.cursor:
                return None
            position = replace(position, cursor=found.cursor) if left is None else Position(found.cursor)
            # A full page has no token if only hidden jobs follow, so the list is read on to the next visible one.
            if reads.exhausted() or (page.jobs and not may_hide):
                return position


class _Page:
    """Jobs of a reply: at most `size`, and not more bytes than clients accept unless one job alone has more."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.jobs: list[PreviewJob] = []
        self._bytes_left = MAX_LIST_BYTES - MAX_TOKEN - _JOB_OVERHEAD

    def add(self, job: PreviewJob) -> bool:
        """Add a job; False when there is no room for it."""
        self._bytes_left -= job.ByteSize() + _JOB_OVERHEAD
        if len(self.jobs) == self.size or (self.jobs and self._bytes_left < 0):
            return False
        self.jobs.append(job)
        return True


class _Reads:
    """The reads of the cloud's pages for one call: MOST_READS, begun in the first half of the caller's time."""

    def __init__(
        self, upstream: Upstream, request: ListPreviewJobsRequest, bucket: Bucket, call: Call, *, size: int
    ) -> None:
        listed = filters_of(request)
        listed.include_pages = request.include_pages
        self._upstream = upstream
        self._call = call
        self._operation = ListJobs(listed, bucket, size, "")
        self._left = MOST_READS
        self._asked: set[str] = set()
        now = time.monotonic()
        self._until = now + (call.deadline - now) / 2

    def exhausted(self) -> bool:
        """Whether the call must end without further reads."""
        return self._left <= 0 or time.monotonic() > self._until

    async def read(self, cursor: str) -> JobPage:
        """The cloud's page at `cursor`. When it is too large to read, this and the following pages are smaller.

        UPSTREAM_BAD_RESPONSE when the cloud leads back to a page that was read: the list must not look complete.
        """
        self._asked.add(cursor)
        page = await self._page(cursor)
        if page.repeated or (page.cursor and page.cursor in self._asked):
            raise bad_response("the cloud's list does not go on: it gave the token of an earlier page again")
        return page

    async def _page(self, cursor: str) -> JobPage:
        while True:
            self._left -= 1
            operation = replace(self._operation, cursor=cursor)
            try:
                return await self._upstream(operation, self._call)
            except ReplyTooLarge:
                if operation.size == 1:
                    raise
                self._operation = replace(operation, size=max(1, operation.size // 4))
