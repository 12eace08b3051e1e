"""Lists as evidence: when they are complete, and what they teach about the echo of user data."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.creates import lists
from docpreview_gateway.creates.lists import JobHistory
from docpreview_gateway.model.errors import GatewayError, ReplyTooLarge, UpstreamError
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.operations import JobPage, ListJobs
from tests.fakes.recorded import KEYS
from tests.unit.creates.worlds import BUCKET, EXCLUSIVE, World

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.operations import Operation

MARKER = str(KEYS.marker("a" * 24, b"x" * 16, "one", b"12345678"))


class Scripted:
    """An upstream that answers with these pages, in turn, and remembers what it was asked."""

    def __init__(self, *pages: JobPage | Exception) -> None:
        self.pages = list(pages)
        self.asked: list[ListJobs] = []
        self.calls: list[Call] = []

    async def __call__(self, operation: Operation[Any], call: Call) -> Any:
        assert isinstance(operation, ListJobs)
        self.asked.append(operation)
        self.calls.append(call)
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page


def job(job_id: str, created: int = 0, bucket: str = BUCKET.name) -> PreviewJob:
    made = PreviewJob(bucket=bucket, job_id=job_id)
    made.create_time.seconds = created
    return made


def page(*job_ids: str, cursor: str = "", as_of: float | None = 100.0, repeated: bool = False) -> JobPage:
    return JobPage(tuple(map(job, job_ids)), cursor, ("",) * len(job_ids), as_of, repeated)


def history(*pages: JobPage | Exception) -> tuple[JobHistory, Scripted]:
    upstream = Scripted(*pages)
    return JobHistory(upstream, KEYS, World().parts.times), upstream


async def test_a_list_is_read_to_its_end_and_is_complete() -> None:
    made, upstream = history(page("d1", "d2", cursor="2"), page("d3"))
    found = await made.read(BUCKET, 10, 20)
    assert ([each.job.job_id for each in found.jobs], found.complete) == (["d1", "d2", "d3"], True)
    assert [(each.cursor, each.size) for each in upstream.asked] == [("", 100), ("2", 100)]


async def test_a_list_is_asked_for_its_span_oldest_first_and_never_from_a_cache() -> None:
    made, upstream = history(page())
    await made.read(BUCKET, 10.9, 20.1)
    (asked,), (call,) = upstream.asked, upstream.calls
    assert asked.request.created_after.seconds == 10
    assert asked.request.created_before.seconds == 21
    assert asked.request.order == asked.request.ORDER_OLDEST_FIRST
    assert not asked.request.states
    assert call.no_cache
    assert call.caller.name == "gateway"
    assert call.deadline <= loop_time() + 10


async def test_an_empty_page_with_a_token_is_read_on() -> None:
    made, _ = history(page(cursor="a"), page(cursor="b"), page("d1"))
    found = await made.read(BUCKET, 0, 1)
    assert ([each.job.job_id for each in found.jobs], found.complete) == (["d1"], True)


@pytest.mark.parametrize(
    "pages",
    [
        [page("d1", cursor="a"), page("d2", cursor="a")],
        [page("d1", cursor="a"), page(cursor="b"), page(cursor="a")],
        [page("d1", cursor="a"), page("d2", repeated=True)],
        [page("d1", repeated=True)],
    ],
    ids=["same", "circle", "as asked", "first"],
)
async def test_a_token_that_was_there_before_is_never_the_end_of_a_complete_list(pages: list[JobPage]) -> None:
    made, upstream = history(*pages)
    found = await made.read(BUCKET, 0, 1)
    assert not found.complete
    assert upstream.pages == []


async def test_a_list_with_too_many_pages_is_not_complete() -> None:
    made, upstream = history(*(page(f"d{n}", cursor=str(n)) for n in range(lists.LIST_PAGES)), page("last"))
    found = await made.read(BUCKET, 0, 1)
    assert (len(found.jobs), found.complete, len(upstream.pages)) == (lists.LIST_PAGES, False, 1)


async def test_a_list_of_which_a_page_fails_proves_nothing() -> None:
    made, _ = history(page("d1", cursor="a"), UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down"))
    with pytest.raises(GatewayError):
        await made.read(BUCKET, 0, 1)


async def test_the_time_of_a_list_is_that_of_its_first_page() -> None:
    """What was made while it was read may be missing."""
    made, _ = history(page("d1", cursor="a", as_of=100), page("d2", as_of=900))
    assert (await made.read(BUCKET, 0, 1)).as_of == 100


async def test_a_list_whose_first_page_has_no_date_has_no_time() -> None:
    made, _ = history(page("d1", cursor="a", as_of=None), page("d2", as_of=900))
    assert (await made.read(BUCKET, 0, 1)).as_of is None


async def test_a_page_that_is_too_large_is_asked_for_in_smaller_parts() -> None:
    made, upstream = history(ReplyTooLarge(), ReplyTooLarge(), page("d1", cursor="a"), page("d2"))
    found = await made.read(BUCKET, 0, 1)
    assert [each.size for each in upstream.asked][:3] == [100, 25, 6]
    assert (len(found.jobs), found.complete) == (2, True)


async def test_a_single_job_that_is_too_large_fails_the_list() -> None:
    made, upstream = history(*(ReplyTooLarge() for _ in range(5)))
    with pytest.raises(ReplyTooLarge):
        await made.read(BUCKET, 0, 1)
    assert [each.size for each in upstream.asked] == [100, 25, 6, 1]


class TestEcho:
    """Whether the host echoes user data is learned from each list, and by host."""

    async def test_nothing_is_known_at_first(self) -> None:
        made, _ = history()
        assert not made.echoes(BUCKET)

    async def test_a_marker_with_a_valid_check_proves_it_for_an_hour(self) -> None:
        made, _ = history(JobPage((job("d1"),), "", (MARKER,), 1.0))
        await made.read(BUCKET, 0, 1)
        assert made.echoes(BUCKET)
        assert not made.echoes(EXCLUSIVE)
        await asyncio.sleep(3600 - 1)
        assert made.echoes(BUCKET)
        await asyncio.sleep(1)
        assert not made.echoes(BUCKET)

    @pytest.mark.parametrize("marker", ["", MARKER[:-6] + "aaaaaa", "dg1-" + "a" * 26])
    async def test_no_other_text_proves_it(self, marker: str) -> None:
        made, _ = history(JobPage((job("d1"),), "", (marker,), 1.0))
        await made.read(BUCKET, 0, 1)
        assert not made.echoes(BUCKET)

    async def test_a_job_of_ours_without_a_marker_disproves_it(self) -> None:
        made, _ = history(JobPage((job("d1"),), "", (MARKER,), 1.0), JobPage((job("d2"),), "", ("",), 1.0))
        made.accepted(job("d2"))
        await made.read(BUCKET, 0, 1)
        await made.read(BUCKET, 0, 1)
        assert not made.echoes(BUCKET)

    async def test_a_job_of_others_without_a_marker_disproves_nothing(self) -> None:
        made, _ = history(JobPage((job("d1"), job("d2")), "", (MARKER, ""), 1.0))
        await made.read(BUCKET, 0, 1)
        assert made.echoes(BUCKET)

    async def test_a_job_of_ours_without_a_marker_disproves_it_beside_one_with_it(self) -> None:
        """In whatever order the list has them: a cloud that echoes some texts only proves nothing."""
        for marks in ((MARKER, ""), ("", MARKER)):
            made, _ = history(JobPage((job("d1"), job("d2")), "", marks, 1.0))
            made.accepted(job("d1"))
            made.accepted(job("d2"))
            await made.read(BUCKET, 0, 1)
            assert not made.echoes(BUCKET)


async def test_asking_for_the_time_is_the_shortest_list() -> None:
    world = World()
    await world.parts.history.hear(BUCKET)
    (asked,) = world.cloud.lists
    assert asked.size == 1
    assert world.parts.times.heard(BUCKET.ci_host) is not None


async def test_asking_for_the_time_fails_when_the_cloud_does_not_tell_it() -> None:
    world = World()
    await world.parts.history.hear(BUCKET)
    world.cloud.has_dates = False
    with pytest.raises(GatewayError):
        await world.parts.history.hear(BUCKET)
