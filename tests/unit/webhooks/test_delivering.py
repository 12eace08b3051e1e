"""Deliveries over time: looks for the ends of jobs, pauses between attempts, and when each is given up."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.webhooks import WebhookTarget
from docpreview_gateway.webhooks.deliveries import Depth
from docpreview_gateway.webhooks.delivering import (
    DAY_SECONDS,
    LEASE_SECONDS,
    LONGEST_LIFE_SECONDS,
    MOST_AT_ONCE,
    MOST_PER_TARGET,
    NEVER_SECONDS,
    UNREADABLE_SECONDS,
    Webhooks,
)
from docpreview_gateway.webhooks.sender import Answer
from docpreview_gateway.webhooks.sqlite_queue import SqliteDeliveries
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.webhooks.sender import Outcome

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
TARGETS = {name: WebhookTarget(name, f"https://{name}.example.com/", Path("unread")) for name in ("orders", "mail")}


@dataclass
class World:
    """Webhooks over a SQLite file whose clock a test sets, a cloud in memory, and a sender that answers as told."""

    path: Path
    queue: SqliteDeliveries
    clock: FakeClock
    upstream: FakeUpstream = field(default_factory=FakeUpstream)
    answers: dict[str, Outcome] = field(default_factory=dict)
    sent: list[tuple[str, str]] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    depths: list[tuple[int, int, float]] = field(default_factory=list)
    targets: dict[str, WebhookTarget] = field(default_factory=lambda: dict(TARGETS))
    gate: asyncio.Event | None = None
    is_called_back: bool = False
    other: SqliteDeliveries | None = None
    cached: dict[str, PreviewJob] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.webhooks = self._webhooks(self.queue)

    def of_other_secret(self) -> Webhooks:
        """Webhooks of a gateway over the same file whose secret is another."""
        self.other = SqliteDeliveries(self.path, CreateKeys("", [bytes(32)]), self.clock)
        return self._webhooks(self.other)

    def _webhooks(self, queue: SqliteDeliveries) -> Webhooks:
        return Webhooks(
            queue,
            self.upstream,
            BucketRegistry([BUCKET]),
            self,
            self,
            clock=self.clock,
            targets=lambda: self.targets,
            last_seen=self.last_seen,
            trust=self,
            jitter=lambda: 1.0,
        )

    async def send(self, target: WebhookTarget, event_id: str, body: bytes) -> Answer:
        assert body
        self.sent.append((target.name, event_id))
        self.addresses.append(target.url)
        if self.gate is not None and target.name == "orders":
            await self.gate.wait()
        return Answer(self.answers.get(target.name, "delivered"))

    def works(self, bucket: str, _queue_id: str) -> bool:
        assert bucket == BUCKET.name
        return self.is_called_back

    async def last_seen(self, bucket: Bucket, job_id: str) -> PreviewJob | None:
        assert bucket == BUCKET
        return self.cached.get(job_id)

    def webhook(self, target: str, outcome: str) -> None:
        self.outcomes[target, outcome] += 1

    def webhook_queue(self, waiting: int, undelivered: int, oldest_seconds: float) -> None:
        self.depths.append((waiting, undelivered, oldest_seconds))

    def job(self, job_id: str = "d1", state: PreviewJob.State.ValueType = PreviewJob.STATE_SUCCESS) -> PreviewJob:
        """A job of the cloud, in a state."""
        found = PreviewJob(bucket=BUCKET.name, job_id=job_id, state=state)
        self.upstream.jobs[BUCKET.name, job_id] = found
        return found

    async def after(self, seconds: float) -> None:
        """A round after so many seconds, until nothing is in hand."""
        self.clock.time += seconds
        await self.webhooks.round()
        await self.webhooks.drained()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = FakeClock()
    path = tmp_path / "webhooks.db"
    world = World(path, SqliteDeliveries(path, CreateKeys("", [bytes(range(32))]), clock), clock)
    yield world
    await world.webhooks.close()
    for queue in filter(None, (world.queue, world.other)):
        await queue.close()


async def test_a_job_that_runs_is_looked_at_until_it_ends_and_less_often_with_its_age(world: World) -> None:
    await world.webhooks.promise("shop", "orders", world.job(state=PreviewJob.STATE_RUNNING))
    looks = []
    for second in range(100):
        before = len(world.upstream.asked)
        await world.after(1)
        if len(world.upstream.asked) > before:
            looks.append(second + 1)
    pauses = [after - before for before, after in itertools.pairwise(looks)]
    assert looks[0] == 2
    assert pauses == sorted(pauses)
    assert pauses[-1] > 15
    world.job()
    await world.after(60)
    assert [target for target, _ in world.sent] == ["orders"]
    assert world.outcomes == {("orders", "delivered"): 1}


async def test_an_end_that_was_seen_is_told_at_once(world: World) -> None:
    await world.webhooks.promise("shop", "orders", world.job(state=PreviewJob.STATE_RUNNING))
    world.webhooks.told(world.job())
    await world.webhooks.drained()
    await world.after(0)
    assert [target for target, _ in world.sent] == ["orders"]


async def test_attempts_double_their_pauses_up_to_an_hour_and_end_after_a_day(world: World) -> None:
    world.answers["orders"] = "refused"
    await world.webhooks.promise("shop", "orders", world.job())
    at = []
    for second in range(0, int(DAY_SECONDS) + 7200, 2):
        before = len(world.sent)
        await world.after(2)
        if len(world.sent) > before:
            at.append(second)
    pauses = [after - before for before, after in itertools.pairwise(at)]
    assert pauses[:6] == [2, 4, 8, 16, 32, 64]
    assert max(pauses) in range(3600, 3604)
    assert world.outcomes["orders", "expired"] == 1
    assert at[-1] > DAY_SECONDS
    assert (await world.queue.depth()).undelivered == 0


async def test_a_target_that_the_policy_has_no_more_is_waited_for(world: World) -> None:
    """Its deliveries stay for a day: a mistake in the policy loses none."""
    await world.webhooks.promise("shop", "orders", world.job())
    orders = world.targets.pop("orders")
    await world.after(1)
    assert world.outcomes == {("orders", "unknown"): 1}
    world.targets["orders"] = orders
    await world.after(10)
    assert world.outcomes["orders", "delivered"] == 1


async def test_a_slow_target_keeps_no_other_waiting(world: World) -> None:
    world.gate = asyncio.Event()
    for number in range(MOST_PER_TARGET + 3):
        await world.webhooks.promise("shop", "orders", world.job(f"d{number}"))
    await world.webhooks.promise("shop", "mail", world.job("d0"))
    await world.webhooks.round()
    async with asyncio.timeout(10):
        while ("mail", "delivered") not in world.outcomes:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)
    assert Counter(target for target, _ in world.sent) == {"orders": MOST_PER_TARGET, "mail": 1}
    world.gate.set()
    await world.webhooks.drained()
    await world.after(10)
    assert world.outcomes["orders", "delivered"] == MOST_PER_TARGET + 3


async def test_a_job_that_the_cloud_does_not_know_is_given_up_after_a_day(world: World) -> None:
    await world.webhooks.promise("shop", "orders", PreviewJob(bucket=BUCKET.name, job_id="d9"))
    await world.after(DAY_SECONDS / 2)
    assert not world.outcomes
    await world.after(DAY_SECONDS)
    assert world.outcomes == {("orders", "lost"): 1}


async def test_a_job_that_never_ends_is_given_up_after_a_week(world: World) -> None:
    await world.webhooks.promise("shop", "orders", world.job(state=PreviewJob.STATE_PAUSED))
    await world.after(NEVER_SECONDS - 60)
    assert not world.outcomes
    await world.after(120)
    assert world.outcomes == {("orders", "lost"): 1}


async def test_what_a_stopped_process_had_in_hand_is_sent_when_its_lease_ends(world: World) -> None:
    world.gate = asyncio.Event()
    await world.webhooks.promise("shop", "orders", world.job())
    await world.webhooks.round()
    async with asyncio.timeout(10):
        while not world.sent:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)
    await world.webhooks.close()
    world.gate = None
    await world.after(LEASE_SECONDS + 1)
    assert world.sent == [world.sent[0]] * 2
    assert world.outcomes == {("orders", "delivered"): 1}


async def test_without_any_target_in_the_policy_deliveries_wait_and_end_as_others_do(world: World) -> None:
    """Its last target may be away by mistake; what is never sent does not stay for ever."""
    await world.webhooks.promise("shop", "orders", world.job())
    targets, world.targets = world.targets, {}
    await world.after(3600)
    assert world.outcomes == {("orders", "unknown"): 1}
    await world.after(1)
    assert world.outcomes == {("orders", "unknown"): 1}
    await world.webhooks.promise("shop", "mail", world.job("d2"))
    await world.after(DAY_SECONDS + 1)
    await world.after(DAY_SECONDS + 1)
    assert world.outcomes["orders", "expired"] == world.outcomes["mail", "expired"] == 1
    assert (world.sent, await world.queue.depth()) == ([], Depth(0, 0, None))
    world.targets = targets


async def test_a_target_gets_its_events_at_the_address_that_the_policy_has_at_each_attempt(world: World) -> None:
    world.answers["orders"] = "refused"
    await world.webhooks.promise("shop", "orders", world.job())
    await world.after(1)
    world.targets["orders"] = WebhookTarget("orders", "https://new.example.com/", Path("unread"))
    world.answers.clear()
    await world.after(10)
    assert world.addresses == ["https://orders.example.com/", "https://new.example.com/"]


async def test_a_delivery_that_cannot_be_read_is_said_once_an_hour_and_given_up_after_the_longest_life(
    world: World,
) -> None:
    """Its secret left the key file, or a newer version wrote it: both may come back."""
    with structlog.testing.capture_logs() as lines:
        await world.of_other_secret().promise("shop", "orders", world.job())
        for _ in range(7):
            await world.after(UNREADABLE_SECONDS + 1)
        said = [line for line in lines if line["event"] == "stored webhook deliveries cannot be read"]
        assert len(said) == 2
        assert said[0]["error"] == "it was made with a secret that is not in ledger.key_file"
        assert (await world.queue.depth()).waiting == 1
        assert not world.outcomes
        await world.after(LONGEST_LIFE_SECONDS)
    assert world.outcomes == {("", "unreadable"): 1}
    assert await world.queue.depth() == Depth(0, 0, None)
    assert [line["outcome"] for line in lines if line["event"] == "a webhook delivery is given up"] == ["unreadable"]


async def test_deliveries_that_cannot_be_read_keep_no_other_waiting(world: World) -> None:
    other = world.of_other_secret()
    for number in range(MOST_AT_ONCE):
        await other.promise("shop", "orders", world.job(f"u{number}"))
    world.clock.time += 1
    await world.webhooks.promise("shop", "orders", world.job())
    await world.after(0)
    await world.after(0)
    assert world.outcomes == {("orders", "delivered"): 1}


async def test_while_callbacks_come_a_job_is_not_looked_at_before_it_is_a_minute_old(world: World) -> None:
    world.is_called_back = True
    await world.webhooks.promise("shop", "orders", world.job(state=PreviewJob.STATE_RUNNING))
    for _ in range(59):
        await world.after(1)
    assert world.upstream.asked == []
    world.webhooks.told(world.job())
    await world.webhooks.drained()
    await world.after(0)
    assert world.outcomes == {("orders", "delivered"): 1}


async def test_a_callback_that_came_before_the_promise_was_kept_is_not_missed(world: World) -> None:
    world.is_called_back = True
    running = world.job(state=PreviewJob.STATE_RUNNING)
    world.cached["d1"] = world.job()
    await world.webhooks.promise("shop", "orders", running)
    await world.after(0)
    assert world.outcomes == {("orders", "delivered"): 1}
