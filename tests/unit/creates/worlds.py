"""Processes that make creates, the store that they share, and a cloud that can do all that a cloud may do.

Time is the event loop's, and virtual: `await asyncio.sleep(3600)` takes no time. The machine's own wall clock is wrong
by years, because nothing may rest on it.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview.v1.preview_job_pb2 import ObjectLocation, Page, PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.creates import pages
from docpreview_gateway.creates.days import day_of
from docpreview_gateway.creates.records import Timing
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call, ResponseInfo
from docpreview_gateway.model.callers import Caller, PageBudget
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.operations import CreateJob, GetJob, JobPage, ListJobs, Operation
from docpreview_gateway.upstream.wire.user_data import split_user_data
from tests.fakes.clock import FakeClock
from tests.fakes.creates import MemoryCreates, MemoryData
from tests.fakes.recorded import MemoryJournal, Recorded
from tests.fakes.tags import FakeTags
from tests.fakes.telemetry import FakeTelemetry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview_gateway.creates.imported import OldIds
    from docpreview_gateway.creates.ports import CallbackTrust, CreateStore, Webhooks
    from docpreview_gateway.creates.records import Record

NOON = 1_794_744_000.0
"""2026-11-15 12:00 UTC."""

DAY = 86400.0
TIMING = Timing()
FENCE = TIMING.fence_slack + TIMING.visibility
"""Seconds from the end of a signature to the fence."""

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
EXCLUSIVE = Bucket("own-1250000000", "ap-chongqing", "main", exclusive=True)
HOST = BUCKET.ci_host

ONE = Caller("one")
COUNTED = Caller("shop", budget=PageBudget(per_day=100, per_month=1000, estimate=40))
DEDUPES = Caller("viewer", dedupe_seconds=3600)


@dataclass
class Held:
    """A create that waits for `go`, before or after its first byte."""

    sent: bool
    go: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)


Fate: TypeAlias = "Literal['lost', 'never', 'unsent'] | GatewayError | Held | float"
"""Of a create: its reply is lost; it is lost itself; it is not sent; it is refused; it waits; it arrives so late."""


@dataclass
class Cloud:
    """The cloud. Tests set its fields."""

    begins_at: float = NOON
    echo: bool = True
    lag: float = 0.0
    """Seconds until lists show a new job."""
    page_size: int = 100
    empty_pages: int = 0
    """Empty pages with a token before each page of a list."""
    repeats: bool = False
    """Lists never end: the last page has a token that was there before."""
    has_dates: bool = True
    lies: list[float] = field(default_factory=list)
    """How wrong the next `Date`s are."""
    skew: float = 0.0
    """How far the clock that judges signatures is ahead of the `Date`."""
    delay: float = 0.0
    """Of each reply."""
    fates: list[Fate] = field(default_factory=list)
    list_failures: list[Exception] = field(default_factory=list)
    failures_have_dates: bool = False
    """Whether a list that fails has a `Date` all the same."""
    get_failures: list[Exception] = field(default_factory=list)
    jobs: dict[str, tuple[PreviewJob, float]] = field(default_factory=dict)
    """Jobs, with their whole user data, and since when lists show them."""
    asked: list[Operation[Any]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    late: list[asyncio.Task[None]] = field(default_factory=list)

    def now(self) -> float:
        return self.begins_at + loop_time()

    @property
    def posts(self) -> int:
        return sum(isinstance(operation, CreateJob) for operation in self.asked)

    @property
    def lists(self) -> list[ListJobs]:
        return [operation for operation in self.asked if isinstance(operation, ListJobs)]

    def date(self) -> float | None:
        return float(int(self.now() + (self.lies.pop(0) if self.lies else 0.0))) if self.has_dates else None

    def add(self, job: PreviewJob) -> PreviewJob:
        """A job that somebody made, now unless it says when."""
        made = PreviewJob()
        made.CopyFrom(job)
        made.bucket = made.bucket or BUCKET.name
        made.job_id = made.job_id or f"d{len(self.jobs):04}"
        made.create_time.seconds = made.create_time.seconds or int(self.now())
        self.jobs[made.job_id] = made, self.now() + self.lag
        return made

    def accept(self, operation: CreateJob) -> PreviewJob:
        request, flight = operation.request, operation.flight
        judge = self.now() + self.skew
        if flight is not None and not flight.window.begin <= judge <= flight.window.end:
            raise UpstreamError(reasons.ERROR_REASON_CLOCK_SKEW, "the signature is not valid now")
        job = PreviewJob(
            bucket=request.bucket,
            state=PreviewJob.STATE_SUBMITTED,
            input=ObjectLocation(bucket=request.bucket, object=request.input_object),
            output=ObjectLocation(bucket=operation.output.name, object=request.output.object),
            options=request.options,
            user_data=request.user_data if self.echo else "",
        )
        job.options.ClearField("password")
        return self.add(job)

    def end(self, job_id: str, made: int = 1, *, state: PreviewJob.State.ValueType = PreviewJob.STATE_SUCCESS) -> None:
        job = self.jobs[job_id][0]
        job.state = state
        job.result.succeeded_page_count = job.result.total_page_count = made
        job.result.pages.extend(Page(page_number=n + 1, object=f"p{n}") for n in range(made))

    def shown(self, job_id: str) -> PreviewJob:
        job = PreviewJob()
        job.CopyFrom(self.jobs[job_id][0])
        job.user_data = split_user_data(job.user_data)[0]
        return job

    def page(self, operation: ListJobs) -> tuple[list[str], str]:
        """Ids of a page's jobs, and the next token."""
        request, now = operation.request, self.now()
        found = [
            job
            for job, listed_at in self.jobs.values()
            if listed_at <= now
            and job.bucket == operation.bucket.name
            and (not request.HasField("created_after") or job.create_time.seconds >= request.created_after.seconds)
            and (not request.HasField("created_before") or job.create_time.seconds < request.created_before.seconds)
        ]
        found.sort(key=lambda job: job.create_time.seconds)
        if request.order != ListPreviewJobsRequest.ORDER_OLDEST_FIRST:
            found.reverse()
        at, gaps = map(int, (operation.cursor or "0.0").split("."))
        if gaps < self.empty_pages:
            return [], f"{at}.{gaps + 1}"
        end = at + min(operation.size, self.page_size)
        token = f"{end}.0" if end < len(found) else "0.1" if self.repeats else ""
        return [job.job_id for job in found[at:end]], token


