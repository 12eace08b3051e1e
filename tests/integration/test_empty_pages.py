"""Lists of a cloud that puts empty pages between those with jobs: no job is lost, and none comes twice."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from secrets import token_bytes
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsRequest
from docpreview_gateway.jobs.job_lists import MOST_READS, JobLists
from docpreview_gateway.jobs.page_tokens import PageTokens
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import ANONYMOUS, Caller
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.client import CloudClient
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from tests.fakes.clock import FakeClock
from tests.fakes.credentials import FakeCredentials
from tests.fakes.job_cloud import CloudJob, JobCloud
from tests.fakes.policies import caller_of
from tests.fakes.telemetry import FakeTelemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing", "main")
OLDEST_FIRST, NEWEST_FIRST = ListPreviewJobsRequest.ORDER_OLDEST_FIRST, ListPreviewJobsRequest.ORDER_NEWEST_FIRST
CALLERS = {"all": ANONYMOUS, "some": caller_of("mine", {BUCKET.name: ("mine/",)})}
JOBS = 25


@dataclass
class Site:
    """A cloud over sockets with JOBS jobs, every third of which only some callers see, and the lists of a gateway."""

    cloud: JobCloud
    lists: JobLists

    def visible(self, caller: Caller) -> list[str]:
        """The ids of the jobs that the caller may see, newest first."""
        jobs = self.cloud.listed(BUCKET.name)
        return [job.job_id for job in jobs if caller is ANONYMOUS or job.input_object.startswith("mine/")]

    async def pages(self, caller: Caller, request: ListPreviewJobsRequest) -> list[list[str]]:
        """The ids of the jobs on each page, to the end of the list."""
        pages = []
        while True:
            reply = await self.lists.page(request, BUCKET, Call("r1", time.monotonic() + 30, caller))
            pages.append([job.job_id for job in reply.jobs])
            request.page_token = reply.next_page_token
            if not request.page_token:
                return pages


@asynccontextmanager
async def site(empty_pages: int = 0) -> AsyncIterator[Site]:
    async with (
        JobCloud(empty_pages=empty_pages) as cloud,
        BuiltinTransport(base_url=cloud.url, connect_seconds=5, read_seconds=5) as transport,
    ):
        for number in range(JOBS):
            cloud.add(CloudJob(f"d{number:02}", BUCKET.name, "mine/a.pdf" if number % 3 else "secret/a.pdf"))
        keys, telemetry = FakeCredentials(), FakeTelemetry()
        client = CloudClient(transport, keys, CloudTimes(FakeClock()), telemetry=telemetry, timeout_seconds=10)
        yield Site(cloud, JobLists(client, PageTokens(keys, token_bytes)))


@pytest.mark.parametrize("order", [OLDEST_FIRST, NEWEST_FIRST], ids=["oldest first", "newest first"])
@pytest.mark.parametrize("caller", CALLERS.values(), ids=list(CALLERS))
@pytest.mark.parametrize("size", [1, 4, 10, 100])
@pytest.mark.parametrize("empty_pages", [1, 3])
async def test_empty_pages_between_others_are_read_over(
    empty_pages: int, size: int, caller: Caller, order: ListPreviewJobsRequest.Order.ValueType
) -> None:
    """Each page of a caller is full, and the list has each job once, in its order."""
    async with site(empty_pages) as made:
        expected = made.visible(caller)[:: 1 if order == NEWEST_FIRST else -1]
        pages = await made.pages(caller, ListPreviewJobsRequest(bucket=BUCKET.name, page_size=size, order=order))
    assert pages == [expected[begin : begin + size] for begin in range(0, len(expected), size)]


@pytest.mark.parametrize("caller", CALLERS.values(), ids=list(CALLERS))
async def test_more_empty_pages_than_a_call_reads_lead_to_no_job_lost(caller: Caller) -> None:
    """A page of the caller is empty then, and its token leads on."""
    async with site(2 * MOST_READS + 1) as made:
        pages = await made.pages(caller, ListPreviewJobsRequest(bucket=BUCKET.name, page_size=10))
    assert [job_id for page in pages for job_id in page] == made.visible(caller)
    assert [] in pages[:-1]


@pytest.mark.parametrize("caller", CALLERS.values(), ids=list(CALLERS))
@pytest.mark.parametrize("again", ["0.1", "0.2"], ids=["an earlier token", "its own token"])
async def test_a_token_that_leads_back_is_an_error_and_not_the_end_of_the_list(again: str, caller: Caller) -> None:
    """UPSTREAM_BAD_RESPONSE: jobs may follow that nobody can reach."""
    async with site(3) as made:
        made.cloud.next_tokens["0.3"] = again
        with pytest.raises(GatewayError) as caught:
            await made.pages(caller, ListPreviewJobsRequest(bucket=BUCKET.name, page_size=10))
    assert caught.value.reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE
    assert "does not go on" in caught.value.message
