"""Outcomes of creates that were sent: found at any time, absent only when nothing can come any more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.creates.ports import Change, StoreError
from docpreview_gateway.creates.records import Record, State
from tests.unit.creates.worlds import BUCKET, COUNTED, EXCLUSIVE, FENCE, HOST, TIMING, Held, World, request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from docpreview_gateway.creates.outcomes import Outcome
    from docpreview_gateway.model.buckets import Bucket


class Sent:
    """A create whose request was lost, as this process and others know it."""

    def __init__(self, world: World, bucket: Bucket = BUCKET) -> None:
        self.world = world
        self.bucket = bucket
        self.asked = request(bucket=bucket)

    async def send(self) -> Sent:
        self.world.cloud.fates = ["never"]
        await self.world.error(self.asked, COUNTED, seconds=2)
        return self

    @property
    def record(self) -> Record:
        found = self.world.record(self.asked, COUNTED)
        assert found is not None
        return found

    async def look(self, seconds: float = 0.0) -> Outcome:
        await asyncio.sleep(seconds)
        return await self.world.parts.outcomes.look(self.record, self.bucket)

    def job(self, *, marked: bool = False, created: float | None = None, job_id: str = "") -> PreviewJob:
        """A job that is equal to what was asked for."""
        keys, record = self.world.parts.keys, self.record
        mark = str(keys.marker(record.key, record.body, record.caller, record.nonce))
        job = PreviewJob(bucket=self.bucket.name, job_id=job_id, user_data=mark if marked else "")
        job.input.object = self.asked.input_object
        job.output.object = self.asked.output.object
        job.create_time.seconds = int(created or 0)
        return self.world.cloud.add(job)


@pytest.fixture
async def sent() -> Sent:
    return await Sent(World()).send()


async def test_a_job_is_found_at_any_time(sent: Sent) -> None:
    sent.job(marked=True)
    outcome = await sent.look()
    assert (outcome.kind, outcome.job and outcome.job.job_id) == ("found", "d0000")


async def test_a_create_is_unknown_before_its_fence_and_absent_after_it(sent: Sent) -> None:
    sign_end = sent.record.sign_end
    fence = sign_end + FENCE - sent.world.cloud.now()
    assert (await sent.look(fence - 2)).kind == "unknown"
    assert (await sent.look(5)).kind == "absent"
    assert sent.world.telemetry.ledger_events[-1] == "absent"


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.9])
async def test_who_waits_as_long_as_was_told_gets_a_proof(part: float) -> None:
    """At whatever part of a second: the cloud tells whole ones."""
    await asyncio.sleep(part)
    sent = await Sent(World()).send()
    assert (await sent.look(sent.world.parts.outcomes.provable_in(sent.record, BUCKET))).kind == "absent"


async def test_a_finished_create_whose_job_is_listed_without_its_marker_disproves_the_echo() -> None:
    world = World()
    await world.create(request())
    world.cloud.echo = False
    await world.create(request())
    now = world.cloud.now()
    await world.parts.history.read(BUCKET, now - 10, now + 10)
    assert not world.parts.history.echoes(BUCKET)


async def test_a_wrong_date_alone_proves_no_absence(sent: Sent) -> None:
    """The fence is over by the cloud's `Date`, but this process has not watched for as long."""
    sent.world.cloud.lies = [3600.0]
    assert (await sent.look(10)).kind == "unknown"


async def test_watching_alone_proves_no_absence(sent: Sent) -> None:
    """The signature was made ahead of its time: the cloud would still accept it."""
    sent.world.cloud.lies = [-3600.0]
    assert (await sent.look(TIMING.watch + 60)).kind == "unknown"


async def test_a_list_of_just_before_the_fence_proves_no_absence_however_long_one_has_watched(sent: Sent) -> None:
    """The cloud's clock may be as much behind as the slack allows for."""
    await asyncio.sleep(TIMING.watch + 60)
    before = sent.record.sign_end + TIMING.fence_slack + TIMING.visibility - 1 - sent.world.cloud.now()
    sent.world.cloud.lies = [before] * 5
    assert (await sent.look()).kind == "unknown"


