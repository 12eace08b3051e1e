"""A fake cloud that knows the truth: for which create each job was made, whatever its lists show."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.model.validation import selected_pages
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.operations import JobPage
from docpreview_gateway.upstream.wire.user_data import Marker, read_marker, split_user_data

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.upstream.operations import ListJobs
    from docpreview_gateway.upstream.wire.signing import Window
    from tests.simulation.faults import Faults

EPOCH = 1794268800.0
"""The cloud's Unix time at which a world begins: 2026-11-10 00:00 UTC."""


@dataclass(eq=False, slots=True)
class Made:
    """A job, and all that the cloud knows of it. Times are the cloud's."""

    job: PreviewJob
    text: str
    """The caller's user data."""
    marker: Marker | None
    marker_text: str
    created: float
    listed_at: float
    ends_at: float
    pages: int


@dataclass
class CloudRules:
    """How this cloud is."""

    echo: bool = True
    visibility: float = 60.0
    """Longest time until a list shows a new job."""
    least_lag: float = 0.0
    """Seconds until a list shows a new job, at least."""
    page_size: int = 100
    """Most jobs of a page."""
    skew: float = 0.0
    """Seconds by which the clock that judges signatures is ahead of the `Date`."""
    pages: int = 2
    """Pages of a document, for jobs that do not select some."""
    judges: bool = True
    """False: late requests are accepted, as no cloud does."""
    begins_at: float = EPOCH


@dataclass
class Cloud:
    """The cloud. `on_made` is told each new job."""

    rules: CloudRules
    rng: random.Random
    faults: Faults
    on_made: Callable[[Made], None]
    note: Callable[..., None]
    jobs: list[Made] = field(default_factory=list)
    flying: int = 0
    """Requests that are on their way."""

    def now(self) -> float:
        return self.rules.begins_at + loop_time()

    def date(self) -> str:
        """The `Date` of a reply; once it may be wrong."""
        lie = self.faults.strike("date")
        if lie is not None:
            self.note("the cloud's Date is wrong by", lie.value)
        return formatdate(self.now() + (lie.value if lie else 0.0), usegmt=True)

    def judge(self, window: Window) -> None:
        """CLOCK_SKEW when a signature is not valid now."""
        if self.rules.judges and not window.begin <= self.now() + self.rules.skew <= window.end:
            raise UpstreamError(reasons.ERROR_REASON_CLOCK_SKEW, "not valid now", retry_after=1.0)

    def create(self, request: CreatePreviewJobRequest, window: Window) -> PreviewJob:
        """Accept a create, or refuse it by its signature."""
        self.judge(window)
        text, marker = split_user_data(request.user_data)
        now = self.now()
        job = PreviewJob(
            bucket=request.bucket,
            job_id=f"d{len(self.jobs):04}",
            state=PreviewJob.STATE_SUBMITTED,
            create_time=Timestamp(seconds=int(now)),
            input=ObjectLocation(bucket=request.bucket, object=request.input_object),
            output=ObjectLocation(bucket=request.output.bucket or request.bucket, object=request.output.object),
            options=request.options,
            user_data=text if self.rules.echo else "",
        )
        job.options.ClearField("password")
        asked = selected_pages(request.options)
        longest = self.rules.visibility
        lag = self.rng.choice((0.0, 0.0, self.rng.uniform(0, longest), longest))
        lag = max(lag, self.rules.least_lag)
        ends = now + self.rng.uniform(1, 60)
        pages = asked if asked > 0 else self.rules.pages
        made = Made(job, text, read_marker(marker), marker, now, now + lag, ends, pages)
        self.jobs.append(made)
        self.note("the cloud makes", job.job_id, text, marker[-12:], "listed later by", lag)
        self.on_made(made)
        return self._shown(made)

    def get(self, job_id: str) -> PreviewJob:
        for made in self.jobs:
            if made.job.job_id == job_id:
                return self._shown(made)
        raise UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, "no such job")

    def page(self, operation: ListJobs, as_of: float | None) -> JobPage:
        """A page of a list; faults make it empty, or cut the list."""
        request, now = operation.request, self.now()
        shown = [
            made
            for made in self.jobs
            if made.listed_at <= now
            and (not request.HasField("created_after") or made.job.create_time.seconds >= request.created_after.seconds)
            and (
                not request.HasField("created_before") or made.job.create_time.seconds < request.created_before.seconds
            )
        ]
        if self.faults.strike("page-empty"):
            self.note("an empty page that is not the end")
            # The token of an empty page leads to where the list was.
            return JobPage((), f"{operation.cursor}.", as_of=as_of)
        if self.faults.strike("page-cut"):
            self.note("a list that is cut")
            return JobPage((), operation.cursor, as_of=as_of, repeated=True)
        start = int(operation.cursor.rstrip(".") or 0)
        found = [made for made in shown if self.jobs.index(made) >= start]
        size = min(operation.size, self.rules.page_size)
        cursor = str(self.jobs.index(found[size - 1]) + 1) if len(found) > size else ""
        found = found[:size]
        markers = tuple(made.marker_text if self.rules.echo else "" for made in found)
        return JobPage(tuple(map(self._shown, found)), cursor, markers, as_of)

    def _shown(self, made: Made) -> PreviewJob:
        job = PreviewJob()
        job.CopyFrom(made.job)
        if self.now() >= made.ends_at:
            job.state = PreviewJob.STATE_SUCCESS
            job.result.succeeded_page_count = made.pages
        return job

    def arrive_later(self, request: CreatePreviewJobRequest, window: Window, seconds: float) -> None:
        """A request that its sender does not wait for any more arrives after a time."""
        self.flying += 1

        async def arrive() -> None:
            await asyncio.sleep(seconds)
            self.flying -= 1
            self.note("a late request arrives")
            try:
                self.create(request, window)
            except UpstreamError:
                self.note("it is refused by its signature")

        self.late = asyncio.get_running_loop().create_task(arrive())
