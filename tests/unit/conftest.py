"""Use-cases over the fake cloud, with times so short that nobody waits for them."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.jobs.job_lists import JobLists
from docpreview_gateway.jobs.page_tokens import PageTokens
from docpreview_gateway.jobs.page_urls import PageUrls
from docpreview_gateway.jobs.poller import WatchLimits
from docpreview_gateway.jobs.polling import Schedule
from docpreview_gateway.jobs.preview_jobs import PreviewJobs
from docpreview_gateway.jobs.preview_queues import PreviewQueues
from docpreview_gateway.jobs.watching import Watching
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.uploads.tokens import UploadTokens
from docpreview_gateway.uploads.uploads import Uploads
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from tests.fakes.clock import FakeClock
from tests.fakes.credentials import FakeCredentials
from tests.fakes.objects import FakeObjects
from tests.fakes.recorded import Recorded
from tests.fakes.telemetry import FakeAuditLog, FakeTelemetry
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from docpreview_gateway.jobs.ports import JobShares
    from docpreview_gateway.upstream.operations import CachingUpstream

BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing", "main")
OTHER = Bucket("previews-1250000000", "ap-guangzhou", "main")
QUICK = WatchLimits(
    heartbeat=5.0, stream=30.0, poll=5.0, schedule=Schedule(floor=0.002, cap=0.01, fraction=0.0, patience=3)
)


@dataclass
class Office:
    """Everything that the use-cases are made of."""

    limits: WatchLimits = QUICK
    upstream: FakeUpstream = field(default_factory=FakeUpstream)
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)
    clock: FakeClock = field(default_factory=FakeClock)
    buckets: Sequence[Bucket] = (BUCKET, OTHER)
    shares: JobShares | None = None

    def __post_init__(self) -> None:
        self.wire(self.upstream)

    def wire(self, upstream: CachingUpstream) -> None:
        """Put the use-cases before this cloud."""
        buckets, times = BucketRegistry(self.buckets), CloudTimes(self.clock)
        self.upstream.heard = lambda host: times.hear(host, formatdate(self.clock.now(), usegmt=True))
        self.watching = Watching(
            upstream, times, self.telemetry, limits=self.limits, jitter=lambda: 0.5, shares=self.shares
        )
        page_urls = PageUrls(buckets, FakeCredentials(), times)
        tokens = PageTokens(FakeCredentials(), secrets.token_bytes)
        lists = JobLists(upstream, tokens)
        self.recorded = Recorded(upstream, buckets, times, self.telemetry)
        self.jobs = PreviewJobs(upstream, buckets, self.recorded.creates, self.watching, page_urls, lists=lists)
        self.queues = PreviewQueues(upstream, buckets, tokens)
        self.objects, self.log = FakeObjects(self.clock), FakeAuditLog()
        self.uploads = Uploads(
            buckets,
            self.objects,
            FakeCredentials(),
            UploadTokens(FakeCredentials(), buckets.find, secrets.token_bytes),
            telemetry=self.telemetry,
            log=self.log,
            random_bytes=secrets.token_bytes,
        )


def call(seconds: float = 30.0) -> Call:
    """A call with so many seconds left."""
    return Call(request_id="r1", deadline=asyncio.get_running_loop().time() + seconds)


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    """Use-cases that follow the job `d1`, which runs."""
    made = Office()
    yield made
    await made.watching.close()
    assert (made.telemetry.pollers, made.telemetry.watchers) == (0, 0)
