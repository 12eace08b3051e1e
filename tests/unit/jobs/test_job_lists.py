"""Lists of jobs over a cloud in memory: pages are filled, and tell nothing about hidden jobs."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1 import preview_job_service_pb2 as pb
from docpreview.v1.preview_job_pb2 import ObjectLocation, Page, PreviewJob
from docpreview_gateway.jobs.job_lists import LARGEST_PAGE, MAX_LIST_BYTES, MOST_READS, Position
from docpreview_gateway.model.callers import ANONYMOUS, Caller
from docpreview_gateway.model.errors import GatewayError, InvalidRequest, ReplyTooLarge
from docpreview_gateway.upstream.operations import JobPage
from tests.fakes.policies import caller_of
from tests.fakes.upstream import EPOCH, FakeUpstream
from tests.unit.conftest import BUCKET, Office, call

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.operations import ListJobs

RUNNING, SUCCESS = PreviewJob.STATE_RUNNING, PreviewJob.STATE_SUCCESS
OLDEST_FIRST = pb.ListPreviewJobsRequest.ORDER_OLDEST_FIRST
MINE = caller_of("mine", {BUCKET.name: ("mine/",)})
WHOLE = caller_of("whole", {BUCKET.name: ("",)})


class Keyset(FakeUpstream):
    """A cloud whose cursors are the id of a page's last job, so that new jobs do not move later pages."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[tuple[str, int]] = []

    async def list_jobs(self, query: ListJobs, call: Call) -> JobPage:
        await self._enter("list_jobs", query.bucket.name, call)
        self.queries.append((query.cursor, query.size))
        request = query.request
        numbered = list(self.jobs.values())
        if request.order != OLDEST_FIRST:
            numbered.reverse()
        if query.cursor:
            ids = [job.job_id for job in numbered]
            numbered = numbered[ids.index(query.cursor) + 1 :]
        found = [job for job in numbered if not request.states or job.state in request.states]
        page = tuple(found[: query.size])
        return JobPage(page, page[-1].job_id if len(found) > query.size else "")

    def put(self, key: str, state: PreviewJob.State.ValueType = SUCCESS) -> str:
        """Add a job of a document."""
        job = self.add_job(BUCKET.name, f"d{len(self.jobs):04}", state)
        job.input.CopyFrom(ObjectLocation(bucket=BUCKET.name, object=key))
        return job.job_id


async def page_of(office: Office, request: pb.ListPreviewJobsRequest, caller: Caller) -> list[str]:
    """The ids of one page; its token goes into the request."""
    reply = await office.jobs.list_jobs(request, call()._replace(caller=caller))
    request.page_token = reply.next_page_token
    return [job.job_id for job in reply.jobs]


async def pages_of(office: Office, caller: Caller = ANONYMOUS, **fields: object) -> list[list[str]]:
    """The ids of all pages."""
    request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, **fields)  # type: ignore[arg-type]
    pages = [await page_of(office, request, caller)]
    while request.page_token:
        pages.append(await page_of(office, request, caller))
    return pages


def filled(keys: Iterable[str]) -> tuple[Office, list[str]]:
    """A cloud with a job of each key, oldest first, and the ids of those under mine/, newest first."""
    upstream = Keyset()
    mine = [job_id for key in keys if (job_id := upstream.put(key)) and key.startswith("mine/")]
    return Office(upstream=upstream), mine[::-1]


class Heavy(FakeUpstream):
    """A cloud whose replies, or whose jobs, are too large beyond a number of jobs."""

    def __init__(self, *, most: int, padding: int = 0) -> None:
        super().__init__()
        self.most = most
        self.padding = padding
        self.sizes: list[int] = []

    async def list_jobs(self, query: ListJobs, call: Call) -> JobPage:
        self.sizes.append(query.size)
        if query.size > self.most:
            raise ReplyTooLarge
        return await super().list_jobs(query, call)

    def fill(self, count: int) -> list[str]:
        for number in range(count):
            job = self.add_job(BUCKET.name, f"d{number:03}", SUCCESS)
            job.result.pages.append(Page(object="x" * self.padding))
        return [f"d{number:03}" for number in reversed(range(count))]


