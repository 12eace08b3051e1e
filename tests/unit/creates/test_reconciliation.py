"""Reconciliation: the cloud's list against the records."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.pages import Pages
from docpreview_gateway.creates.ports import Lease
from docpreview_gateway.creates.rebuild import Scans
from docpreview_gateway.creates.reconciliation import Doubled, Miscounted, Reconciliation, Report
from docpreview_gateway.creates.records import Held
from docpreview_gateway.doctor.record_texts import lines
from docpreview_gateway.doctor.records import Reconciled
from docpreview_gateway.model.errors import UpstreamError
from tests.fakes.recorded import KEYS
from tests.unit.creates.worlds import BUCKET, COUNTED, EXCLUSIVE, ONE, TIMING, Cloud, World, request, selecting


class Books:
    """A process that reconciles."""

    def __init__(self, keys: CreateKeys = KEYS, cloud: Cloud | None = None) -> None:
        self.world = World(cloud=cloud or Cloud())
        parts = replace(self.world.parts, keys=keys)
        scans = Scans(parts.history, keys, parts.times, timing=TIMING, caller_names=lambda: [ONE.name, COUNTED.name])
        self.reconciliation = Reconciliation(
            self.world.store,
            parts.history,
            scans,
            keys,
            parts.times,
            timing=TIMING,
            buckets=[BUCKET, EXCLUSIVE],
            telemetry=self.world.telemetry,
        )

    async def charged(self, pages: int, ranges: str = "1-40") -> PreviewJob:
        """A job that has ended and is charged."""
        job = await self.world.create(selecting(ranges), COUNTED)
        self.world.cloud.end(job.job_id, pages)
        await self.world.settle(3)
        return job

    async def report(self, *, charge: bool = False) -> Report:
        now = self.world.cloud.now()
        return await self.reconciliation.of_bucket(BUCKET, now - 86400, now + 1, charge=charge)


@pytest.fixture
def books() -> Books:
    return Books()


async def test_books_that_agree_have_no_findings(books: Books) -> None:
    await books.charged(7)
    await books.world.create(request(), ONE)
    books.world.cloud.add(PreviewJob(bucket=BUCKET.name, user_data="others"))
    report = await books.report()
    assert (report.complete, report.jobs) == (True, 2)
    assert report.findings == {"orphan": 0, "doubled": 0, "miscounted": 0, "unreadable": 0, "pages": 0}
    assert (report.made["shop"], report.counted["shop"]) == (7, 7)


async def test_a_job_without_a_record_is_an_orphan_and_stays_one_unless_it_is_to_be_charged(books: Books) -> None:
    job = await books.charged(7)
    books.world.data.delete(books.world.records[0].key)
    books.world.data.pages.clear()
    assert (await books.report()).orphans == [job.job_id]
    assert (await books.report()).orphans == [job.job_id]
    assert books.world.pages() == Pages(0, 0)
    assert (await books.report(charge=True)).orphans == [job.job_id]
    assert books.world.pages() == Pages(7, 0)
    assert (await books.report()).orphans == []


async def test_a_second_job_of_a_create_is_found_and_the_one_on_record_is_the_first(books: Books) -> None:
    job = await books.charged(7)
    second = PreviewJob()
    second.CopyFrom(books.world.cloud.jobs[job.job_id][0])
    second.job_id = "second"
    second.create_time.seconds -= 5
    books.world.cloud.add(second)
    report = await books.report()
    assert report.doubled == [Doubled("second", job.job_id, "shop")]
    assert (report.jobs, report.orphans) == (2, [])


@pytest.mark.parametrize("apart", [5, 90, 3600, TIMING.keep - 60])
async def test_a_second_job_is_found_however_much_later_than_the_first_it_was_made(books: Books, apart: float) -> None:
    """The loss of the first one's record was accepted, and its create repeated."""
    asked = selecting("1-40")
    first = await books.world.create(asked, COUNTED)
    books.world.cloud.end(first.job_id, 7)
    books.world.data.empty()
    books.world.data.generation = "accepted"
    await asyncio.sleep(apart)
    second = await books.world.create(asked, COUNTED)
    report = await books.report()
    assert second.job_id != first.job_id
    assert report.doubled == [Doubled(first.job_id, second.job_id, "shop")]
    assert (report.orphans, report.forgotten) == ([], 0)
    assert (report.pages, report.made.total(), report.uncounted) == (7, 0, {first.job_id: 7})


