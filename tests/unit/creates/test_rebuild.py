"""Rebuilding a store that has lost records, from the markers of the cloud's jobs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.creates.guarded import OVERDUE_SECONDS, GuardedStore
from docpreview_gateway.creates.leases import LEASE_SECONDS
from docpreview_gateway.creates.pages import Pages
from docpreview_gateway.creates.rebuild import OnLoss, Rebuild, Scan, Scans
from docpreview_gateway.creates.records import State
from docpreview_gateway.creates.store_memory import StoreMemory
from docpreview_gateway.model.errors import UpstreamError
from tests.fakes.creates import MemoryCreates
from tests.fakes.recorded import KEYS
from tests.unit.creates.worlds import (
    BUCKET,
    COUNTED,
    EXCLUSIVE,
    HOST,
    ONE,
    TIMING,
    Held,
    World,
    clock,
    name_of,
    request,
    selecting,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.errors import GatewayError

QUARANTINE = TIMING.watch + LEASE_SECONDS
DOWN = UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, "down")


class Replica:
    """A process with a guarded store."""

    def __init__(self, world: World, on_loss: OnLoss = "rebuild", buckets: Sequence[Bucket] = (BUCKET,)) -> None:
        times = clock()
        self.world = world
        self.store = GuardedStore(
            MemoryCreates(world.data), StoreMemory(None), times, is_first_start=self._is_first_start
        )
        self.parts = world.process(self.store, times=times)
        self.scans = Scans(
            self.parts.history, KEYS, times, timing=TIMING, caller_names=lambda: [ONE.name, COUNTED.name]
        )
        self.rebuild = Rebuild(
            self.store,
            self.scans,
            buckets,
            times,
            timing=TIMING,
            lease_seconds=LEASE_SECONDS,
            on_loss=on_loss,
            telemetry=world.telemetry,
        )

    async def _is_first_start(self) -> bool:
        return await self.rebuild.is_first_start()

    async def create(self, asked: object = None, caller: object = ONE) -> PreviewJob:
        return await self.world.create(asked or request(), caller, at=self.parts)  # type: ignore[arg-type]

    async def error(self, asked: object = None, caller: object = ONE) -> GatewayError:
        return await self.world.error(asked or request(), caller, at=self.parts)  # type: ignore[arg-type]

    async def round(self, seconds: float = 0.0) -> bool:
        """Whether the store is whole after a round."""
        await asyncio.sleep(seconds)
        await self.rebuild.round()
        return self.store.lost is None

    async def lose(self) -> None:
        """The store is emptied, and a create notices it."""
        self.world.data.empty()
        assert name_of(await self.error()) == "LEDGER_UNAVAILABLE"
        assert self.store.lost is not None


@pytest.fixture
def replica() -> Replica:
    world = World()
    world.data.generation = ""
    return Replica(world)


async def test_creates_that_need_a_record_are_refused_until_a_lost_store_is_rebuilt(replica: Replica) -> None:
    """Nothing is sent for them. Creates that need none go on."""
    await replica.create()
    await replica.parts.history.read(BUCKET, replica.world.cloud.now() - 10, replica.world.cloud.now() + 10)
    posts = replica.world.cloud.posts
    await replica.lose()
    assert replica.world.cloud.posts == posts
    assert name_of(await replica.error(request(""), COUNTED)) == "LIMITER_UNAVAILABLE"
    assert (await replica.create(request(""))).job_id


async def test_a_refusal_tells_the_rest_of_the_quarantine(replica: Replica) -> None:
    await replica.create()
    await replica.lose()
    await asyncio.sleep(100)
    assert (await replica.error()).retry_after == pytest.approx(QUARANTINE - 100, abs=2)
    await asyncio.sleep(QUARANTINE - 100)
    assert (await replica.error()).retry_after == pytest.approx(1, abs=1)


async def test_a_refusal_while_the_rebuild_is_overdue_asks_for_ever_longer_waits_up_to_a_minute() -> None:
    """As of a cloud without echo, whose loss may last a day: nobody should ask each second until then."""
    world = World()
    world.cloud.echo = False
    replica = Replica(world)
    await replica.create()
    await replica.lose()
    assert not await replica.round(QUARANTINE + 20)
    assert (await replica.error()).retry_after == pytest.approx(20, abs=2)
    assert not await replica.round(3600)
    assert (await replica.error()).retry_after == OVERDUE_SECONDS


async def test_the_quarantine_is_as_long_as_a_create_and_a_lease_of_before_may_take(replica: Replica) -> None:
    await replica.create()
    await replica.lose()
    lists = len(replica.world.cloud.lists)
    assert not await replica.round(QUARANTINE - 1)
    assert len(replica.world.cloud.lists) == lists
    assert await replica.round(2)


async def test_ids_of_before_get_their_jobs_after_the_rebuild(replica: Replica) -> None:
    asked = [request(), selecting("1-3"), request(input_object="b.pdf")]
    jobs = [await replica.create(each) for each in asked]
    await replica.lose()
    assert await replica.round(QUARANTINE)
    posts = replica.world.cloud.posts
    again = [await replica.create(each) for each in asked]
    assert [job.job_id for job in again] == [job.job_id for job in jobs]
    assert replica.world.cloud.posts == posts
    assert replica.world.telemetry.ledger_events.count("orphan") == 3


async def test_the_log_says_how_many_records_a_rebuild_took_in_and_of_how_many_buckets(replica: Replica) -> None:
    """Of all its rounds: the first ends at a list that fails."""
    scanned: list[Bucket] = []

    class FailingOnce(Scans):
        async def scan(self, bucket: Bucket, *arguments: Any, **named: Any) -> Scan:
            scanned.append(bucket)
            if scanned == [BUCKET, EXCLUSIVE]:
                raise DOWN
            return await super().scan(bucket, *arguments, **named)

    parts = replica.parts
    scans = FailingOnce(parts.history, KEYS, parts.times, timing=TIMING, caller_names=lambda: [ONE.name])
    replica.rebuild = Rebuild(
        replica.store,
        scans,
        [BUCKET, EXCLUSIVE, replace(BUCKET, name="empty-1250000000")],
        replica.parts.times,
        timing=TIMING,
        lease_seconds=LEASE_SECONDS,
        on_loss="rebuild",
        telemetry=replica.world.telemetry,
    )
    for asked in (request(), request(), request(bucket=EXCLUSIVE)):
        await replica.create(asked)
    for _ in range(2):
        await replica.lose()
        scanned.clear()
        with capture_logs() as entries:
            assert not await replica.round(QUARANTINE)
            assert await replica.round(60)
        (line,) = [entry for entry in entries if entry["event"] == "the store of creates is rebuilt"]
        assert (line["records"], line["buckets"]) == (3, 2)


async def test_an_id_of_before_with_another_request_is_refused_after_the_rebuild(replica: Replica) -> None:
    """By the part of the request's digest that a marker has."""
    asked = request()
    await replica.create(asked)
    await replica.lose()
    await replica.round(QUARANTINE)
    assert name_of(await replica.error(request(asked.request_id, input_object="b.pdf"))) == "REQUEST_ID_REUSED"


