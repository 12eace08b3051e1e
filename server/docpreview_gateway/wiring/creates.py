"""Creates: their store, what works on it, and its background rounds."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog

from docpreview_gateway.creates.attempts import Attempts
from docpreview_gateway.creates.cloud_check import CloudCheck
from docpreview_gateway.creates.days import APART_SECONDS, Days
from docpreview_gateway.creates.dead_leases import DeadLeases
from docpreview_gateway.creates.drafts import Drafts
from docpreview_gateway.creates.guarded import GuardedStore
from docpreview_gateway.creates.imported import OldIds
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.leases import LEASE_SECONDS, RENEW_SECONDS, PageLeases
from docpreview_gateway.creates.lists import JobHistory
from docpreview_gateway.creates.outcomes import Outcomes
from docpreview_gateway.creates.outlook import Outlook
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.creates.rebuild import Rebuild, Scans
from docpreview_gateway.creates.reconciliation import DAY_SECONDS, Reconciliation
from docpreview_gateway.creates.recorded import RecordedCreates
from docpreview_gateway.creates.rendered import RenderedJobs
from docpreview_gateway.creates.secret_use import problem, unknown
from docpreview_gateway.creates.settlement import Settlement
from docpreview_gateway.creates.sqlite_creates import SqliteCreates
from docpreview_gateway.creates.sqlite_journal import SqliteJournal
from docpreview_gateway.creates.store_memory import StoreMemory
from docpreview_gateway.creates.usage import PAGES_SECONDS, PageMetrics, PageUsages
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.storage.background import repeated
from docpreview_gateway.storage.key_file import DeploymentSecrets, KeyFileError, deployment_secrets
from docpreview_gateway.storage.redis_urls import shown
from docpreview_gateway.telemetry.readiness import Dependency
from docpreview_gateway.wiring.old_creates import old_creates
from docpreview_gateway.wiring.state_files import BROKEN_STORE, STORE_FILE, STORE_MEMORY, journal_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
    from contextlib import AbstractAsyncContextManager

    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.callbacks.trust import Trust
    from docpreview_gateway.creates.ports import Creates, CreatesTelemetry, Webhooks
    from docpreview_gateway.creates.records import Timing
    from docpreview_gateway.creates.redis_creates import RedisCreates
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.storage.redis_health import RedisHealth
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.cloud_objects import CloudObjects
    from docpreview_gateway.upstream.middleware.cached import Cached
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.wiring.access import Access
    from docpreview_gateway.wiring.observability import Observability

SETTLE_SECONDS = 2.0
"""Interval of rounds over records that are due."""

FIRST_RECONCILIATION = 600.0
"""Seconds from the start to the first reconciliation with the cloud's list."""

CHECK_STORE_SECONDS = 10.0
"""Interval of looks whether the store is the one that it was."""

CHECK_CLOUD_SECONDS = 5.0
"""Interval of looks whether a bucket works. The first comes as late: callers have mostly asked the cloud by then."""

HEALTH_SECONDS = 30.0
"""Interval of looks at the health of the store's server."""

log = structlog.get_logger("docpreview_gateway.creates")


class CreateParts(NamedTuple):
    """Creates, the pages that callers have used, and the present state of what creates depend on."""

    creates: Creates
    usages: PageUsages
    dependencies: Callable[[], dict[str, Dependency]]
    ended: Callable[[str], Awaitable[None]]
    """To be told the marker of a job that has ended: its pages are charged at once."""