async def test_a_second_job_is_found_when_the_one_on_record_was_made_before_the_time_span(books: Books) -> None:
    job = await books.charged(7)
    await asyncio.sleep(600)
    second = PreviewJob()
    second.CopyFrom(books.world.cloud.jobs[job.job_id][0])
    second.job_id, second.create_time.seconds = "second", int(books.world.cloud.now())
    books.world.cloud.add(second)
    now = books.world.cloud.now()
    report = await books.reconciliation.of_bucket(BUCKET, now - 300, now + 1)
    assert report.doubled == [Doubled("second", job.job_id, "shop")]
    assert (report.jobs, report.miscounted) == (1, [])


async def test_a_list_without_any_marker_of_jobs_on_record_proves_nothing(books: Books) -> None:
    """The cloud does not echo user data. Where there is nothing on record there is nothing to compare."""
    books.world.cloud.echo = False
    assert not (await books.report()).is_blind
    await books.charged(7)
    assert (await books.report()).is_blind
    books.world.cloud.echo = True
    await books.charged(7)
    assert not (await books.report()).is_blind


async def test_an_id_that_is_used_again_after_it_was_forgotten_has_no_second_job(books: Books) -> None:
    asked = request()
    await books.world.create(asked)
    await asyncio.sleep(TIMING.keep + 3600)
    books.world.data.delete(books.world.records[0].key)
    await books.world.create(asked)
    now = books.world.cloud.now()
    report = await books.reconciliation.of_bucket(BUCKET, now - 3 * TIMING.keep, now + 1)
    assert (report.jobs, report.doubled, report.orphans, report.forgotten) == (2, [], [], 1)


async def test_the_pages_of_all_jobs_are_told_and_the_difference_to_those_that_are_counted(books: Books) -> None:
    """Of an orphan and a second job, of a job of a caller without a page budget, and of one that is not charged yet."""
    job = await books.charged(7)
    second = books.world.cloud.add(PreviewJob(user_data=books.world.cloud.jobs[job.job_id][0].user_data))
    orphan = await books.charged(5, "2-40")
    books.world.data.delete(books.world.records[1].key)
    free = await books.world.create(request(), ONE)
    open_yet = await books.world.create(selecting("3-40"), COUNTED)
    for each, made in ((second, 11), (free, 2), (open_yet, 3)):
        books.world.cloud.end(each.job_id, made)
    report = await books.report()
    (summary,) = (line.result for line in lines(Reconciled(BUCKET.name, report)) if line.kind == "summary")
    assert summary.endswith(
        "28 pages made, 7 counted, 21 not: 16 of jobs without a record and second jobs, "
        "5 of jobs without a page budget, forgotten ones, and those that are not charged yet"
    )
    assert report.findings["pages"] == 0
    report = await books.report(charge=True)
    assert report.taken_in == [orphan.job_id]
    (summary,) = (line.result for line in lines(Reconciled(BUCKET.name, report)) if line.kind == "summary")
    assert "28 pages made, 12 counted, 16 not: 11 of jobs without" in summary
    assert report.findings["pages"] == 0


async def test_pages_that_agree_have_no_difference(books: Books) -> None:
    await books.charged(7)
    (summary,) = lines(Reconciled(BUCKET.name, await books.report()))
    assert summary.result.endswith("; 7 pages made, 7 counted")


async def test_a_job_that_was_charged_wrongly_is_found(books: Books) -> None:
    job = await books.charged(7)
    books.world.cloud.jobs[job.job_id][0].result.succeeded_page_count = 9
    report = await books.report()
    assert report.miscounted == [Miscounted(job.job_id, 7, 9)]
    assert report.findings["pages"] == 2


async def test_an_alias_of_deduplication_is_no_finding(books: Books) -> None:
    """It has no job of its own."""
    viewer = COUNTED.__class__("shop", budget=COUNTED.budget, dedupe_seconds=600)
    for _ in range(2):
        await books.world.create(request(), viewer)
    report = await books.report()
    assert (report.jobs, report.orphans, report.doubled) == (1, [], [])


async def test_a_list_that_does_not_end_is_told_as_such(books: Books) -> None:
    await books.charged(7)
    books.world.cloud.repeats = True
    assert not (await books.report()).complete


