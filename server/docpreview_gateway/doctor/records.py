"""Work on the records of creates from outside of a running gateway: reconciliation, and the store's state."""

from __future__ import annotations

import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager, closing
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote

from docpreview_gateway.creates import secret_use
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.lists import JobHistory
from docpreview_gateway.creates.ports import MAKING, StoreError
from docpreview_gateway.creates.rebuild import Scans
from docpreview_gateway.creates.reconciliation import Reconciliation, Report
from docpreview_gateway.creates.store_memory import Remembered, StoreMemory
from docpreview_gateway.doctor.record_texts import words_of
from docpreview_gateway.model.callers import ANONYMOUS
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.storage.key_file import OWN_NAME
from docpreview_gateway.storage.redis_urls import shown
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.wiring.access import Access, load_directory
from docpreview_gateway.wiring.creates import create_secrets, create_store, outlook
from docpreview_gateway.wiring.limits import counting
from docpreview_gateway.wiring.observability import Observability
from docpreview_gateway.wiring.reloading import InvalidFileError
from docpreview_gateway.wiring.state_files import STORE_FILE, STORE_MEMORY
from docpreview_gateway.wiring.system_clock import SystemClock
from docpreview_gateway.wiring.upstream import cloud_parts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from docpreview_gateway.creates.counters import CounterReport
    from docpreview_gateway.creates.outlook import Outlook
    from docpreview_gateway.creates.ports import SecretUse, StoreState
    from docpreview_gateway.creates.redis_creates import RedisCreates
    from docpreview_gateway.creates.sqlite_creates import SqliteCreates
    from docpreview_gateway.doctor.redis_probe import RedisProbe
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.settings.loading import Settings

FOLDER = "make the folder, give it to the gateway's user, mount it writable, and free some space on it (state_dir)"

Kind = Literal["whole", "new", "empty", "lost", "foreign"]
"""State of a store: in use; being made by a gateway; not used by any gateway, or emptied; noted as having lost records;
made with a secret that the configuration does not name.
"""


class StoreStatus(NamedTuple):
    """The store as it is: where, its state, how many records it holds, and which of them cannot be read."""

    place: str
    state: StoreState
    records: int
    outlook: Outlook
    """What ends a loss of it."""
    now: float
    """When it was looked at, by this machine's clock."""
    exclusive: Sequence[str] = ()
    """Buckets whose creates all need a record unless the cloud shows whose jobs they are."""
    missing: Sequence[SecretUse] = ()
    """Secrets that are missing here with which records are made."""
    unreadable: Mapping[str, str] = MappingProxyType({})
    """Why records cannot be read, by their keys. Not looked at in a store that is not whole."""

    @property
    def kind(self) -> Kind:
        """The kind of its state."""
        if self.missing:
            return "foreign"
        if not self.state.generation:
            return "empty"
        if not self.state.lost_since:
            return "whole"
        return "new" if self.state.lost_since == MAKING else "lost"


class Reconciled(NamedTuple):
    """A bucket's report; None with the reason for which it could not be compared."""

    bucket: str
    report: Report | None
    problem: str = ""