async def test_pages_of_before_are_counted_again_after_the_rebuild(replica: Replica) -> None:
    """Of ended jobs what they made; of others what they may make, until they end."""
    ended = await replica.create(selecting("1-20"), COUNTED)
    running = await replica.create(selecting("1-30"), COUNTED)
    replica.world.cloud.end(ended.job_id, 15)
    await replica.lose()
    assert replica.world.pages() == Pages(0, 0)
    await replica.round(QUARANTINE)
    assert replica.world.pages() == Pages(15, 30)
    replica.world.cloud.end(running.job_id, 25)
    await replica.world.settle(5, at=replica.parts)
    assert replica.world.pages() == Pages(40, 0)


async def test_a_job_of_before_is_charged_to_the_day_of_its_create(replica: Replica) -> None:
    job = await replica.create(selecting("1-20"), COUNTED)
    replica.world.cloud.end(job.job_id, 15)
    await asyncio.sleep(2 * 86400)
    await replica.lose()
    await replica.round(QUARANTINE)
    assert replica.world.pages(day="2026-11-15") == Pages(15, 0)


async def test_a_job_of_a_caller_that_is_not_in_the_policy_any_more_is_remembered_and_not_counted() -> None:
    world = World()
    replica = Replica(world)
    asked, gone = request(), ONE.__class__("gone", budget=COUNTED.budget)
    job = await replica.create(asked, gone)
    await replica.lose()
    await replica.round(QUARANTINE)
    assert world.data.pages == {}
    assert (await replica.create(asked, gone)).job_id == job.job_id


async def test_a_create_on_its_way_while_the_store_is_lost_tells_its_job_and_is_found_again(replica: Replica) -> None:
    await replica.create()
    held = Held(sent=True)
    replica.world.cloud.fates = [held]
    asked = request()
    on_its_way = asyncio.create_task(replica.create(asked))
    await held.began.wait()
    await replica.lose()
    held.go.set()
    job = await on_its_way
    assert await replica.round(QUARANTINE)
    assert (await replica.create(asked)).job_id == job.job_id