@asynccontextmanager
async def create_parts(  # noqa: PLR0913 - all parts of creates meet here
    settings: Settings,
    upstream: Cached,
    objects: CloudObjects,
    *,
    buckets: BucketRegistry,
    clock: Clock,
    times: CloudTimes,
    observed: Observability,
    access: Access,
    known: DeploymentSecrets,
    callbacks: Trust | None,
    webhooks: Webhooks,
    host_problem: Callable[[str], str],
    worker: str = "",
) -> AsyncIterator[CreateParts]:
    """The parts, running; `worker` is the number of this process, empty if it is the only one.

    `known` are the deployment's secrets, `host_problem` is that of `CloudParts`.

    Leaving drains their background tasks, ends their rounds, then closes the store. StartError when the store cannot
    be opened.
    """
    async with AsyncExitStack() as stack:
        telemetry = observed.creates
        base = await _base(settings, known, upstream, times, telemetry, access.caller_names, stack)
        guarded, outcomes = base.guarded, base.outcomes(times, telemetry, webhooks)
        journal, replica = await _journal(settings, base.keys, worker, stack)
        leases = PageLeases(guarded, journal, times, replica=replica, measure=telemetry.leased)
        days = Days(guarded, times)
        recorded = base.creates(
            upstream, objects, buckets, outcomes, times, leases=leases, days=days, telemetry=telemetry
        )
        creates = _checked(recorded, base, buckets, objects) if settings.creates.check_input else recorded
        metrics = PageMetrics(guarded, days, access.callers, times=times, clock=clock, telemetry=telemetry)
        settlement = base.settlement(upstream, buckets, outcomes, times, telemetry, callbacks)
        stack.push_async_callback(leases.end)
        cloud = CloudCheck(base.history, times, base.buckets, host_problem)
        observed.upstream.measure_cloud(lambda: bool(cloud.problem))
        for each in (
            repeated(settlement.round, SETTLE_SECONDS),
            repeated(leases.round, RENEW_SECONDS),
            repeated(metrics.round, PAGES_SECONDS),
            repeated(_keep_up(days, base.history, base.buckets[0]), APART_SECONDS / 2),
            repeated(cloud.round, CHECK_CLOUD_SECONDS, first_after=CHECK_CLOUD_SECONDS),
            *base.rounds(settings, times, telemetry, replica),
        ):
            await stack.enter_async_context(each)
        stack.push_async_callback(recorded.drained)
        usages = PageUsages(guarded, lambda: days.today(clock.now()))
        yield CreateParts(creates, usages, partial(_dependencies, guarded, cloud), settlement.ended)


def _checked(creates: Creates, base: _Base, buckets: BucketRegistry, objects: CloudObjects) -> Creates:
    # Imported only if it is used: it knows the formats of documents.
    from docpreview_gateway.creates.inputs import CheckedCreates  # noqa: PLC0415

    drafts = Drafts(base.keys, base.timing, base.old)
    return CheckedCreates(creates, buckets, objects, store=base.guarded, drafts=drafts)


def _dependencies(store: GuardedStore, cloud: CloudCheck) -> dict[str, Dependency]:
    """Without one of these no create with `request_id` succeeds; of damaged records only their own fail."""
    records = Dependency(store.problem) if store.problem else Dependency(store.damage, blocks=False)
    return {"cloud": Dependency(cloud.problem, is_known=cloud.is_known), "records": records}