class Line:
    """The port `Upstream` of one process."""

    def __init__(self, cloud: Cloud, times: CloudTimes) -> None:
        self.cloud = cloud
        self.times = times

    async def __call__(self, operation: Operation[Any], call: Call) -> Any:
        self.cloud.asked.append(operation)
        self.cloud.calls.append(call)
        sent_at = loop_time()
        await asyncio.sleep(self.cloud.delay)
        match operation:
            case CreateJob():
                call.response.upstream_request_id = f"cloud-{operation.request.input_object}"
                return await self._create(operation)
            case GetJob():
                return self._get(operation)
            case ListJobs():
                if self.cloud.list_failures:
                    if self.cloud.failures_have_dates:
                        self._hear(operation)
                    raise self.cloud.list_failures.pop(0)
                ids, token = self.cloud.page(operation)
                date = self._hear(operation)
                shown = tuple(map(self.cloud.shown, ids))
                markers = tuple(split_user_data(self.cloud.jobs[job_id][0].user_data)[1] for job_id in ids)
                as_of = None if date is None else date - (loop_time() - sent_at) - 1
                return JobPage(shown, token, markers, as_of)
        raise AssertionError(operation)

    def _get(self, operation: GetJob) -> PreviewJob:
        if self.cloud.get_failures:
            raise self.cloud.get_failures.pop(0)
        self._hear(operation)
        if operation.job_id not in self.cloud.jobs:
            raise UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, "no such job")
        return self.cloud.shown(operation.job_id)

    async def _create(self, operation: CreateJob) -> PreviewJob:
        flight, fate = operation.flight, self.cloud.fates.pop(0) if self.cloud.fates else None
        if isinstance(fate, Held) and not fate.sent:
            await self._wait(fate)
        if flight is not None and self.times.elapsed() > flight.send_by:
            raise GatewayError(reasons.ERROR_REASON_OVERLOADED, "too late; nothing was sent")
        if fate == "unsent":
            raise UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNREACHABLE, "no connection")
        if flight is not None:
            flight.began = True
        return await self._send(operation, fate)

    async def _send(self, operation: CreateJob, fate: Fate | None) -> PreviewJob:
        match fate:
            case Held(sent=True):
                await self._wait(fate)
            case "never":
                raise _lost()
            case "lost":
                self.cloud.accept(operation)
                raise _lost()
            case float():
                self.cloud.late.append(asyncio.get_running_loop().create_task(self._arrive(operation, fate)))
                raise _lost()
            case GatewayError():
                self._hear(operation)
                raise fate
        try:
            return self.cloud.shown(self.cloud.accept(operation).job_id)
        finally:
            self._hear(operation)

    @staticmethod
    async def _wait(held: Held) -> None:
        held.began.set()
        await held.go.wait()

    async def _arrive(self, operation: CreateJob, seconds: float) -> None:
        await asyncio.sleep(seconds)
        try:
            self.cloud.accept(operation)
        except UpstreamError:
            return

    def _hear(self, operation: Operation[Any]) -> float | None:
        date = self.cloud.date()
        if date is not None:
            self.times.hear(operation.bucket.ci_host, formatdate(date, usegmt=True))
        return date


