"""A replica of the gateway's creates, put together as `wiring/creates.py` does; it can be killed and started again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.creates.attempts import Attempts
from docpreview_gateway.creates.days import Days
from docpreview_gateway.creates.dead_leases import DeadLeases
from docpreview_gateway.creates.drafts import Drafts
from docpreview_gateway.creates.guarded import GuardedStore
from docpreview_gateway.creates.leases import LEASE_SECONDS, RENEW_SECONDS, PageLeases
from docpreview_gateway.creates.lists import JobHistory
from docpreview_gateway.creates.outcomes import Outcomes
from docpreview_gateway.creates.rebuild import Rebuild, Scans
from docpreview_gateway.creates.reconciliation import DAY_SECONDS, Reconciliation
from docpreview_gateway.creates.recorded import RecordedCreates
from docpreview_gateway.creates.rendered import RenderedJobs
from docpreview_gateway.creates.settlement import Settlement
from docpreview_gateway.creates.store_memory import StoreMemory
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from tests.fakes.clock import FakeClock
from tests.fakes.creates import MemoryCreates
from tests.fakes.tags import FakeTags
from tests.fakes.telemetry import FakeTelemetry
from tests.simulation.links import CloudLink, Life, MemoryJournal, store_link

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview_gateway.creates.outcomes import Outcome
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.model.buckets import Bucket
    from tests.simulation.world import World

SETTLE_SECONDS, CHECK_STORE_SECONDS, FIRST_RECONCILIATION = 2.0, 10.0, 600.0
"""As in `wiring/creates.py`."""


class WatchedOutcomes(Outcomes):
    """Outcomes whose conclusions the world compares with the truth."""

    world: World

    async def look(self, record: Record, bucket: Bucket) -> Outcome:
        outcome = await super().look(record, bucket)
        self.world.concluded(record, outcome)
        return outcome


class Replica:
    """A replica. What is on its machine's disk, and its clocks, outlive each of its lives."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.wall = FakeClock(world.rules.begins_at)
        self.memory = StoreMemory(None)
        self.journal: dict[str, Record] = {}
        self.journals = 1
        self.down_until = 0.0
        self.boot = world.rng.uniform(0, 1e5)
        self._tasks: list[asyncio.Task[None]] = []
        self.start()

    @property
    def is_up(self) -> bool:
        return not self.life.is_over

    @property
    def lease_name(self) -> str:
        """The replica's name in the store: it is kept with the journal."""
        return f"{self.name}-{self.journals}"

    def start(self) -> None:
        """Begin a life."""
        world = self.world
        self.life = Life(self._died)
        world.note("start of", self.name)
        self._build(self.lease_name)
        self._tasks = [
            self._repeated(self.settlement.round, SETTLE_SECONDS),
            self._repeated(self.rebuild.round, SETTLE_SECONDS),
            self._repeated(self.store.look, CHECK_STORE_SECONDS),
            self._repeated(self.leases.round, RENEW_SECONDS),
            self._repeated(self.dead_leases.round, RENEW_SECONDS),
            self._repeated(self.reconciliation.daily, DAY_SECONDS, first_after=FIRST_RECONCILIATION),
        ]

    def _died(self) -> None:
        """Whoever runs replicas starts them again."""
        self.world.note("killed", self.name)
        asyncio.get_running_loop().call_later(self.world.rng.choice((0.5, 5.0, 60.0)), self._start_again)

    def _start_again(self) -> None:
        if not self.is_up:
            self.start()

    def wipe(self) -> None:
        """Lose the disk with the journal. The next life has another name in the store."""
        self.world.note("the journal is gone of", self.name)
        self.world.wiped = True
        self.journal = {}
        self.journals += 1

    async def end(self) -> None:
        """End this life as a deployment does: drain, and give the leases back."""
        await self.creates.drained()
        await self.leases.round()
        await self.leases.end()

    def _build(self, name: str) -> None:
        world, life = self.world, self.life
        keys, timing, telemetry = world.keys, world.timing, FakeTelemetry()
        times = CloudTimes(self.wall, lambda: self.boot + loop_time())
        upstream = CloudLink(world.cloud, life, times, latency=world.latency)
        buckets = BucketRegistry([world.bucket])
        connection = store_link(
            MemoryCreates(world.data),
            life,
            world.faults,
            is_down=lambda: loop_time() < self.down_until,
            after=world.check_counts,
        )
        history = JobHistory(upstream, keys, times)
        scans = Scans(history, keys, times, timing=timing, caller_names=lambda: world.callers)
        self.store = GuardedStore(connection, self.memory, times, is_first_start=lambda: self.rebuild.is_first_start())  # noqa: PLW0108
        self.rebuild = Rebuild(
            self.store,
            scans,
            [world.bucket],
            times,
            timing=timing,
            lease_seconds=LEASE_SECONDS,
            on_loss="rebuild",
            telemetry=telemetry,
        )
        outcomes = WatchedOutcomes(
            self.store,
            history,
            keys,
            times,
            telemetry=telemetry,
            timing=timing,
            is_exclusive=lambda _bucket: world.exclusive,
        )
        outcomes.world = world
        journal = MemoryJournal(self.journal, life, world.faults)
        self.leases = PageLeases(self.store, journal, times, replica=name)
        self.dead_leases = DeadLeases(
            self.store, scans, [world.bucket], keys, times, timing=timing, replica=name, seconds=LEASE_SECONDS
        )
        attempts = Attempts(
            upstream, self.store, outcomes, keys, times, leases=self.leases, telemetry=telemetry, timing=timing
        )
        self.creates = RecordedCreates(
            upstream,
            buckets,
            self.store,
            attempts,
            outcomes=outcomes,
            drafts=Drafts(keys, timing),
            rendered=RenderedJobs(upstream, FakeTags(), keys),
            history=history,
            leases=self.leases,
            days=Days(self.store, times),
            keys=keys,
            times=times,
            telemetry=telemetry,
        )
        self.reconciliation = Reconciliation(
            self.store, history, scans, keys, times, timing=timing, buckets=[world.bucket], telemetry=telemetry
        )
        self.settlement = Settlement(
            self.store,
            upstream,
            buckets,
            outcomes=outcomes,
            history=history,
            times=times,
            telemetry=telemetry,
            timing=timing,
            keys=keys,
        )

    def _repeated(
        self, work: Callable[[], Awaitable[None]], seconds: float, *, first_after: float = 0.0
    ) -> asyncio.Task[None]:
        """As `storage.background.repeated`, at intervals that grow with the world's patience."""
        life, world = self.life, self.world
        # A lease that is renewed too seldom could not be spent, and would be taken for dead.
        longest = 2.0 if work == self.leases.round else 300.0

        async def rounds() -> None:
            await asyncio.sleep(first_after)
            while not life.is_over:
                try:
                    await work()
                except Exception as error:  # noqa: BLE001
                    world.unexpected(error)
                await asyncio.sleep(seconds * min(world.pace(), longest))

        return asyncio.get_running_loop().create_task(rounds())
