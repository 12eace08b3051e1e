"""The contract of `Upstream`, the cloud's job API, for every implementation.

The fake in memory, our client against the emulator over real sockets, and, when `REAL_CLOUD_BUCKET`,
`REAL_CLOUD_REGION`, `REAL_CLOUD_SECRET_ID`, `REAL_CLOUD_SECRET_KEY` and `REAL_CLOUD_DOCUMENT` (the
key of a one-page document in the bucket) are set, the real service. Jobs of the real service are billed.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, PreviewQueue
from docpreview_emulator import Emulator
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.client import CloudClient
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.operations import CreateJob, GetJob, ListJobs, ListQueues, Upstream
from docpreview_gateway.upstream.wire.signing import Credentials
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.fakes.credentials import FakeCredentials
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from docpreview.v1.error_reason_pb2 import ErrorReason


EXAMPLES = Path(__file__).parents[2] / "examples"
REAL = tuple(f"REAL_CLOUD_{name}" for name in ("BUCKET", "REGION", "SECRET_ID", "SECRET_KEY", "DOCUMENT"))
MISSING_JOB = "d" + "0" * 32


@dataclass
class Subject:
    """An implementation with a bucket that holds the document `document`."""

    upstream: Upstream
    bucket: Bucket
    document: str
    finish: Callable[[str], None]

    async def create(self, **fields: object) -> PreviewJob:
        return await self.upstream(CreateJob(self.request(**fields), self.bucket, self.bucket), call())

    def request(self, **fields: object) -> CreatePreviewJobRequest:
        request = CreatePreviewJobRequest(
            bucket=self.bucket.name,
            input_object=self.document,
            output=ObjectLocation(object="docpreview-contract/p-${Page}.jpg"),
            options=PreviewOptions(target_format=PreviewOptions.TARGET_FORMAT_JPG, end_page=1),
        )
        request.MergeFrom(CreatePreviewJobRequest(**fields))  # type: ignore[arg-type]
        return request

    async def list_page(self, request: ListPreviewJobsRequest, size: int, cursor: str = "") -> tuple[list[str], str]:
        page = await self.upstream(ListJobs(request, self.bucket, size, cursor), call())
        return [job.job_id for job in page.jobs], page.cursor


def call() -> Call:
    return Call(request_id="contract", deadline=asyncio.get_running_loop().time() + 30)


@asynccontextmanager
async def fake() -> AsyncIterator[Subject]:
    upstream, bucket = FakeUpstream(), Bucket("examplebucket-1250000000", "ap-chongqing", "main")
    upstream.objects.add((bucket.name, "one.pdf"))
    yield Subject(upstream, bucket, "one.pdf", lambda job_id: upstream.finish(bucket.name, job_id))


@asynccontextmanager
async def emulated() -> AsyncIterator[Subject]:
    bucket = Bucket("examplebucket-1250000000", "ap-chongqing", "main")
    async with (
        Emulator() as emulator,
        BuiltinTransport(base_url=emulator.url, connect_seconds=3, read_seconds=10) as transport,
    ):
        emulator.put_object(bucket.name, bucket.region, "one.pdf", (EXAMPLES / "seven-pages.pdf").read_bytes())
        emulator.hold_jobs()
        client = CloudClient(
            transport, FakeCredentials(), CloudTimes(SystemClock()), telemetry=FakeTelemetry(), timeout_seconds=10
        )
        yield Subject(client, bucket, "one.pdf", lambda _job_id: emulator.release_jobs())


@asynccontextmanager
async def real() -> AsyncIterator[Subject]:
    name, region, secret_id, secret_key, document = (os.environ[variable] for variable in REAL)
    credentials = FakeCredentials(main=Credentials(secret_id, secret_key))
    async with BuiltinTransport(base_url=None, connect_seconds=5, read_seconds=20) as transport:
        client = CloudClient(
            transport, credentials, CloudTimes(SystemClock()), telemetry=FakeTelemetry(), timeout_seconds=20
        )
        yield Subject(client, Bucket(name, region, "main"), document, lambda _job_id: None)


IMPLEMENTATIONS: dict[str, Callable[[], AbstractAsyncContextManager[Subject]]] = {
    "fake": fake,
    "emulator": emulated,
}
if all(variable in os.environ for variable in REAL):
    IMPLEMENTATIONS["real"] = real


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with IMPLEMENTATIONS[request.param]() as made:
        yield made


async def fails(awaitable: object, reason: ErrorReason.ValueType) -> None:
    with pytest.raises(UpstreamError) as caught:
        await awaitable  # type: ignore[misc]
    assert caught.value.reason == reason


async def test_a_create_returns_the_job_waiting_in_a_queue_as_it_was_asked(subject: Subject) -> None:
    """With the request's input, output, options and user data."""
    job = await subject.create(user_data="contract 1")
    assert job.state in {PreviewJob.STATE_SUBMITTED, PreviewJob.STATE_RUNNING}
    assert (job.bucket, job.user_data) == (subject.bucket.name, "contract 1")
    assert job.input.object == subject.document
    assert job.output.object == "docpreview-contract/p-${Page}.jpg"
    assert job.options.target_format == PreviewOptions.TARGET_FORMAT_JPG
    assert job.job_id
    assert job.queue_id


async def test_a_created_job_is_read_by_its_id(subject: Subject) -> None:
    """The get returns the job of the create."""
    created = await subject.create()
    found = await subject.upstream(GetJob(subject.bucket, created.job_id), call())
    assert (found.job_id, found.queue_id) == (created.job_id, created.queue_id)
    assert found.create_time == created.create_time