class UnreadStoreError(StartError):
    """The store does not answer, or not as it should. `remedy` is what to do about that."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


async def store_status(settings: Settings) -> StoreStatus:
    """The state of the store. StartError when it cannot be read: UnreadStoreError if a remedy is known."""
    async with _store(settings) as (store, keys):
        found = await _status(settings, keys, await store.state())
        return found._replace(unreadable=(await store.survey()).unreadable) if found.kind == "whole" else found


async def accept_loss(settings: Settings) -> StoreStatus:
    """End a noted loss, whatever is missing; gateways that run notice it. The status before. StartError.

    So does the use of secrets that are not in the key file any more: what was recorded with them is lost.

    An emptied store whose loss no gateway has noted yet becomes a new one. Gateways compare it with what they know of
    it, and note the loss then: so let them run, and accept what they have noted.
    """
    async with _store(settings) as (store, keys):
        state = await store.state()
        before = await _status(settings, keys, state)
        if not state.generation:
            state = await store.begin_rebuild(MAKING)
        if before.missing:
            await store.drop_secrets([use.id for use in before.missing])
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
        if (status := await _status(settings, keys, await store.state())).kind != "whole":
            raise StartError(f"{status.place}: {words_of(status)}; reconcile when that is over")
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


def counted_callers(settings: Settings) -> list[str]:
    """Names of the callers with a page budget, sorted. StartError for a policy that is not valid."""
    if settings.policy.file is None:
        return [ANONYMOUS.name] if settings.limits.anonymous.budget is not None else []
    try:
        callers = load_directory(settings).callers
    except InvalidFileError as error:
        raise StartError(str(error)) from None
    return sorted(name for name, caller in callers.items() if caller.budget is not None)


def place_of(settings: Settings) -> str:
    """The store's file, or its server without passwords and the namespace."""
    state = settings.shared_state
    if url := state.ledger_url or state.url:
        return f"{shown(url.get_secret_value())}, namespace {state.namespace}"
    return str(settings.state_dir / STORE_FILE)


def reach_remedy(settings: Settings, error: BaseException) -> str:
    """What to do when the store cannot be read or does not answer, because of this error."""
    url = settings.shared_state.ledger_url or settings.shared_state.url
    if url is None:
        return FOLDER
    from docpreview_gateway.doctor.redis_faults import fault  # noqa: PLC0415 - redis takes 20 MiB

    return fault(error, url.get_secret_value())[1]


def made_by_gateways(settings: Settings) -> list[Path]:
    """The files without which there are no records: the first start of a gateway makes them."""
    state, folder = settings.shared_state, settings.state_dir
    needed = [folder / OWN_NAME] if settings.ledger.key_file is None else []
    return needed if state.ledger_url or state.url else [*needed, folder / STORE_FILE]


@asynccontextmanager
async def probe(settings: Settings) -> AsyncIterator[RedisProbe | None]:
    """Questions to the server of the store; None: it is a file."""
    state = settings.shared_state
    url = state.ledger_url or state.url
    if url is None:
        yield None
        return
    from docpreview_gateway.doctor.redis_probe import redis_probe  # noqa: PLC0415 - redis takes 20 MiB

    found = redis_probe(url.get_secret_value(), state.namespace or "", seconds=state.ledger_timeout_seconds)
    async with found as server:
        yield server


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[tuple[RedisCreates | SqliteCreates, CreateKeys]]:
    # None of them is made here: a gateway that starts with an empty folder has to notice that it is empty.
    for path in made_by_gateways(settings):
        if not path.exists():
            raise StartError(f"{path}: there is none; is state_dir that of the gateway, and has it been started?")
    try:
        async with AsyncExitStack() as stack:
            keys = CreateKeys(settings.shared_state.namespace or "", create_secrets(settings).secrets)
            yield (await create_store(settings, keys, stack)).store, keys
    except (StoreError, StartError) as error:
        if isinstance(error, StoreError) or isinstance(error.__cause__, StoreError):
            raise UnreadStoreError(str(error), reach_remedy(settings, error)) from error
        raise


async def _status(settings: Settings, keys: CreateKeys, state: StoreState) -> StoreStatus:
    async with probe(settings) as server:
        count = _count_rows(settings.state_dir / STORE_FILE) if server is None else await server.count()
    # The machine's clock will do for a person who reads it. A gateway goes by the cloud's.
    now = SystemClock().now()
    return StoreStatus(
        place_of(settings),
        state,
        count,
        outlook(settings),
        now,
        exclusive=[bucket.name for bucket in settings.buckets if bucket.exclusive],
        missing=secret_use.unknown(state.secrets, keys.ids, now, settings.ledger.timing().keep),
    )


def _count_rows(path: Path) -> int:
    """The number of records in a file. StoreError."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM creates").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
    return int(count)
