"""The store, guarded against its own loss: emptied, restored from a backup, replaced, or behind after a failover.

A store that has lost records would let a repeated id make a second job, and spend budgets again. So what this process
knew of it is compared at the start and with every call. After a loss, creates that need a record are refused until a
scan of the cloud's lists has found what is missing (`creates/rebuild.py`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from docpreview_gateway.creates.ports import MAKING, StoreError, StoreLost, UnknownSecret, UnreadableRecord
from docpreview_gateway.creates.store_memory import Remembered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from docpreview_gateway.creates.pages import PageCount, Periods
    from docpreview_gateway.creates.ports import Begun, Change, CreateStore, Lease, StoreState, Survey
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.creates.store_memory import StoreMemory
    from docpreview_gateway.model.callers import PageBudget
    from docpreview_gateway.upstream.cloud_clock import CloudTimes

Result = TypeVar("Result")

LOST = "the store of creates has lost records"

OVERDUE_SECONDS = 60.0
"""After how long callers try again, at most, when the rebuild of a lost store is overdue: nobody knows its end."""

MARK_SECONDS = 60.0
"""Interval of notes up to when the store is complete."""

SECRETS_SECONDS = 30.0
"""After how long callers try again while this process lacks a secret of the store."""

MARK_BEFORE_SECONDS = 300.0
"""How long before the cloud's time such a note is: a create that was begun earlier has long been recorded."""

log = structlog.get_logger("docpreview_gateway.creates")