@dataclass
class World:
    """Processes before one cloud, over one store. `parts` are those of the first process."""

    cloud: Cloud = field(default_factory=Cloud)
    data: MemoryData = field(default_factory=MemoryData)
    timing: Timing = TIMING
    buckets: Sequence[Bucket] = (BUCKET, EXCLUSIVE)
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)
    tags: FakeTags = field(default_factory=FakeTags)
    old: OldIds | None = None
    webhooks: Webhooks | None = None

    def __post_init__(self) -> None:
        self.store = MemoryCreates(self.data)
        self.parts = self.process(self.store)

    def process(
        self,
        store: CreateStore | None = None,
        journal: MemoryJournal | None = None,
        times: CloudTimes | None = None,
        callbacks: CallbackTrust | None = None,
    ) -> Recorded:
        """Another process."""
        times = times or clock()
        return Recorded(
            Line(self.cloud, times),
            BucketRegistry(self.buckets),
            times,
            self.telemetry,
            timing=self.timing,
            tags=self.tags,
            store=store or MemoryCreates(self.data),
            callbacks=callbacks,
            journal=journal or MemoryJournal(),
            old=self.old,
            webhooks=self.webhooks,
        )

    async def create(
        self,
        asked: CreatePreviewJobRequest,
        caller: Caller = ONE,
        *,
        at: Recorded | None = None,
        seconds: float = 20.0,
        no_cache: bool = False,
        response: ResponseInfo | None = None,
    ) -> PreviewJob:
        call = Call("r1", loop_time() + seconds, caller, no_cache=no_cache, response=response or ResponseInfo())
        return await (at or self.parts).creates.create(asked, call)

    async def error(self, asked: CreatePreviewJobRequest, caller: Caller = ONE, **how: Any) -> GatewayError:
        try:
            job = await self.create(asked, caller, **how)
        except GatewayError as error:
            return error
        raise AssertionError(job)

    async def settle(self, seconds: float = 0.0, *, at: Recorded | None = None) -> None:
        """A round of the loop over records that are due, after so many seconds."""
        await asyncio.sleep(seconds)
        await (at or self.parts).settlement.round()

    def record(self, asked: CreatePreviewJobRequest, caller: Caller = ONE) -> Record | None:
        """The stored record of an id."""
        key = self.parts.keys.record_keys(caller.name, asked.bucket, asked.request_id)[0]
        found = self.data.records.get(key)
        return found.record if found else None

    @property
    def records(self) -> list[Record]:
        return [record for record, _ in self.data.records.values()]

    def pages(self, caller: Caller = COUNTED, day: str = "") -> pages.Pages:
        """The caller's pages of a day; today's if none is given."""
        return self.data.count(caller.name, pages.periods(day or day_of(self.cloud.now()))).day


def clock() -> CloudTimes:
    """The clocks of a process that has heard nothing."""
    return CloudTimes(FakeClock(1_000_000_000.0), elapsed=loop_time)


def request(request_id: str | None = None, *, bucket: Bucket = BUCKET, **fields: Any) -> CreatePreviewJobRequest:
    """A create: with a new id, unless another one, or an empty one, is given."""
    values: dict[str, Any] = {
        "bucket": bucket.name,
        "input_object": "a.pdf",
        "output": ObjectLocation(object="out/p-${Page}.jpg"),
        "request_id": str(uuid.uuid4()) if request_id is None else request_id,
    }
    return CreatePreviewJobRequest(**(values | fields))


def selecting(ranges: str, request_id: str | None = None) -> CreatePreviewJobRequest:
    """A create that selects pages."""
    return request(request_id, options=PreviewOptions(page_ranges=ranges))


def name_of(error: GatewayError) -> str:
    """The reason of an error, in short."""
    return ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


def _lost() -> UpstreamError:
    return UpstreamError(reasons.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "the reply was lost")