async def test_a_job_ends_as_success_with_its_pages(subject: Subject) -> None:
    """For a document that can be rendered."""
    created = await subject.create()
    subject.finish(created.job_id)
    async with asyncio.timeout(60):
        while (job := await subject.upstream(GetJob(subject.bucket, created.job_id), call())).state in {  # noqa: ASYNC110
            PreviewJob.STATE_SUBMITTED,
            PreviewJob.STATE_RUNNING,
        }:
            await asyncio.sleep(0.05)
    assert job.state == PreviewJob.STATE_SUCCESS
    assert [page.page_number for page in job.result.pages] == [1]


async def test_a_password_is_never_returned(subject: Subject) -> None:
    """The cloud returns a document's password; an `Upstream` never does."""
    created = await subject.create(options=PreviewOptions(password="canary-7c1e"))
    found = await subject.upstream(GetJob(subject.bucket, created.job_id), call())
    listed = await subject.upstream(
        ListJobs(ListPreviewJobsRequest(bucket=subject.bucket.name), subject.bucket, 10, ""), call()
    )
    for job in (created, found, *listed.jobs):
        assert "canary-7c1e" not in str(job)


async def test_a_get_of_a_missing_job_is_job_not_found(subject: Subject) -> None:
    """In each form in which the cloud says so."""
    await fails(subject.upstream(GetJob(subject.bucket, MISSING_JOB), call()), reasons.ERROR_REASON_JOB_NOT_FOUND)


async def test_a_create_of_a_missing_document_is_refused(subject: Subject) -> None:
    """INPUT_OBJECT_NOT_FOUND: the create was not admitted."""
    await fails(subject.create(input_object="nothing-here.pdf"), reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND)


async def test_a_create_in_an_unknown_queue_is_refused(subject: Subject) -> None:
    """QUEUE_NOT_FOUND: the create was not admitted."""
    await fails(subject.create(queue_id="p" + "0" * 32), reasons.ERROR_REASON_QUEUE_NOT_FOUND)


async def test_pages_of_a_list_have_every_job_once(subject: Subject) -> None:
    """The last page has no cursor."""
    made = [(await subject.create()).job_id for _ in range(5)]
    request = ListPreviewJobsRequest(bucket=subject.bucket.name)
    seen: list[str] = []
    cursor = ""
    while True:
        job_ids, cursor = await subject.list_page(request, 2, cursor)
        assert len(job_ids) <= 2
        seen += job_ids
        if not cursor or set(made) <= set(seen):
            break
    assert len(seen) == len(set(seen))
    assert [job_id for job_id in seen if job_id in made] == made[::-1]


async def test_a_list_may_begin_with_the_oldest_job(subject: Subject) -> None:
    """ORDER_OLDEST_FIRST reverses the list."""
    for _ in range(3):
        await subject.create()
    order = ListPreviewJobsRequest.ORDER_OLDEST_FIRST
    oldest, _ = await subject.list_page(ListPreviewJobsRequest(bucket=subject.bucket.name, order=order), 100)
    newest, _ = await subject.list_page(ListPreviewJobsRequest(bucket=subject.bucket.name), 100)
    if len(oldest) < 100:
        assert oldest == newest[::-1]


async def test_a_list_may_be_filtered_by_state(subject: Subject) -> None:
    """Only jobs in the requested states are listed."""
    created = await subject.create()
    waiting = [PreviewJob.STATE_SUBMITTED, PreviewJob.STATE_RUNNING, PreviewJob.STATE_SUCCESS]
    cancelled = [PreviewJob.STATE_CANCELLED]
    bucket = subject.bucket.name
    assert created.job_id in (await subject.list_page(ListPreviewJobsRequest(bucket=bucket, states=waiting), 100))[0]
    listed = await subject.list_page(ListPreviewJobsRequest(bucket=bucket, states=cancelled), 100)
    assert created.job_id not in listed[0]


async def test_a_bucket_lists_the_queue_of_its_creates(subject: Subject) -> None:
    """Creates without a queue go to the bucket's own queue."""
    created = await subject.create()
    query = ListQueues(ListPreviewQueuesRequest(bucket=subject.bucket.name), subject.bucket, 100, 1)
    page = await subject.upstream(query, call())
    assert created.queue_id in {queue.queue_id for queue in page.queues}
    assert page.total == len(page.queues)
    assert page.missing == ()


async def test_missing_queues_are_listed_apart(subject: Subject) -> None:
    """They are not an error."""
    missing = "p" + "0" * 32
    request = ListPreviewQueuesRequest(bucket=subject.bucket.name, queue_ids=[missing])
    page = await subject.upstream(ListQueues(request, subject.bucket, 10, 1), call())
    assert (page.queues, page.missing) == ((), (missing,))


async def test_queues_may_be_filtered_by_state(subject: Subject) -> None:
    """The active queue is not among the paused ones."""
    request = ListPreviewQueuesRequest(bucket=subject.bucket.name, state=PreviewQueue.STATE_PAUSED)
    page = await subject.upstream(ListQueues(request, subject.bucket, 10, 1), call())
    assert all(queue.state == PreviewQueue.STATE_PAUSED for queue in page.queues)


async def test_a_read_reports_the_clouds_request_id(subject: Subject) -> None:
    """The vendor's support asks for the id."""
    asked = call()
    created = await subject.create()
    await subject.upstream(GetJob(subject.bucket, created.job_id), asked)
    assert asked.response.upstream_request_id
    assert asked.response.cache == "miss"