class TestList:
    async def test_page_tokens_lead_through_all_jobs_each_once(self, office: Office) -> None:
        """The default page size is ten."""
        for number in range(25):
            office.upstream.add_job(BUCKET.name, f"d{number:02}", RUNNING)
        pages = await pages_of(office)
        assert [len(page) for page in pages] == [10, 10, 5]
        assert list(chain.from_iterable(pages)) == [f"d{number:02}" for number in reversed(range(25))]

    async def test_a_token_with_other_filters_is_rejected(self, office: Office) -> None:
        """A token is bound to the filters of its list."""
        for number in range(3):
            office.upstream.add_job(BUCKET.name, f"d{number}", RUNNING)
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=1)
        request.page_token = (await office.jobs.list_jobs(request, call())).next_page_token
        request.states.append(RUNNING)
        with pytest.raises(InvalidRequest):
            await office.jobs.list_jobs(request, call())

    @pytest.mark.parametrize(
        ("upstream", "sizes"),
        [
            (Heavy(most=5), [100, 25, 6, 1]),
            (Heavy(most=30), [100, 25]),
            (Heavy(most=1000, padding=1_000_000), [100]),
        ],
        ids=["reply", "reply-once", "message"],
    )
    async def test_a_page_that_is_too_large_is_requested_in_smaller_ones(
        self, upstream: Heavy, sizes: list[int]
    ) -> None:
        """What does not fit into a message is on the next page; the tokens still lead through all jobs."""
        office = Office(upstream=upstream)
        expected = upstream.fill(30)
        seen: list[str] = []
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=100, include_pages=True)
        while True:
            page = await office.jobs.list_jobs(request, call())
            if not seen:
                assert upstream.sizes == sizes
            assert page.ByteSize() <= MAX_LIST_BYTES
            seen += [job.job_id for job in page.jobs]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        assert seen == expected

    async def test_a_single_job_that_is_too_large_to_read_is_a_bad_response(self) -> None:
        """UPSTREAM_BAD_RESPONSE: a page of one job cannot be reduced."""
        office = Office(upstream=Heavy(most=0))
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name)
        with pytest.raises(GatewayError) as caught:
            await office.jobs.list_jobs(request, call())
        assert caught.value.reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE

    async def test_a_single_job_that_is_too_large_to_send_is_returned(self) -> None:
        """The rpc layer raises REPLY_TOO_LARGE."""
        upstream = Heavy(most=10, padding=MAX_LIST_BYTES)
        upstream.fill(1)
        reply = await Office(upstream=upstream).jobs.list_jobs(
            pb.ListPreviewJobsRequest(bucket=BUCKET.name, include_pages=True), call()
        )
        assert len(reply.jobs) == 1

    async def test_a_caller_who_sees_all_costs_one_read_of_its_page_size_for_each_page(self) -> None:
        """Also with a policy, and also when the last page is full."""
        office, _ = filled(f"other/{number}.pdf" for number in range(20))
        pages = await pages_of(office, WHOLE, page_size=5)
        assert [len(page) for page in pages] == [5, 5, 5, 5]
        assert [size for _, size in office.upstream.queries] == [5] * 4  # type: ignore[attr-defined]

    async def test_an_empty_page_of_the_cloud_does_not_end_the_list(self) -> None:
        """A list is complete only when the cloud's token is empty."""
        office = Office(upstream=Gappy())
        for number in range(4):
            office.upstream.add_job(BUCKET.name, f"d{number}", RUNNING)
        assert await pages_of(office, page_size=2) == [["d3", "d2"], ["d1", "d0"]]

    @pytest.mark.parametrize(
        "tokens", [{"": "1", "1": "1"}, {"": "1", "1": "2", "2": "1"}], ids=["its own", "an earlier one"]
    )
    @pytest.mark.parametrize("caller", [ANONYMOUS, MINE], ids=["all", "some"])
    async def test_a_list_that_leads_back_is_an_error_and_not_its_end(
        self, tokens: dict[str, str], caller: Caller
    ) -> None:
        """A caller would take the end for the whole list."""
        office = Office(upstream=Circle(tokens))
        with pytest.raises(GatewayError) as caught:
            await pages_of(office, caller)
        assert caught.value.reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE
        assert "does not go on" in caught.value.message


class Circle(FakeUpstream):
    """A cloud of empty pages, whose tokens lead back."""

    def __init__(self, tokens: dict[str, str]) -> None:
        super().__init__()
        self.tokens = tokens

    async def list_jobs(self, query: ListJobs, _call: Call) -> JobPage:
        token = self.tokens[query.cursor]
        return JobPage((), token, repeated=token == query.cursor)


class Gappy(FakeUpstream):
    """A cloud with an empty page before each page."""

    async def list_jobs(self, query: ListJobs, call: Call) -> JobPage:
        if not query.cursor.startswith("gap"):
            return JobPage((), f"gap{query.cursor or 0}")
        return await super().list_jobs(replace(query, cursor=query.cursor.removeprefix("gap")), call)