async def test_a_process_that_has_just_started_watches_for_itself(sent: Sent) -> None:
    other = sent.world.process()
    await asyncio.sleep(10 * TIMING.watch)
    await other.history.hear(BUCKET)
    assert (await other.outcomes.look(sent.record, BUCKET)).kind == "unknown"
    await asyncio.sleep(TIMING.watch - 1)
    assert (await other.outcomes.look(sent.record, BUCKET)).kind == "unknown"
    await asyncio.sleep(1)
    assert (await other.outcomes.look(sent.record, BUCKET)).kind == "absent"


async def test_another_attempt_is_watched_anew(sent: Sent) -> None:
    await asyncio.sleep(TIMING.watch)
    opened = sent.record.opened(sent.world.cloud.now(), TIMING)
    outcome = await sent.world.parts.outcomes.look(opened, BUCKET)
    assert outcome.kind == "unknown"


async def test_a_list_without_a_date_proves_no_absence(sent: Sent) -> None:
    sent.world.cloud.has_dates = False
    assert (await sent.look(TIMING.watch + 60)).kind == "unknown"


async def test_the_time_that_a_list_took_is_not_counted(sent: Sent) -> None:
    """It shows what was there when it was asked for, and its `Date` is of the answer."""
    left = sent.record.sign_end + FENCE - sent.world.cloud.now()
    sent.world.cloud.delay = 8.0
    assert (await sent.look(left - 2)).kind == "unknown"


async def test_a_list_that_does_not_end_proves_no_absence(sent: Sent) -> None:
    sent.world.cloud.repeats = True
    assert (await sent.look(TIMING.watch + 60)).kind == "unknown"
    sent.job(marked=True, created=sent.record.sign_end - 1)
    assert (await sent.look()).kind == "found"


async def test_empty_pages_hide_no_job(sent: Sent) -> None:
    sent.world.cloud.empty_pages = 3
    sent.job(marked=True)
    assert (await sent.look(TIMING.watch + 60)).kind == "found"


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_a_list_that_lacks_a_recorded_job_of_its_window_proves_no_absence(where: str) -> None:
    """Whichever process has recorded it. As soon as the list has caught up, it is proof."""
    world = World()
    sent = await Sent(world).send()
    job = await world.create(request(), at=world.parts if where == "here" else world.process())
    hidden = world.cloud.jobs.pop(job.job_id)
    assert (await sent.look(TIMING.watch + 60)).kind == "unknown"
    world.cloud.jobs[job.job_id] = hidden
    assert (await sent.look()).kind == "absent"


async def test_one_missing_job_among_many_that_are_shown_proves_no_absence() -> None:
    """The newest of them too."""
    world = World()
    sent = await Sent(world).send()
    for _ in range(3):
        job = await world.create(request())
        await asyncio.sleep(1)
    del world.cloud.jobs[job.job_id]
    assert (await sent.look(TIMING.watch + 60)).kind == "unknown"


@pytest.mark.parametrize("which", ["earlier", "later", "in another bucket"])
async def test_a_job_that_the_list_was_not_asked_for_may_be_missing(which: str) -> None:
    world = World()
    elsewhere = request(bucket=EXCLUSIVE) if which == "in another bucket" else request()
    if which == "earlier":
        early = await world.create(elsewhere)
        await asyncio.sleep(200)
    sent = await Sent(world).send()
    if which != "earlier":
        await asyncio.sleep(0 if which == "in another bucket" else 200)
        early = await world.create(elsewhere)
    del world.cloud.jobs[early.job_id]
    assert (await sent.look(TIMING.watch + 60)).kind == "absent"


async def test_while_the_store_cannot_tell_which_jobs_there_are_nothing_is_absent_but_jobs_are_found(
    sent: Sent,
) -> None:
    await asyncio.sleep(TIMING.watch + 60)
    sent.world.telemetry.list_lags.clear()
    sent.world.store.failing, sent.world.store.fail_before = ("accepted",), 2
    assert (await sent.look()).kind == "unknown"
    assert sent.world.telemetry.list_lags == {}
    sent.job(marked=True, created=sent.record.sign_end - 1)
    assert (await sent.look()).kind == "found"