@dataclass(frozen=True)
class _Base:
    """The store, guarded, and what keeps it whole."""

    keys: CreateKeys
    timing: Timing
    opened: OpenStore
    old: OldIds
    history: JobHistory
    scans: Scans
    guarded: GuardedStore
    rebuild: Rebuild
    buckets: list[Bucket]

    def creates(  # noqa: PLR0913 - all parts of a create meet here
        self,
        upstream: Cached,
        objects: CloudObjects,
        buckets: BucketRegistry,
        outcomes: Outcomes,
        times: CloudTimes,
        *,
        leases: PageLeases,
        days: Days,
        telemetry: CreatesTelemetry,
    ) -> RecordedCreates:
        """The service."""
        store, keys, timing = self.guarded, self.keys, self.timing
        return RecordedCreates(
            upstream,
            buckets,
            store,
            Attempts(upstream, store, outcomes, keys, times, leases=leases, telemetry=telemetry, timing=timing),
            outcomes=outcomes,
            drafts=Drafts(keys, timing, self.old),
            rendered=RenderedJobs(upstream, objects, keys, upstream.last_seen),
            history=self.history,
            leases=leases,
            days=days,
            keys=keys,
            times=times,
            telemetry=telemetry,
            unsafe=lambda: store.unsafe,
        )

    def outcomes(self, times: CloudTimes, telemetry: CreatesTelemetry, webhooks: Webhooks) -> Outcomes:
        """What finds the outcomes of creates."""
        return Outcomes(
            self.guarded,
            self.history,
            self.keys,
            times,
            telemetry=telemetry,
            timing=self.timing,
            is_exclusive=lambda bucket: bucket.exclusive,
            webhooks=webhooks,
        )

    def settlement(  # noqa: PLR0913, PLR0917 - collaborators
        self,
        upstream: Upstream,
        buckets: BucketRegistry,
        outcomes: Outcomes,
        times: CloudTimes,
        telemetry: CreatesTelemetry,
        callbacks: Trust | None,
    ) -> Settlement:
        """The loop over records that are due."""
        return Settlement(
            self.guarded,
            upstream,
            buckets,
            outcomes=outcomes,
            history=self.history,
            times=times,
            telemetry=telemetry,
            timing=self.timing,
            keys=self.keys,
            callbacks=callbacks,
        )

    def rounds(
        self, settings: Settings, times: CloudTimes, telemetry: CreatesTelemetry, replica: str
    ) -> Iterator[AbstractAsyncContextManager[None]]:
        """The rounds over the store as a whole."""
        telemetry.measure_store(
            is_failing=lambda: bool(self.guarded.problem), is_lost=lambda: self.guarded.lost is not None
        )
        dead_leases = DeadLeases(
            self.guarded,
            self.scans,
            self.buckets,
            self.keys,
            times,
            timing=self.timing,
            replica=replica,
            seconds=LEASE_SECONDS,
        )
        reconciliation = Reconciliation(
            self.guarded,
            self.history,
            self.scans,
            self.keys,
            times,
            timing=self.timing,
            buckets=self.buckets,
            telemetry=telemetry,
        )
        yield repeated(self.rebuild.round, SETTLE_SECONDS)
        yield repeated(self.guarded.look, CHECK_STORE_SECONDS)
        yield repeated(dead_leases.round, RENEW_SECONDS)
        yield repeated(reconciliation.daily, DAY_SECONDS, first_after=FIRST_RECONCILIATION)
        if self.opened.read_health is not None:
            yield _server_health(settings, self.opened.read_health, self.guarded, self.opened.place, telemetry)


async def _base(  # noqa: PLR0913, PLR0917 - collaborators, named by wiring
    settings: Settings,
    known: DeploymentSecrets,
    upstream: Upstream,
    times: CloudTimes,
    telemetry: CreatesTelemetry,
    caller_names: Callable[[], Iterable[str]],
    stack: AsyncExitStack,
) -> _Base:
    timing = settings.ledger.timing()
    keys = CreateKeys(settings.shared_state.namespace or "", known.secrets)
    opened, old = await create_store(settings, keys, stack), OldIds()
    history = JobHistory(upstream, keys, times)
    scans = Scans(history, keys, times, timing=timing, caller_names=caller_names)
    buckets = [found.bucket() for found in settings.buckets]
    guarded = GuardedStore(
        opened.store,
        StoreMemory(settings.state_dir / STORE_MEMORY),
        times,
        # Nothing was made with a secret that did not exist. The rebuild is made below.
        is_first_start=_always if known.made else lambda: rebuild.is_first_start(),  # noqa: PLW0108 - as above
        prepare=await old_creates(settings, opened.store, keys, old, stack),
        place=opened.place,
        missing_secrets=lambda state: problem(unknown(state.secrets, keys.ids, times.latest(), timing.keep)),
        outlook=lambda waited: outlook(settings).words(waited, shows_markers=all(map(history.echoes, buckets))),
    )
    rebuild = Rebuild(
        guarded,
        scans,
        buckets,
        times,
        timing=timing,
        lease_seconds=LEASE_SECONDS,
        on_loss=settings.ledger.on_loss,
        telemetry=telemetry,
    )
    return _Base(keys, timing, opened, old, history, scans, guarded, rebuild, buckets)


