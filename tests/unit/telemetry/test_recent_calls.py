"""The last calls and failed jobs of a process."""

from __future__ import annotations

import pytest

from docpreview_gateway.model.call import Call, Method, ResponseInfo
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.model.trace_context import parse
from docpreview_gateway.telemetry import recent_calls
from docpreview_gateway.telemetry.recent_calls import MOST_CALLS, MOST_FAILED, MOST_JOBS, RecentCalls, decode, encode
from tests.fakes.clock import FakeClock

GET = Method("docpreview.v1.PreviewJobService", "GetPreviewJob", "unary")
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Ring(RecentCalls):
    """RecentCalls with a clock, and calls in one line."""

    def __init__(self) -> None:
        self.clock = FakeClock(1000.0)
        super().__init__(self.clock)

    def call(self, request_id: str, code: str = "OK", reason: str = "", *, caller: str = "shop", job: str = "") -> None:
        self.clock.time += 1
        info = ResponseInfo(
            reason=reason,
            bucket="docs-1250000000",
            job_ids=(job,) if job else (),
            upstream_request_id=f"u-{request_id}",
        )
        trace = parse(f"00-{TRACE}-b7ad6b7169203331-01") if request_id == "traced" else None
        self.call_ended(GET, Call(request_id, 0.0, Caller(caller), trace=trace, response=info), code, 0.25)


async def found(ring: RecentCalls, wanted: str) -> list[str]:
    return [call.request_id for call in (await ring.recent(wanted)).calls]


@pytest.fixture
def ring() -> Ring:
    return Ring()


@pytest.mark.parametrize("wanted", ["traced", "d1", "u-traced", TRACE])
async def test_a_call_is_found_by_the_ids_of_request_job_cloud_request_and_trace(ring: Ring, wanted: str) -> None:
    ring.call("other")
    ring.call("traced", "UNAVAILABLE", "UPSTREAM_TIMEOUT", job="d1")
    (call,) = (await ring.recent(wanted)).calls
    assert (call.request_id, call.caller, call.method, call.code, call.reason) == (
        "traced",
        "shop",
        "GetPreviewJob",
        "UNAVAILABLE",
        "UPSTREAM_TIMEOUT",
    )
    assert (call.at, call.seconds, call.bucket, call.job_ids) == (1002.0, 0.25, "docs-1250000000", ("d1",))


async def test_calls_of_a_job_come_latest_first_and_no_id_finds_none(ring: Ring) -> None:
    """Not even those that have no job."""
    for name in ("a", "b", "c"):
        ring.call(name, job="d1" if name != "b" else "")
    assert await found(ring, "d1") == ["c", "a"]
    assert await found(ring, "") == await found(ring, "d") == []


async def test_no_number_of_good_calls_or_refusals_pushes_out_a_failed_one(ring: Ring) -> None:
    """A stranger can cause any number of refusals."""
    ring.call("first", "INTERNAL", "INTERNAL")
    ring.call("good")
    for number in range(MOST_CALLS):
        ring.call(f"r{number}", "UNAUTHENTICATED", "UNAUTHENTICATED")
    assert await found(ring, "first") == ["first"]
    assert await found(ring, "good") == []
    recent = await ring.recent()
    assert recent.searched == MOST_CALLS + 1
    assert recent.since == 1003.0


async def test_memory_is_bounded(ring: Ring) -> None:
    for number in range(MOST_FAILED + 10):
        ring.call(f"f{number}", "INTERNAL", "INTERNAL")
    for number in range(MOST_JOBS + 10):
        ring.job_failed("docs-1250000000", f"d{number}", "shop", "DAMAGED")
    recent = await ring.recent()
    assert (recent.searched, recent.failed_calls[0].count, recent.jobs[0].count) == (
        MOST_FAILED,
        MOST_FAILED,
        MOST_JOBS,
    )


async def test_nothing_has_been_dropped_since_the_start_until_a_ring_is_full(ring: Ring) -> None:
    ring.call("a")
    assert (await ring.recent()).since == 1000.0


async def test_failures_are_grouped_by_caller_and_reason_with_the_latest_of_each(ring: Ring) -> None:
    """The group with the latest failure first."""
    for number in range(5):
        ring.call(f"t{number}", "UNAVAILABLE", "UPSTREAM_TIMEOUT")
        ring.job_failed("docs-1250000000", f"d{number}", "shop", "DAMAGED")
    ring.call("x", "UNAVAILABLE", "UPSTREAM_TIMEOUT", caller="archive")
    ring.clock.time += 1
    ring.job_failed("docs-1250000000", "e1", "archive", "ENCRYPTED")
    recent = await ring.recent()
    groups = [(group.count, [call.request_id for call in group.latest]) for group in recent.failed_calls]
    assert groups == [(1, ["x"]), (5, ["t4", "t3", "t2"])]
    jobs = [(group.count, group.latest[0].caller, group.latest[0].reason) for group in recent.jobs]
    assert jobs == [(1, "archive", "ENCRYPTED"), (5, "shop", "DAMAGED")]


async def test_a_search_for_a_job_says_that_it_failed(ring: Ring) -> None:
    for number in range(3):
        ring.job_failed("docs-1250000000", f"d{number}", "shop", "DAMAGED")
    (group,) = (await ring.recent("d1")).jobs
    assert [job.job_id for job in group.latest] == ["d1"]


@pytest.mark.parametrize("reason", ["WATCH_LIMIT_REACHED", "SHUTTING_DOWN"])
async def test_a_stream_that_ends_by_design_has_not_failed(ring: Ring, reason: str) -> None:
    ring.call("a", "UNAVAILABLE", reason)
    assert (await ring.recent()).failed_calls == []
    assert await found(ring, "a") == ["a"]


async def test_workers_together_are_like_one_process() -> None:
    """Through the JSON by which they tell their supervisor."""
    first, second = Ring(), Ring()
    for ring, name in ((first, "a"), (second, "b"), (first, "c")):
        ring.call(name, "INTERNAL", "INTERNAL", job="d1")
        ring.job_failed("docs-1250000000", "d1", "shop", "DAMAGED")
    parts = [decode(encode(await ring.recent("d1"))) for ring in (first, second)]
    merged = recent_calls.merged(parts, 0.0)
    assert [call.request_id for call in merged.calls] == ["c", "a", "b"]
    assert [(group.count, len(group.latest)) for group in merged.failed_calls] == [(3, 3)]
    assert [group.count for group in merged.jobs] == [3]
    assert (merged.searched, merged.since) == (3, 1000.0)
    assert recent_calls.merged([decode(encode(await first.recent("d1")))], 0.0) == await first.recent("d1")


def test_without_a_worker_that_answers_nothing_is_in_memory() -> None:
    assert recent_calls.merged([], 7.0) == recent_calls.Recent([], [], [], 0, 7.0)