async def test_the_list_covers_all_attempts(sent: Sent) -> None:
    """From before the first signature to after the last one, whatever our clock was."""
    record = sent.record
    await sent.look()
    asked = sent.world.cloud.lists[-1].request
    assert asked.created_after.seconds <= record.first_start - 60
    assert asked.created_before.seconds >= record.sign_end + 60


async def test_where_the_echo_is_known_one_list_is_enough(sent: Sent) -> None:
    await sent.world.create(request())
    await sent.look(TIMING.watch + 60)
    before = len(sent.world.cloud.lists)
    await sent.look()
    assert len(sent.world.cloud.lists) == before + 1


async def test_no_two_looks_ask_for_the_same_list(sent: Sent) -> None:
    """A cache on the way, which has the answer to the first one, would prove an absence that is none."""
    for _ in range(20):
        await sent.look(7)
    asked = [look.request.SerializeToString() for look in sent.world.cloud.lists[-20:]]
    assert len({*asked}) == len(asked)


async def test_an_unmarked_job_is_unknown_before_the_fence_and_ambiguous_after_it(sent: Sent) -> None:
    sent.job()
    assert (await sent.look()).kind == "unknown"
    outcome = await sent.look(TIMING.watch + 60)
    assert (outcome.kind, [job.job_id for job in outcome.candidates]) == ("ambiguous", ["d0000"])
    assert "ambiguous" in sent.world.telemetry.ledger_events


async def test_an_unmarked_job_does_not_matter_while_the_cloud_echoes(sent: Sent) -> None:
    sent.job()
    await sent.world.create(request())
    assert (await sent.look(TIMING.watch + 60)).kind == "absent"


async def test_the_echo_is_proven_by_older_jobs_if_the_window_has_none() -> None:
    """The list is extended back, so that a foreign unmarked job is not the create's."""
    world = World()
    await world.create(request())
    await asyncio.sleep(1800)
    sent = await Sent(world).send()
    sent.job()
    assert (await sent.look(TIMING.watch + 60)).kind == "absent"


async def test_an_unmarked_job_of_another_record_is_not_a_candidate() -> None:
    world = World()
    world.cloud.echo = False
    await world.create(request())
    sent = await Sent(world).send()
    assert (await sent.look(TIMING.watch + 60)).kind == "absent"