async def test_a_request_that_arrives_during_the_quarantine_is_found(replica: Replica) -> None:
    await replica.create()
    replica.world.cloud.fates = [40.0]
    replica.world.cloud.lag = TIMING.visibility
    asked = request()
    assert name_of(await replica.world.error(asked, at=replica.parts, seconds=2)) == "CREATE_OUTCOME_UNKNOWN"
    await replica.lose()
    assert await replica.round(QUARANTINE)
    assert (await replica.create(asked)).job_id == "d0001"
    assert len(replica.world.cloud.jobs) == 2


async def test_duplicates_of_before_become_one_record_of_the_earliest(replica: Replica) -> None:
    asked = request()
    job = await replica.create(asked)
    second = PreviewJob()
    second.CopyFrom(replica.world.cloud.jobs[job.job_id][0])
    second.job_id = "second"
    second.create_time.seconds += 5
    replica.world.cloud.add(second)
    await replica.lose()
    await replica.round(QUARANTINE)
    assert (await replica.create(asked)).job_id == job.job_id


@pytest.mark.parametrize("kind", ["unending", "failing"])
async def test_a_list_that_cannot_be_read_to_its_end_keeps_the_store_closed(replica: Replica, kind: str) -> None:
    asked = request()
    job = await replica.create(asked)
    await replica.lose()
    if kind == "unending":
        replica.world.cloud.repeats = True
    else:
        replica.world.cloud.list_failures = [DOWN]
    assert not await replica.round(QUARANTINE)
    assert name_of(await replica.error(asked)) == "LEDGER_UNAVAILABLE"
    replica.world.cloud.repeats = False
    assert await replica.round(10)
    assert (await replica.create(asked)).job_id == job.job_id


async def test_empty_pages_hide_no_jobs_from_the_scan(replica: Replica) -> None:
    asked = request()
    job = await replica.create(asked)
    await replica.lose()
    replica.world.cloud.empty_pages = 2
    assert await replica.round(QUARANTINE)
    assert (await replica.create(asked)).job_id == job.job_id


async def test_a_cloud_without_echo_keeps_the_store_closed_as_long_as_an_id_is_remembered() -> None:
    """Its jobs cannot be told apart, so no id could be found again."""
    world = World()
    world.cloud.echo = False
    replica = Replica(world)
    await replica.create()
    await replica.lose()
    for _ in range(22):
        assert not await replica.round(3600)
    assert await replica.round(2 * 3600 + 60)


@pytest.mark.parametrize(
    ("region", "user_data", "is_rebuilt"),
    [("ap-chongqing", "", True), ("eu-frankfurt", "theirs", True), ("eu-frankfurt", "", False)],
    ids=["the region echoes", "the bucket echoes", "nothing is known"],
)
async def test_a_bucket_with_jobs_of_others_only_keeps_the_store_closed_only_where_the_cloud_may_not_echo(
    region: str, user_data: str, *, is_rebuilt: bool
) -> None:
    """Where it echoes for one bucket of the region, or a text of others in the bucket, ours would be seen."""
    other = replace(EXCLUSIVE, region=region)
    world = World(buckets=(BUCKET, other))
    replica = Replica(world, buckets=(other, BUCKET))
    world.cloud.add(PreviewJob(bucket=other.name, user_data=user_data))
    await replica.create()
    await replica.lose()
    await asyncio.sleep(3600)
    assert await replica.round() is is_rebuilt


async def test_a_deployment_that_refuses_stays_closed_until_it_is_told_otherwise() -> None:
    world = World()
    replica = Replica(world, "refuse")
    await replica.create()
    await replica.lose()
    for _ in range(30):
        assert not await replica.round(86400)
    assert world.data.lost_since


async def test_a_deployment_that_accepts_a_loss_goes_on_at_once() -> None:
    """An id of before makes a second job: that is what it accepts."""
    world = World()
    replica = Replica(world, "accept")
    asked = request()
    first = await replica.create(asked)
    await replica.lose()
    assert await replica.round()
    assert (await replica.create(asked)).job_id != first.job_id


async def test_a_store_that_is_lost_again_while_it_is_rebuilt_is_rebuilt_anew(replica: Replica) -> None:
    asked = request()
    job = await replica.create(asked)
    await replica.lose()
    await asyncio.sleep(QUARANTINE)
    replica.world.data.empty()
    assert not await replica.round()
    assert not await replica.round(QUARANTINE - 1)
    assert await replica.round(2)
    assert (await replica.create(asked)).job_id == job.job_id


async def test_two_replicas_rebuild_one_store_and_both_go_on(replica: Replica) -> None:
    other = Replica(replica.world)
    asked = request()
    job = await replica.create(asked)
    assert (await other.create(asked)).job_id == job.job_id
    await replica.lose()
    assert name_of(await other.error(asked)) == "LEDGER_UNAVAILABLE"
    await asyncio.sleep(QUARANTINE)
    await asyncio.gather(replica.rebuild.round(), other.rebuild.round())
    for _ in range(2):
        await replica.round(QUARANTINE)
        await other.round()
    assert replica.store.lost is None
    assert other.store.lost is None
    for each in (replica, other):
        assert (await each.create(asked)).job_id == job.job_id