async def test_every_day_each_bucket_is_reconciled_and_one_that_fails_stops_no_other(books: Books) -> None:
    await books.charged(7)
    await asyncio.sleep(3600)
    books.world.cloud.list_failures = [UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down")]
    await books.reconciliation.daily()
    assert set(books.world.telemetry.findings) == {EXCLUSIVE.name}
    await books.reconciliation.daily()
    assert books.world.telemetry.findings[BUCKET.name] == {
        "orphan": 0,
        "doubled": 0,
        "miscounted": 0,
        "unreadable": 0,
        "pages": 0,
    }


async def test_jobs_from_before_what_is_remembered_are_not_charged_again_beside_an_orphan(books: Books) -> None:
    """They were counted once, and their records are forgotten."""
    await books.charged(7)
    await asyncio.sleep(TIMING.keep + 3600)
    job = await books.charged(5)
    for record in books.world.records:
        books.world.data.delete(record.key)
    books.world.data.pages.clear()
    now = books.world.cloud.now()
    report = await books.reconciliation.of_bucket(BUCKET, now - 3 * TIMING.keep, now + 1, charge=True)
    assert (report.orphans, report.taken_in, report.forgotten) == ([job.job_id], [job.job_id], 1)
    assert [record.job_id for record in books.world.records] == [job.job_id]


async def test_an_unreadable_record_is_reported_and_the_others_are_compared(books: Books) -> None:
    first, second = await books.charged(7), await books.charged(3, "2-40")
    damaged, other = (each for each in books.world.records)
    books.world.data.unreadable.add(damaged.key)
    books.world.data.delete(other.key)
    report = await books.report()
    assert report.unreadable == [damaged.key]
    assert report.orphans == [second.job_id]
    assert first.job_id not in report.orphans
    assert list((await books.reconciliation.of_counters()).unreadable) == [damaged.key]


async def test_counters_that_are_the_sum_of_the_records_and_leases_have_no_findings(books: Books) -> None:
    await books.charged(7)
    await books.world.create(selecting("1-4"), COUNTED)
    day = books.world.data.day
    assert COUNTED.budget is not None
    await books.world.store.lease(Lease("x", COUNTED.name, day, 5, 1.0), COUNTED.budget)
    assert await books.reconciliation.of_counters() == ([], {})


@pytest.mark.parametrize(("held", "used"), [(0, 7), (0, -1), (3, 0), (-1, 0)])
async def test_counters_that_are_not_the_sum_of_the_records_are_reported(books: Books, held: int, used: int) -> None:
    await books.charged(7)
    await books.world.create(selecting("1-4"), COUNTED)
    data = books.world.data
    data.add(COUNTED.name, data.day, held, used)
    ((caller, day, counted, recorded),) = (await books.reconciliation.of_counters()).differences
    assert (caller, day) == (COUNTED.name, data.day)
    assert (counted, recorded) == (Held(4 + held, 7 + used), Held(4, 7))


async def test_pages_of_forgotten_creates_of_another_day_are_no_difference(books: Books) -> None:
    await books.charged(7)
    data = books.world.data
    data.add(COUNTED.name, data.day, 0, 50)
    data.day = "2026-11-16"
    assert (await books.reconciliation.of_counters()).differences == []


async def test_jobs_made_after_a_backup_that_was_restored_are_found_as_orphans_and_taken_in(books: Books) -> None:
    """The store agrees with itself: nothing else can notice."""
    await books.charged(7)
    backup = copy.deepcopy(books.world.data)
    later = await books.charged(3, "2-40")
    books.world.data.__dict__.update(backup.__dict__)
    assert (await books.report()).orphans == [later.job_id]
    assert (await books.report(charge=True)).taken_in == [later.job_id]
    assert (await books.report()).orphans == []
    assert books.world.pages() == Pages(10, 0)


async def test_jobs_of_a_secret_that_is_gone_are_taken_for_anybodys(books: Books) -> None:
    """Their markers cannot be told from forged ones."""
    await books.charged(7)
    emptied = Books(keys=CreateKeys("tests", [bytes(range(1, 33))]), cloud=books.world.cloud)
    report = await emptied.report()
    assert (report.jobs, report.orphans) == (0, [])
