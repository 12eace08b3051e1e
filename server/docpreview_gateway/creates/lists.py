"""Lists of jobs as evidence: read to their end, with what they prove about the cloud."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsRequest
from docpreview_gateway.creates.evidence import Listed, has_valid_marker
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import GATEWAY
from docpreview_gateway.model.errors import ReplyTooLarge, bad_response
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.operations import ListJobs

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.operations import JobPage, Upstream

LIST_SECONDS = 10.0
"""For one page."""

LIST_SIZE = 100
LIST_PAGES = 200
"""Longest list that is read; one with more pages is not complete."""

ECHO_SECONDS = 3600.0
"""How long a list with a marker proves that the cloud echoes user data."""

REMEMBERED_JOBS = 1000


@dataclass(frozen=True, slots=True)
class Listing:
    """The jobs of a time span, oldest first. Only a `complete` one can prove that a job does not exist."""

    jobs: tuple[Listed, ...]
    complete: bool
    as_of: float | None
    """The cloud's time, at the earliest, when its first page was asked for; None: the cloud did not say."""


class JobHistory:
    """Lists the jobs of a bucket, and learns from each list whether its host echoes user data."""

    def __init__(self, upstream: Upstream, keys: CreateKeys, times: CloudTimes) -> None:
        self._upstream = upstream
        self._keys = keys
        self._times = times
        self._echoed_at: dict[str, float] = {}
        self._accepted: deque[str] = deque(maxlen=REMEMBERED_JOBS)

    def accepted(self, job: PreviewJob) -> None:
        """Note a job that was made for a create of ours: a list that shows it without a marker disproves the echo."""
        self._accepted.append(job.job_id)

    def echoes(self, bucket: Bucket) -> bool:
        """Whether a list of the last hour proves that the bucket's host echoes user data."""
        at = self._echoed_at.get(bucket.ci_host)
        return at is not None and self._times.elapsed() - at < ECHO_SECONDS

    async def read(self, bucket: Bucket, begin: float, end: float) -> Listing:
        """The jobs that were created from `begin` to `end`, both cloud's times. GatewayError of the cloud."""
        request = ListPreviewJobsRequest(
            bucket=bucket.name,
            order=ListPreviewJobsRequest.ORDER_OLDEST_FIRST,
            created_after=Timestamp(seconds=max(0, int(begin))),
            created_before=Timestamp(seconds=int(end) + 1),
        )
        cursor, tokens, listed = "", {""}, list[Listed]()
        as_of: float | None = None
        doubted = False
        for number in range(LIST_PAGES):
            page = await self._page(ListJobs(request, bucket, LIST_SIZE, cursor))
            as_of = page.as_of if number == 0 else as_of
            listed += map(Listed, page.jobs, page.markers)
            doubted = self._learn(bucket, page, doubted=doubted)
            if not page.cursor or page.cursor in tokens:
                # Only an empty token is the end. One that was there before leads nowhere.
                return Listing(tuple(listed), not page.cursor and not page.repeated, as_of)
            cursor = page.cursor
            tokens.add(cursor)
        return Listing(tuple(listed), complete=False, as_of=as_of)

    async def hear(self, bucket: Bucket) -> None:
        """Ask the cloud for its time, by the shortest list. GatewayError of the cloud, or when it does not tell it."""
        request = ListPreviewJobsRequest(bucket=bucket.name)
        before = self._times.heard(bucket.ci_host)
        await self._upstream(ListJobs(request, bucket, 1, ""), self._call())
        if self._times.heard(bucket.ci_host) is before:
            raise bad_response("the cloud's reply has no valid Date, without which nothing can be signed for a record")

    def _learn(self, bucket: Bucket, page: JobPage, *, doubted: bool) -> bool:
        """Whether a job of ours without a marker is on the page, or was on one before: other markers prove nothing."""
        ours = set(self._accepted)
        jobs = map(Listed, page.jobs, page.markers)
        marked = [(each.job.job_id, has_valid_marker(each, self._keys)) for each in jobs]
        doubted = doubted or any(job_id in ours and not valid for job_id, valid in marked)
        if doubted:
            self._echoed_at.pop(bucket.ci_host, None)
        elif any(valid for _, valid in marked):
            self._echoed_at[bucket.ci_host] = self._times.elapsed()
        return doubted

    async def _page(self, operation: ListJobs) -> JobPage:
        try:
            return await self._upstream(operation, self._call())
        except ReplyTooLarge:
            if operation.size == 1:
                raise
            return await self._page(replace(operation, size=operation.size // 4 or 1))

    @staticmethod
    def _call() -> Call:
        return Call("", loop_time() + LIST_SECONDS, GATEWAY, no_cache=True)