class GuardedStore:
    """The port `CreateStore` around another one. `is_first_start` says whether an empty store is a new one.

    `prepare` is done before the store is used for the first time. StoreError as long as it cannot be done.
    `place` is the file or the server of the store, for what operators read. `missing_secrets` says why the store cannot
    be used by this process, whose secrets are not those that its records are made with; empty: it can. `outlook` says
    when a loss ends that was noticed so many seconds ago.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        store: CreateStore,
        memory: StoreMemory,
        times: CloudTimes,
        *,
        is_first_start: Callable[[], Awaitable[bool]],
        prepare: Callable[[], Awaitable[None]] | None = None,
        place: str = "",
        missing_secrets: Callable[[StoreState], str] = lambda _: "",
        outlook: Callable[[float], str] = lambda _: "they are read back from the cloud's lists",
    ) -> None:
        self.store = store
        self._memory = memory
        self._times = times
        self._is_first_start = is_first_start
        self._prepare = prepare
        self._missing_secrets = missing_secrets
        self._outlook = outlook
        self._opening = asyncio.Lock()
        self._is_open = False
        self._place = place
        self._failure = ""
        self._told = ""
        self._marked_at: float | None = None
        self.unreadable: dict[str, str] = {}
        """Why records could not be read, by their keys, when they were last met."""
        self.unsafe = ""
        """Why creates with `request_id` are refused although the store works; empty: they are not."""
        self.losses = 0
        """How many losses this process has noted or joined."""
        self.lost: StoreState | None = None
        """The state in which the store was when its loss was noticed; None: nothing is lost."""
        self.lost_at = 0.0
        """When this process noticed (of `CloudTimes.elapsed`)."""
        self.quarantine = 0.0
        """Seconds from a loss to the earliest end of its rebuild; set by what rebuilds the store."""

    @property
    def problem(self) -> str:
        """Why creates cannot be recorded now, with the file or the server; empty: they can."""
        why = self._failure or self.unsafe
        if self.lost is not None:
            why = f"{LOST}: {self._outlook(self._times.elapsed() - self.lost_at)}"
        # Errors of a file name it, those of a server the setting with its address.
        why = why.removeprefix("shared_state: ")
        return f"{self._place}: {why}" if why and self._place and not why.startswith(self._place) else why

    @property
    def damage(self) -> str:
        """Which records cannot be read, with the file or the server; empty: none, as far as is known."""
        if not self.unreadable:
            return ""
        some = ", ".join(list(self.unreadable)[:3])
        return f"{self._place}: {len(self.unreadable)} records cannot be read ({some}): their creates are refused"

    async def open(self) -> None:
        """Compare the store with what is known of it. StoreError when it cannot be read, or has lost something."""
        async with self._opening:
            if self._is_open:
                return
            state = self._checked(await self.store.state())
            if self._prepare is not None:
                await self._prepare()
                state = await self.store.state()
            state, is_same = await self._compared(state)
            if state.lost_since == MAKING and is_same:
                # Another replica was making it, and may have been killed.
                state = await self._end_making()
            if state.lost_since or not is_same:
                await self._lose()
                raise StoreLost(LOST)
            if not state.generation:
                await self.store.begin_rebuild(MAKING)
                state = await self._end_making()
            self._remember(state)
            self._is_open = True

    def _checked(self, state: StoreState) -> StoreState:
        """The state, if this process has the store's secrets. StoreError: it must neither read nor change it."""
        if why := self._missing_secrets(state):
            self._is_open = False
            raise StoreError(why, wait=SECRETS_SECONDS)
        return state

    async def _compared(self, state: StoreState) -> tuple[StoreState, bool]:
        """The state, or a later one, and whether it is of the store that is known, or of a new one. StoreError."""
        known = self._memory.value
        if known.generation:
            return state, state.generation == known.generation and state.seq >= known.seq
        if _is_in_use(state) and state.lost_since != MAKING:
            return state, True
        is_first = await self._is_first_start()
        # Another replica may have begun to use a new store meanwhile.
        state = await self.store.state()
        return state, is_first or _is_in_use(state)

    async def reopen(self) -> None:
        """The rebuild is over: the store is whole again. StoreLost if it is not the one that was rebuilt."""
        state = self._checked(await self.store.state())
        if self.lost is None or state.generation != self.lost.generation:
            raise StoreLost("the store of creates was lost again while it was being rebuilt")
        self.lost = None
        self._remember(state)
        self._is_open = True
        self._succeeded()

    async def lose_again(self) -> None:
        """The store was lost once more while it was rebuilt: another quarantine begins. StoreError: it is not noted."""
        await self._lose()

    async def note_loss(self, why: str) -> None:
        """Take the store as having lost changes: something else than the store says so. StoreError: not noted."""
        if self.lost is None:
            log.error("the store of creates may have lost changes", why=why)
            await self._lose()

    async def check(self) -> StoreState:
        """Note how far the store is; to be repeated now and then. StoreError."""
        known, state = await self._ask(self._state())
        if state.lost_since or state.generation != known.generation or state.seq < known.seq:
            if self.lost is None:
                await self._lose()
            raise StoreLost("the store of creates has lost records")
        self._remember(state)
        return state

    async def _state(self) -> tuple[Remembered, StoreState]:
        """What was known before, and the state: the answers to calls that overlap come in any order."""
        known = self._memory.value
        return known, self._checked(await self.store.state())

    def refuse(self, why: str) -> None:
        """Have creates with `request_id` refused, or with an empty text no more."""
        self.unsafe = why
        self._tell()

    async def look(self) -> None:
        """Check the store, and note up to when it is complete. `problem` tells a failure, and the next call does.

        The note is also the write that shows, while no creates are made, whether they could be recorded.
        """
        if self.lost is not None:
            return
        with suppress(StoreError):
            await self.check()
            now = self._times.elapsed()
            if self._failure or self._marked_at is None or now - self._marked_at > MARK_SECONDS:
                # What was begun before is in the store: a scan after a loss need not go further back.
                await self.mark((self._times.latest() or 0.0) - MARK_BEFORE_SECONDS)
                self._marked_at = now
                await self.check()

    async def state(self) -> StoreState:
        """As the port says."""
        return await self.check()

    async def begin(
        self,
        record: Record,
        look_at: float,
        budget: PageBudget | None,
        *,
        dedupe_since: float | None,
        alone: bool = False,
    ) -> Begun:
        """As the port says."""
        begun = await self._ask(self.store.begin(record, look_at, budget, dedupe_since=dedupe_since, alone=alone))
        if begun.outcome == "new":
            self._succeeded()
        self._was_read(record.key, *([begun.record.key] if begun.record is not None else []))
        return begun

    async def change(self, changes: Sequence[Change]) -> list[bool]:
        """As the port says."""
        made = await self._ask(self.store.change(changes))
        if any(made):
            self._succeeded()
        return made

    async def find(self, keys: Sequence[str]) -> list[Record | None]:
        """As the port says."""
        found = await self._ask(self.store.find(keys))
        self._was_read(*keys)
        return found

    async def due(self, now: float, until: float, count: int) -> list[Record]:
        """As the port says."""
        found = await self._ask(self.store.due(now, until, count))
        self._was_read(*(record.key for record in found))
        return found

    async def postpone(self, keys: Sequence[str], look_at: float) -> None:
        """As the port says."""
        await self._ask(self.store.postpone(keys, look_at))

    async def open_at(self, place: str) -> list[str]:
        """As the port says."""
        return await self._ask(self.store.open_at(place))

    async def bound(self, bucket: str, job_ids: Sequence[str]) -> set[str]:
        """As the port says."""
        return await self._ask(self.store.bound(bucket, job_ids))

    async def accepted(self, bucket: str, begin: float, end: float, count: int) -> dict[str, float]:
        """As the port says."""
        return await self._ask(self.store.accepted(bucket, begin, end, count))

    async def count(self, caller: str, periods: Periods) -> PageCount:
        """As the port says."""
        return await self._ask(self.store.count(caller, periods))

    async def advance(self, old: str, new: str) -> str:
        """As the port says."""
        return await self._ask(self.store.advance(old, new))

    async def lease(self, lease: Lease, budget: PageBudget) -> Lease:
        """As the port says."""
        return await self._ask(self.store.lease(lease, budget))

    async def leases(self) -> list[Lease]:
        """As the port says."""
        return await self._ask(self.store.leases())

    async def hand_over(self, lease: Lease, records: Sequence[tuple[Record, float]]) -> None:
        """As the port says."""
        await self._ask(self.store.hand_over(lease, records))

    async def survey(self) -> Survey:
        """As the port says. Records that cannot be read are in `unreadable` until the next one."""
        found = await self._ask(self.store.survey())
        self.unreadable = found.unreadable
        return found

    async def mark(self, cloud_mark: float) -> None:
        """As the port says."""
        await self._ask(self.store.mark(max(0.0, cloud_mark)))
        self._succeeded()

    async def begin_rebuild(self, now: float) -> StoreState:
        """As the port says."""
        return await self.store.begin_rebuild(now)

    async def end_rebuild(self, lost_since: float, cloud_mark: float, used: Sequence[tuple[str, str, int]]) -> bool:
        """As the port says."""
        return await self.store.end_rebuild(lost_since, cloud_mark, used)

    async def _ask(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            await self._check_open()
            return await work
        except StoreLost as error:
            if self.lost is None:
                await self._lose()
            raise self._closed() from error
        except UnreadableRecord as error:
            self.unreadable = {**self.unreadable, **dict.fromkeys(error.keys, str(error))}
            log.error("a record of a create cannot be read", why=str(error), place=self._place)  # noqa: TRY400 - no trace
            raise
        except StoreError as error:
            if isinstance(error, UnknownSecret):
                # The next call compares the secrets anew.
                self._is_open = False
            if self.lost is None:
                self._failed(str(error))
            raise
        finally:
            work.close()

    def _was_read(self, *keys: str) -> None:
        """These records can be read, or are gone: somebody has repaired the store."""
        for key in self.unreadable.keys() & set(keys) if self.unreadable else ():
            del self.unreadable[key]
            log.info("a record of a create can be read again", key=key, place=self._place)

    def _failed(self, why: str) -> None:
        """Creates cannot be recorded. Told once, until they can again: each of them meets it."""
        self._failure = why
        self._tell()

    def _succeeded(self) -> None:
        """Something was written. That something could be read says nothing of a full disk, or of a full server."""
        if self._failure or self._told:
            self._failure = ""
            self._tell()

    def _tell(self) -> None:
        problem = self.problem
        if bool(problem) == bool(self._told):
            return
        self._told = problem
        if problem:
            log.error("creates cannot be recorded", why=problem)
        else:
            log.info("creates can be recorded again", place=self._place)

    async def _check_open(self) -> None:
        if self.lost is not None:
            raise self._closed()
        if not self._is_open:
            await self.open()

    def _closed(self) -> StoreError:
        left = self.lost_at + self.quarantine - self._times.elapsed()
        return StoreError(self.problem, wait=max(1.0, left, min(-left, OVERDUE_SECONDS)))

    async def _lose(self) -> None:
        """The store has lost something: begin a rebuild, or join the one that another replica began."""
        self._is_open = False
        # 0 would mean that nothing is lost, and 1 is MAKING.
        state = await self.store.begin_rebuild(self._times.latest() or 2.0)
        self.lost = state
        self.lost_at = self._times.elapsed()
        self.losses += 1
        log.error(
            "the store of creates has lost records: creates with request_id are refused until it is rebuilt",
            place=self._place,
            generation=self.lost.generation,
        )
        self._tell()

    async def _end_making(self) -> StoreState:
        """The state of an empty store that is new, and has a generation now."""
        await self.store.end_rebuild(MAKING, 0.0, [])
        return await self.store.state()

    def _remember(self, state: StoreState) -> None:
        known = self._memory.value
        seq = max(state.seq, known.seq) if state.generation == known.generation else state.seq
        self._memory.keep(Remembered(state.generation, seq))


def _is_in_use(state: StoreState) -> bool:
    """Whether the store has a generation, and has been changed since it got one."""
    return bool(state.generation) and state.seq > 0
