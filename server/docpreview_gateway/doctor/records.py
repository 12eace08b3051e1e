"""Work on the records of creates from outside of a running gateway: reconciliation, and the store's state."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.creates import secret_use
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.lists import JobHistory
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.creates.rebuild import Scans
from docpreview_gateway.creates.reconciliation import Reconciliation, Report
from docpreview_gateway.creates.store_memory import Remembered, StoreMemory
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.storage.key_file import OWN_NAME
from docpreview_gateway.storage.redis_urls import shown
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.wiring.access import Access
from docpreview_gateway.wiring.creates import STORE_FILE, STORE_MEMORY, create_secrets, create_store
from docpreview_gateway.wiring.limits import counting
from docpreview_gateway.wiring.observability import Observability
from docpreview_gateway.wiring.reloading import InvalidFileError
from docpreview_gateway.wiring.system_clock import SystemClock
from docpreview_gateway.wiring.upstream import cloud_parts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from docpreview_gateway.creates.counters import CounterReport
    from docpreview_gateway.creates.ports import SecretUse, StoreState
    from docpreview_gateway.creates.redis_creates import RedisCreates
    from docpreview_gateway.creates.sqlite_creates import SqliteCreates
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.settings.loading import Settings


class StoreStatus(NamedTuple):
    """The store as it is: where, its state, and the problem that it has; empty: none."""

    place: str
    state: StoreState
    problem: str
    unreadable: Mapping[str, str] = MappingProxyType({})
    """Why records cannot be read, by their keys."""


class Reconciled(NamedTuple):
    """A bucket's report; None with the reason for which it could not be compared."""

    bucket: str
    report: Report | None
    problem: str = ""


async def store_status(settings: Settings) -> StoreStatus:
    """The state of the store. StartError when it cannot be read."""
    async with _store(settings) as (store, keys):
        found = _status(settings, keys, await store.state())
        return found if found.problem else found._replace(unreadable=(await store.survey()).unreadable)


async def accept_loss(settings: Settings) -> StoreStatus:
    """End a noted loss, whatever is missing; gateways that run notice it. The status before. StartError.

    So does the use of secrets that are not in the key file any more: what was recorded with them is lost.

    An emptied store whose loss no gateway has noted yet becomes a new one. Gateways compare it with what they know of
    it, and note the loss then: so let them run, and accept what they have noted.
    """
    async with _store(settings) as (store, keys):
        state = await store.state()
        before = _status(settings, keys, state)
        if not state.generation:
            state = await store.begin_rebuild(1.0)
        if missing := _missing(settings, keys, state):
            await store.drop_secrets([use.id for use in missing])
        if state.lost_since:
            await store.end_rebuild(state.lost_since, state.cloud_mark, [])
            state = await store.state()
            # A gateway that starts in this folder knows this store, not the one that was lost.
            StoreMemory(settings.state_dir / STORE_MEMORY).keep(Remembered(state.generation, state.seq))
        return before


async def reconcile(settings: Settings, since: float, *, charge: bool) -> tuple[list[Reconciled], CounterReport]:
    """Compare all buckets' jobs since a Unix time with the records. StartError when there is nothing to compare with.

    With `charge` jobs without a record get one, and their pages are counted.
    """
    clock = SystemClock()
    observed = Observability(settings, clock)
    access = Access(settings, clock, observed.access)
    try:
        credentials, times = access.cloud_credentials(), CloudTimes(clock)
        access.authenticator()
    except InvalidFileError as error:
        raise StartError(str(error)) from None
    buckets = [found.bucket() for found in settings.buckets]
    async with AsyncExitStack() as stack:
        store, keys = await stack.enter_async_context(_store(settings))
        if problem := _status(settings, keys, await store.state()).problem:
            raise StartError(f"{problem}; reconcile when that is over")
        rates = await stack.enter_async_context(counting(settings))
        cloud = await stack.enter_async_context(
            cloud_parts(settings, credentials, times, rates=rates, observed=observed)
        )
        history, timing = JobHistory(cloud.jobs, keys, times), settings.ledger.timing()
        scans = Scans(history, keys, times, timing=timing, caller_names=access.caller_names)
        work = Reconciliation(
            store, history, scans, keys, times, timing=timing, buckets=buckets, telemetry=observed.creates
        )
        found = [await _reconciled(work, history, times, bucket, since, charge=charge) for bucket in buckets]
        return found, await work.of_counters()


async def _reconciled(  # noqa: PLR0913 - what is compared, and with what
    work: Reconciliation, history: JobHistory, times: CloudTimes, bucket: Bucket, since: float, *, charge: bool
) -> Reconciled:
    try:
        await history.hear(bucket)
        report = await work.of_bucket(bucket, since, times.now(bucket.ci_host), charge=charge)
    except GatewayError as error:
        return Reconciled(bucket.name, None, f"the cloud's list cannot be read: {error.message}")
    except StoreError as error:
        return Reconciled(bucket.name, None, f"the records cannot be read: {error}")
    return Reconciled(bucket.name, report)


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[tuple[RedisCreates | SqliteCreates, CreateKeys]]:
    state, folder = settings.shared_state, settings.state_dir
    is_local = not (state.ledger_url or state.url)
    # Neither is made here: a gateway that starts with an empty folder has to notice that it is empty.
    needed = [folder / OWN_NAME] if settings.ledger.key_file is None else []
    for path in [*needed, *([folder / STORE_FILE] if is_local else [])]:
        if not path.exists():
            raise StartError(f"{path}: there is none; is state_dir that of the gateway, and has it been started?")
    try:
        async with AsyncExitStack() as stack:
            keys = CreateKeys(state.namespace or "", create_secrets(settings).secrets)
            yield (await create_store(settings, keys, stack)).store, keys
    except StoreError as error:
        raise StartError(str(error)) from error


def _missing(settings: Settings, keys: CreateKeys, state: StoreState) -> list[SecretUse]:
    # The machine's clock will do for a person who reads it. A gateway goes by the cloud's.
    return secret_use.unknown(state.secrets, keys.ids, SystemClock().now(), settings.ledger.timing().keep)


def _status(settings: Settings, keys: CreateKeys, state: StoreState) -> StoreStatus:
    shared = settings.shared_state
    place = str(settings.state_dir / STORE_FILE)
    if url := shared.ledger_url or shared.url:
        place = f"{shown(url.get_secret_value())}, namespace {shared.namespace}"
    problem = ""
    if missing := _missing(settings, keys, state):
        problem = f"{place}: {secret_use.problem(missing)}"
    elif not state.generation:
        problem = f"{place}: the store is empty, and no gateway has noted yet whether it is new or lost"
    elif state.lost_since:
        problem = f"{place}: the store has lost records, and is being rebuilt"
    return StoreStatus(place, state, problem)