def told(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines that say what became of a create."""
    return [entry for entry in entries if entry["event"] == "the outcome of a create is known"]


@pytest.mark.parametrize("outcome", ["found", "absent", "ambiguous"])
async def test_what_became_of_a_create_is_logged_once_however_often_it_is_looked_at(sent: Sent, outcome: str) -> None:
    """Not before it is known."""
    if outcome == "ambiguous":
        sent.job()
    with capture_logs() as entries:
        await sent.look()
        assert told(entries) == []
        await asyncio.sleep(TIMING.watch + 60)
        if outcome == "found":
            sent.job(marked=True, created=sent.record.sign_end - 1)
        for _ in range(3):
            assert (await sent.look()).kind == outcome
    (line,) = told(entries)
    known = {"outcome": outcome, "caller": "shop", "bucket": BUCKET.name, "key": sent.record.key}
    assert known.items() <= line.items()
    assert line["log_level"] == "info"
    assert (line.get("job_id"), line.get("candidates")) == {
        "found": ("d0000", None),
        "absent": (None, None),
        "ambiguous": (None, ["d0000"]),
    }[outcome]


async def test_a_look_that_finds_no_outcome_is_not_logged() -> None:
    """Such as the one just after the reply was lost."""
    with capture_logs() as entries:
        sent = await Sent(World()).send()
    assert sent.world.cloud.lists
    assert told(entries) == []


async def test_the_log_names_ten_candidates_of_an_ambiguous_create_at_most(sent: Sent) -> None:
    jobs = [sent.job().job_id for _ in range(11)]
    with capture_logs() as entries:
        assert len((await sent.look(TIMING.watch + 60)).candidates) == 11
    assert told(entries)[0]["candidates"] == jobs[:10]


async def test_a_job_that_cannot_be_recorded_yet_is_not_logged_as_found_again(sent: Sent) -> None:
    job = sent.job(marked=True)
    with capture_logs() as entries:
        for fails in (True, False):
            outcome = await sent.look()
            assert outcome.job is not None
            sent.world.store.failing, sent.world.store.fail_before = ("change",), int(fails)
            with suppress(StoreError):
                await sent.world.parts.outcomes.finish(sent.record, outcome.job, BUCKET)
    assert sent.record.job_id == job.job_id
    assert len(told(entries)) == 1


async def test_an_ambiguous_create_whose_job_is_found_after_all_is_logged_again(sent: Sent) -> None:
    sent.job()
    with capture_logs() as entries:
        await sent.look(TIMING.watch + 60)
        sent.job(marked=True, created=sent.record.sign_end - 1)
        await sent.look()
    assert [line["outcome"] for line in told(entries)] == ["ambiguous", "found"]


class TestExclusive:
    """E4: no other program makes jobs in the bucket, and the cloud does not echo."""

    @pytest.fixture
    async def sent(self) -> Sent:
        return await Sent(World(), EXCLUSIVE).send()

    async def test_the_only_job_is_the_creates_after_the_fence(self, sent: Sent) -> None:
        sent.job()
        assert (await sent.look()).kind == "unknown"
        outcome = await sent.look(TIMING.watch + 60)
        assert (outcome.kind, outcome.job and outcome.job.job_id) == ("found", "d0000")

    async def test_a_source_format_that_the_cloud_has_found_out_makes_no_other_job(self, sent: Sent) -> None:
        job = sent.job()
        sent.world.cloud.jobs[job.job_id][0].options.source_format = "pdf"
        assert (await sent.look(TIMING.watch + 60)).kind == "found"

    async def test_of_two_jobs_none_is_taken(self, sent: Sent) -> None:
        sent.job()
        sent.job()
        outcome = await sent.look(TIMING.watch + 60)
        assert (outcome.kind, len(outcome.candidates)) == ("ambiguous", 2)

    async def test_none_is_taken_while_another_create_of_the_place_is_open(self, sent: Sent) -> None:
        """Of a process that knew of an echo, which sent it at the same time."""
        sent.job()
        other = sent.world.process()
        other.history.echoes = lambda bucket: bucket == EXCLUSIVE  # type: ignore[method-assign]
        sent.world.cloud.fates = ["never"]
        asked = request(bucket=EXCLUSIVE, input_object="b.pdf")
        await sent.world.error(asked, COUNTED, at=other, seconds=2)
        assert (await sent.look(TIMING.watch + 60)).kind == "ambiguous"

    async def test_a_job_that_is_bound_to_its_own_create_meanwhile_is_not_taken(self, sent: Sent) -> None:
        """The other create is OPEN when its job is listed, and recorded before the list is judged."""
        world, other = sent.world, request(bucket=EXCLUSIVE)
        world.cloud.echo = False
        held = Held(sent=True)
        world.cloud.fates = [held]
        process = world.process()
        # It knew of an echo, and so it did not wait for the one that is open.
        process.history.echoes = lambda bucket: bucket == EXCLUSIVE  # type: ignore[method-assign]
        task = asyncio.create_task(world.create(other, COUNTED, at=process, seconds=25))
        await held.began.wait()
        theirs = world.record(other, COUNTED)
        assert theirs is not None
        job = sent.job(created=sent.record.sign_end - 1)
        await asyncio.sleep(TIMING.watch + 60)
        bound = world.store.bound

        async def bound_and_then_finished(bucket: str, job_ids: Sequence[str]) -> set[str]:
            found = await bound(bucket, job_ids)
            await process.outcomes.finish(theirs, job, EXCLUSIVE)
            return found

        world.store.bound = bound_and_then_finished  # type: ignore[method-assign]
        assert (await sent.look()).kind != "found"
        task.cancel()

    async def test_a_job_with_other_options_is_not_taken(self, sent: Sent) -> None:
        """It may be the create's, if the cloud changed a default; it is not surely."""
        job = sent.job()
        sent.world.cloud.jobs[job.job_id][0].options.quality = 50
        assert (await sent.look(TIMING.watch + 60)).kind == "ambiguous"


async def test_a_job_of_another_request_says_that_the_id_was_reused(sent: Sent) -> None:
    keys, record = sent.world.parts.keys, sent.record
    mark = keys.marker(record.key, b"another request!", record.caller, record.nonce)
    job = sent.job()
    sent.world.cloud.jobs[job.job_id][0].user_data = str(mark)
    assert (await sent.look()).kind == "reused"


async def test_the_time_to_the_fence_is_the_longer_of_both_conditions(sent: Sent) -> None:
    outcomes, record = sent.world.parts.outcomes, sent.record
    by_date = record.sign_end + FENCE - sent.world.cloud.now()
    assert outcomes.provable_in(record, BUCKET) == pytest.approx(by_date, abs=4)
    other = sent.world.process()
    await asyncio.sleep(1000)
    await other.history.hear(BUCKET)
    assert outcomes.provable_in(record, BUCKET) == 1
    assert other.outcomes.provable_in(record, BUCKET) == TIMING.watch


async def test_a_finished_create_is_recorded_once(sent: Sent) -> None:
    """Another process that finds the job later changes nothing."""
    job, record = sent.job(marked=True), sent.record
    await sent.world.parts.outcomes.finish(record, job, BUCKET)
    assert sent.record.state is State.ACCEPTED
    other = PreviewJob()
    other.CopyFrom(job)
    other.job_id = "another"
    await sent.world.process().outcomes.finish(record, other, BUCKET)
    assert sent.record.job_id == job.job_id
    assert sent.record.expires_at == job.create_time.seconds + TIMING.keep
    assert sent.world.parts.times.heard(HOST) is not None


@pytest.mark.parametrize("other", ["accepted", "begun anew"])
async def test_an_attempt_that_another_look_has_decided_meanwhile_is_not_absent(other: str) -> None:
    """Its job is one of those that are bound, and there is no other."""
    world = World()
    world.cloud.echo = False
    sent = await Sent(world).send()
    record, job = sent.record, sent.job()
    bound = world.store.bound

    async def decided_and_then_bound(bucket: str, job_ids: Sequence[str]) -> set[str]:
        if other == "accepted":
            await world.process().outcomes.finish(record, job, BUCKET)
            return await bound(bucket, job_ids)
        await world.store.change([Change(record, record.opened(world.cloud.now(), TIMING), world.cloud.now())])
        return set(job_ids)

    world.store.bound = decided_and_then_bound  # type: ignore[method-assign]
    await asyncio.sleep(TIMING.watch + 60)
    assert (await world.parts.outcomes.look(record, BUCKET)).kind == "unknown"


async def test_how_far_a_list_lags_is_reported_with_every_complete_list(sent: Sent) -> None:
    await sent.look()
    assert sent.world.telemetry.list_lags == {BUCKET.name: 0}
    first = await sent.world.create(request())
    await asyncio.sleep(20)
    second = await sent.world.create(request())
    await sent.world.create(request())
    del sent.world.cloud.jobs[first.job_id], sent.world.cloud.jobs[second.job_id]
    await sent.look(10)
    assert sent.world.telemetry.list_lags == {BUCKET.name: pytest.approx(30, abs=1)}
    sent.world.cloud.repeats = True
    await sent.look(10)
    assert sent.world.telemetry.list_lags == {BUCKET.name: pytest.approx(30, abs=1)}


async def test_an_accepted_job_is_looked_at_after_two_seconds_whatever_the_last_date_says(sent: Sent) -> None:
    job, record = sent.job(marked=True), sent.record
    await sent.world.parts.outcomes.finish(record, job, BUCKET)
    ((_, look_at),) = sent.world.data.records.values()
    assert look_at == pytest.approx(sent.world.cloud.now() + 2, abs=1)
    sent.world.cloud.lies = [3600.0]
    await sent.world.parts.history.hear(BUCKET)
    await sent.world.store.change([Change(sent.record, None)])
    await sent.world.store.change([Change(None, record, 0.0)])
    await sent.world.parts.outcomes.finish(record, job, BUCKET)
    ((_, look_at),) = sent.world.data.records.values()
    assert look_at == record.sign_end + TIMING.fence_slack + 2