def _keep_up(days: Days, history: JobHistory, bucket: Bucket) -> Callable[[], Awaitable[None]]:
    async def keep_up_day() -> None:
        await days.keep_up(history, bucket)

    return keep_up_day


def outlook(settings: Settings) -> Outlook:
    """What ends a loss of the store."""
    timing = settings.ledger.timing()
    return Outlook(settings.ledger.on_loss, timing.watch + LEASE_SECONDS, timing.keep)


async def _always() -> bool:
    return True


def create_secrets(settings: Settings) -> DeploymentSecrets:
    """The deployment's secrets. StartError when their file cannot be used."""
    try:
        return deployment_secrets(settings.ledger.key_file, settings.state_dir)
    except KeyFileError as error:
        # Without a file of its own the secret is in the folder of the state.
        setting = "state_dir" if settings.ledger.key_file is None else "ledger.key_file"
        raise StartError(f"{setting}: {error}") from error


class OpenStore(NamedTuple):
    """The store, where it is (without passwords), and how to ask its server for its health; None: it has no server."""

    store: RedisCreates | SqliteCreates
    place: str
    read_health: Callable[[], Awaitable[RedisHealth]] | None = None


async def create_store(settings: Settings, keys: CreateKeys, stack: AsyncExitStack) -> OpenStore:
    """The store, open as long as the stack is. StartError when its file cannot be used."""
    state = settings.shared_state
    if url := state.ledger_url or state.url:
        # Imported only with shared state: redis takes 20 MiB and half a second.
        from docpreview_gateway.creates.redis_creates import RedisCreates, key_names  # noqa: PLC0415
        from docpreview_gateway.storage.redis_connections import redis_commands  # noqa: PLC0415
        from docpreview_gateway.storage.redis_health import may_lack, read_health  # noqa: PLC0415

        # Separate connections, so that creates do not queue behind cache look-ups.
        send = await stack.enter_async_context(redis_commands(url.get_secret_value()))
        key, *_ = key_names(keys.namespace)
        read = partial(read_health, send, key, seconds=state.ledger_timeout_seconds)

        async def server_may_lack(before: str) -> bool:
            return may_lack(await read(), before)

        store = RedisCreates(send, keys, seconds=state.ledger_timeout_seconds, may_lack=server_may_lack)
        return OpenStore(store, shown(url.get_secret_value()), read)
    path = settings.state_dir / STORE_FILE
    try:
        return OpenStore(await stack.enter_async_context(SqliteCreates(path, keys)), str(path))
    except StoreError as error:
        raise StartError(f"state_dir: {error}; {BROKEN_STORE}") from error


def _server_health(
    settings: Settings,
    read_health: Callable[[], Awaitable[RedisHealth]],
    store: GuardedStore,
    place: str,
    telemetry: CreatesTelemetry,
) -> AbstractAsyncContextManager[None]:
    """The rounds over the health of the store's server, the first one at once."""
    from docpreview_gateway.creates.server_health import ServerHealth  # noqa: PLC0415 - as above

    health = ServerHealth(read_health, store, strict=settings.ledger.strict, place=place, telemetry=telemetry)
    return repeated(health.round, HEALTH_SECONDS)


async def _journal(
    settings: Settings, keys: CreateKeys, worker: str, stack: AsyncExitStack
) -> tuple[SqliteJournal, str]:
    """The journal of page leases, and this process's name in the store: each worker has leases of its own."""
    path = settings.state_dir / journal_file(worker)
    try:
        journal = await stack.enter_async_context(SqliteJournal(path, keys))
        return journal, await journal.replica(secrets.token_hex(8))
    except StoreError as error:
        raise StartError(f"state_dir: {error}; {BROKEN_STORE}") from error