class TestHiddenJobs:
    @pytest.mark.parametrize("size", [1, 2, 7, 10, 99, 100])
    @pytest.mark.parametrize("visible", [0, 1, 10, 100, 137])
    async def test_pages_and_tokens_are_the_same_with_and_without_hidden_jobs(self, size: int, visible: int) -> None:
        """Hidden jobs before, between and after the visible ones: same pages, same lengths of tokens."""
        shapes = []
        for hidden in (0, 57, 400):
            keys = ["mine/a.pdf"] * visible + ["secret/b.pdf"] * hidden
            random.Random(hidden).shuffle(keys)  # noqa: S311 - the same in every run
            office, mine = filled(keys)
            request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=size)
            found, shape = [], []
            while True:
                page = await page_of(office, request, MINE)
                found += page
                shape.append((len(page), len(request.page_token)))
                if not request.page_token:
                    break
            assert found == mine
            shapes.append(shape)
        assert shapes[0] == shapes[1] == shapes[2]
        assert all(count == size for count, _ in shapes[0][:-1])

    @given(st.lists(st.booleans(), max_size=350), st.integers(1, 100), st.booleans())
    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    async def test_any_mixture_gives_the_visible_jobs_in_full_pages(
        self,
        visible: list[bool],
        size: int,
        oldest_first: bool,  # noqa: FBT001 - of hypothesis
    ) -> None:
        """The reference: the visible jobs in order, cut into pages; one empty page if there are none."""
        office, mine = filled("mine/a" if is_visible else "secret/a" for is_visible in visible)
        order = OLDEST_FIRST if oldest_first else pb.ListPreviewJobsRequest.ORDER_NEWEST_FIRST
        expected = mine[::-1] if oldest_first else mine
        pages = await pages_of(office, MINE, page_size=size, order=order)
        assert pages == ([expected[begin : begin + size] for begin in range(0, len(expected), size)] or [[]])

    async def test_the_cloud_is_read_in_its_largest_pages_whatever_the_page_size(self) -> None:
        """The number of reads does not tell how many hidden jobs are before a visible one."""
        office, _ = filled(["mine/a", "secret/a"] * 120)
        await pages_of(office, MINE, page_size=1)
        assert {size for _, size in office.upstream.queries} == {LARGEST_PAGE}  # type: ignore[attr-defined]

    @pytest.mark.parametrize("caller", [WHOLE, MINE])
    async def test_a_page_size_above_the_largest_is_the_largest(self, caller: Caller) -> None:
        """100 jobs, as the contract says."""
        office, jobs = filled(["mine/a"] * 150)
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=5000)
        assert await page_of(office, request, caller) == jobs[:100]
        assert await page_of(office, request, caller) == jobs[100:]

    async def test_the_work_of_a_call_is_bounded_and_its_token_leads_on(self) -> None:
        """Behind more hidden jobs than a call reads there is an empty page, the only sign of them."""
        hidden = MOST_READS * LARGEST_PAGE
        office, mine = filled(["mine/a", *["secret/a"] * hidden, "mine/b"])
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=1)
        assert await page_of(office, request, MINE) == mine[:1]
        assert len(office.upstream.asked) == MOST_READS
        assert await page_of(office, request, MINE) == mine[1:]
        assert request.page_token == ""

    async def test_reads_begin_in_the_first_half_of_the_callers_time(self) -> None:
        """A page that is short for want of time still has its token."""
        office, mine = filled(["mine/a", *["secret/a"] * 250, "mine/b"])
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=5)
        late = call(-1.0)._replace(caller=MINE)
        reply = await office.jobs.list_jobs(request, late)
        assert ([job.job_id for job in reply.jobs], len(office.upstream.asked)) == (mine[:1], 1)
        request.page_token = reply.next_page_token
        assert await page_of(office, request, MINE) == mine[1:]

    async def test_replies_that_are_too_large_because_of_hidden_jobs_change_nothing(self) -> None:
        """The cloud is read in smaller pages, and the caller's pages are as full as before."""
        shapes = []
        for most in (1000, 30, 10):
            upstream = Heavy(most=most)
            for number in range(60):
                job = upstream.add_job(BUCKET.name, f"d{number:03}", SUCCESS)
                job.input.object = "mine/a" if number % 3 else "secret/a"
            office = Office(upstream=upstream)
            shapes.append([len(page) for page in await pages_of(office, MINE, page_size=7, include_pages=True)])
        assert shapes == [[7, 7, 7, 7, 7, 5]] * 3

    async def test_only_visible_jobs_count_for_the_size_of_a_reply(self) -> None:
        """Large hidden jobs make no page shorter, large visible ones do."""
        upstream = Heavy(most=1000)
        for number in range(60):
            job = upstream.add_job(BUCKET.name, f"d{number:03}", SUCCESS)
            job.input.object = "mine/a" if number % 2 else "secret/a"
            job.result.pages.append(Page(object="x" * (400_000 if number % 2 else 4_000_000)))
        office = Office(upstream=upstream)
        pages = await pages_of(office, MINE, page_size=100, include_pages=True)
        assert [len(page) for page in pages] == [10, 10, 10]

    async def test_a_token_of_another_caller_with_equal_rights_is_rejected(self) -> None:
        """Also of one with the same prefixes."""
        office, _ = filled(["mine/a"] * 3)
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=1)
        await page_of(office, request, MINE)
        twin = caller_of("twin", {BUCKET.name: ("mine/",)})
        with pytest.raises(InvalidRequest):
            await office.jobs.list_jobs(request, call()._replace(caller=twin))
        assert len(office.upstream.asked) == 1