async def test_a_restored_backup_is_made_whole_from_its_mark(replica: Replica) -> None:
    """Records that it has are left as they are."""
    before, after = request(), request()
    first = await replica.create(before)
    await replica.store.look()
    backup = dict(replica.world.data.records)
    seq, mark = replica.world.data.seq, replica.world.cloud.now() - 10
    second = await replica.create(after)
    await replica.store.look()
    replica.world.data.records, replica.world.data.seq, replica.world.data.cloud_mark = backup, seq, mark
    await replica.store.look()
    assert await replica.round(QUARANTINE)
    assert (await replica.create(before)).job_id == first.job_id
    assert (await replica.create(after)).job_id == second.job_id
    assert replica.world.telemetry.ledger_events.count("orphan") == 1


async def test_a_mark_of_a_wrong_date_hides_no_job_from_the_scan(replica: Replica) -> None:
    """It is in the future: nothing was complete up to there."""
    asked = request()
    job = await replica.create(asked)
    await replica.store.look()
    replica.world.data.records, replica.world.data.seq = {}, 1
    replica.world.data.cloud_mark = replica.world.cloud.now() + 30 * 86400
    await replica.store.look()
    assert await replica.round(QUARANTINE + 1)
    assert (await replica.create(asked)).job_id == job.job_id


class TestFirstStart:
    """Whether an empty store is a new one, when the secret is not new."""

    async def test_a_cloud_without_our_markers_says_that_it_is(self, replica: Replica) -> None:
        replica.world.cloud.add(PreviewJob(bucket=BUCKET.name, user_data="others"))
        assert await replica.rebuild.is_first_start()

    async def test_a_job_with_our_marker_says_that_it_is_not(self, replica: Replica) -> None:
        await replica.create()
        assert not await Replica(replica.world).rebuild.is_first_start()

    async def test_an_old_job_says_nothing(self, replica: Replica) -> None:
        """Longer ago than ids are remembered."""
        await replica.create()
        await asyncio.sleep(TIMING.keep + 3 * 86400)
        assert await replica.rebuild.is_first_start()

    async def test_a_store_is_not_opened_before_the_cloud_answers(self, replica: Replica) -> None:
        await replica.parts.history.hear(BUCKET)
        replica.world.cloud.list_failures = [DOWN, DOWN]
        assert name_of(await replica.error()) == "LEDGER_UNAVAILABLE"
        assert replica.store.lost is None
        replica.world.cloud.list_failures = []
        assert (await replica.create()).job_id

    async def test_a_store_that_was_emptied_while_all_were_down_is_noticed(self, replica: Replica) -> None:
        asked = request()
        job = await replica.create(asked)
        replica.world.data.empty()
        again = Replica(replica.world)
        assert name_of(await again.error(asked)) == "LEDGER_UNAVAILABLE"
        assert await again.round(QUARANTINE + 1)
        assert (await again.create(asked)).job_id == job.job_id
        assert again.parts.times.heard(HOST) is not None


async def test_records_of_a_scan_are_forgotten_as_others_are(replica: Replica) -> None:
    job = await replica.create()
    await replica.lose()
    await replica.round(QUARANTINE)
    (record,) = replica.world.records
    assert record.state is State.ACCEPTED
    assert record.expires_at == job.create_time.seconds + TIMING.keep


async def test_a_replica_whose_rebuild_another_one_has_ended_goes_on_without_a_scan(replica: Replica) -> None:
    other = Replica(replica.world)
    asked = request()
    job = await replica.create(asked)
    await other.create(asked)
    await replica.lose()
    assert name_of(await other.error(asked)) == "LEDGER_UNAVAILABLE"
    assert await replica.round(QUARANTINE + 1)
    lists, rebuilt = len(replica.world.cloud.lists), replica.world.telemetry.ledger_events.count("rebuilt")
    assert await other.round()
    assert len(replica.world.cloud.lists) == lists
    assert replica.world.telemetry.ledger_events.count("rebuilt") == rebuilt
    assert (await other.create(asked)).job_id == job.job_id


async def test_a_store_that_cannot_be_read_is_not_rebuilt_before_it_can(replica: Replica) -> None:
    await replica.create()
    await replica.lose()
    store = replica.store.store
    assert isinstance(store, MemoryCreates)
    store.fail_before, store.failing = 1, {"state"}
    lists = len(replica.world.cloud.lists)
    assert not await replica.round(QUARANTINE + 1)
    assert len(replica.world.cloud.lists) == lists
    assert await replica.round(1)