class TestChangesBetweenPages:
    @pytest.mark.parametrize("new", [1, 99, 100, 101, 250])
    @pytest.mark.parametrize("key", ["mine/new", "secret/new"])
    async def test_new_jobs_lead_to_no_job_lost_and_none_twice(self, new: int, key: str) -> None:
        """They move the first page, in which the list continues."""
        office, mine = filled(["mine/a", "secret/a"] * 40)
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=3)
        found = await page_of(office, request, MINE)
        for _ in range(new):
            office.upstream.put(key)  # type: ignore[attr-defined]
        while request.page_token:
            found += await page_of(office, request, MINE)
        assert found == mine

    @pytest.mark.parametrize("order", [OLDEST_FIRST, pb.ListPreviewJobsRequest.ORDER_NEWEST_FIRST])
    async def test_jobs_that_leave_the_list_lead_to_no_job_lost_and_none_twice(
        self, order: pb.ListPreviewJobsRequest.Order.ValueType
    ) -> None:
        """The jobs of the page before have changed their state, so the list has them no longer."""
        upstream = Keyset()
        ids = [upstream.put("mine/a", RUNNING) for _ in range(30)]
        expected = ids if order == OLDEST_FIRST else ids[::-1]
        office, found = Office(upstream=upstream), []
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=4, order=order, states=[RUNNING])
        while True:
            page = await page_of(office, request, MINE)
            found += page
            for job_id in page:
                upstream.set_state(BUCKET.name, job_id, SUCCESS)
            if not request.page_token:
                break
        assert found == expected

    async def test_a_job_of_the_same_second_is_listed_twice_rather_than_lost(self) -> None:
        """When the job at which the list continues has left it."""
        upstream = Keyset()
        ids = [upstream.put("mine/a", RUNNING) for _ in range(6)][::-1]
        for job in upstream.jobs.values():
            job.create_time.seconds = EPOCH
        office = Office(upstream=upstream)
        request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=3, states=[RUNNING])
        found = await page_of(office, request, MINE)
        upstream.set_state(BUCKET.name, found[-1], SUCCESS)
        while request.page_token:
            found += await page_of(office, request, MINE)
        assert found == [*ids[:3], *ids[:2], *ids[3:]]


class TestPosition:
    def test_a_position_comes_back_from_its_text(self) -> None:
        """Whatever the cloud's cursor is."""
        for position in (Position(), Position("75789"), Position("a\nb\n", "d1", 5), Position("", "d1", 0)):
            assert Position.parse(str(position)) == position
        assert Position.parse("") == Position()

    def test_jobs_without_a_time_are_listed_when_the_time_decides(self) -> None:
        """And all are after a job without one."""
        jobs = [PreviewJob(job_id="d1"), PreviewJob(job_id="d2")]
        jobs[1].create_time.seconds = 90
        for oldest_first in (False, True):
            assert Position("", "gone", 0).jobs_left(jobs, oldest_first=oldest_first) == jobs
            assert jobs[0] in (Position("", "gone", 50).jobs_left(jobs, oldest_first=oldest_first) or ())
        assert Position("", "gone", 50).jobs_left(jobs[1:], oldest_first=False) is None
        assert Position("", "d2", 50).jobs_left(jobs, oldest_first=False) == []
