"""The store, guarded against its own loss: emptied, restored from a backup, replaced, or behind after a failover.

A store that has lost records would let a repeated id make a second job, and spend budgets again. So what this process
knew of it is compared at the start and with every call. After a loss, creates that need a record are refused until a
scan of the cloud's lists has found what is missing (`creates/rebuild.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import structlog

from docpreview_gateway.creates.ports import StoreError, StoreLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    from docpreview_gateway.creates.pages import PageCount, Periods
    from docpreview_gateway.creates.ports import Begun, Change, CreateStore, Lease, StoreState
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.model.callers import PageBudget
    from docpreview_gateway.upstream.cloud_clock import CloudTimes

Result = TypeVar("Result")

log = structlog.get_logger("docpreview_gateway.creates")


class Remembered(NamedTuple):
    """What a process knew of the store, kept outside of it."""

    generation: str = ""
    seq: int = 0


class StoreMemory:
    """Keeps `Remembered` in a file, so that a restart does not forget it. None: in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.value = self._read()

    def keep(self, value: Remembered) -> None:
        """Remember this. A file that cannot be written is told once a change: what is in memory still counts."""
        self.value = value
        if self._path is None:
            return
        try:
            new = self._path.with_suffix(".new")
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(value._asdict(), file)
            new.replace(self._path)
        except OSError as error:
            log.warning("what is known of the store of creates cannot be kept", path=str(self._path), error=str(error))

    def _read(self) -> Remembered:
        if self._path is None or not self._path.exists():
            return Remembered()
        try:
            found = json.loads(self._path.read_text())
            return Remembered(str(found["generation"]), int(found["seq"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("what was known of the store of creates cannot be read", path=str(self._path), error=str(error))
            return Remembered()


class GuardedStore:
    """The port `CreateStore` around another one. `is_first_start` says whether an empty store is a new one.

    `prepare` is done before the store is used for the first time. StoreError as long as it cannot be done.
    """

    def __init__(
        self,
        store: CreateStore,
        memory: StoreMemory,
        times: CloudTimes,
        *,
        is_first_start: Callable[[], Awaitable[bool]],
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.store = store
        self._memory = memory
        self._times = times
        self._is_first_start = is_first_start
        self._prepare = prepare
        self._opening = asyncio.Lock()
        self._is_open = False
        self.problem = ""
        """Why the last call failed; empty: it did not."""
        self.lost: StoreState | None = None
        """The state in which the store was when its loss was noticed; None: nothing is lost."""
        self.lost_at = 0.0
        """When this process noticed (of `CloudTimes.elapsed`)."""

    async def open(self) -> None:
        """Compare the store with what is known of it. StoreError when it cannot be read, or has lost something."""
        async with self._opening:
            if self._is_open:
                return
            if self._prepare is not None:
                await self._prepare()
            state, known = await self.store.state(), self._memory.value
            if known.generation:
                is_same = state.generation == known.generation and state.seq >= known.seq
            elif _is_in_use(state) or await self._is_first_start():
                is_same = True
            else:
                # Another replica may have begun to use a new store meanwhile.
                state = await self.store.state()
                is_same = _is_in_use(state)
            if state.lost_since or not is_same:
                await self._lose()
                raise StoreLost("the store of creates has lost records, and is being rebuilt")
            if not state.generation:
                state = await self._made()
            self._remember(state)
            self._is_open = True

    async def reopen(self) -> None:
        """The rebuild is over: the store is whole again. StoreLost if it is not the one that was rebuilt."""
        state = await self.store.state()
        if self.lost is None or state.generation != self.lost.generation:
            raise StoreLost("the store of creates was lost again while it was being rebuilt")
        self.lost = None
        self._remember(state)
        self._is_open = True

    async def lose_again(self) -> None:
        """The store was lost while it was being rebuilt: begin anew, with another quarantine. StoreError."""
        await self._lose()

    async def check(self) -> StoreState:
        """Note how far the store is; to be repeated now and then. StoreError."""
        state = await self._ask(self.store.state())
        known = self._memory.value
        if state.lost_since or state.generation != known.generation or state.seq < known.seq:
            await self._lose()
            raise StoreLost("the store of creates has lost records")
        self._remember(state)
        return state

    async def look(self) -> None:
        """`check`, whose failure is told by `problem` and by the next call."""
        if self.lost is None:
            with suppress(StoreError):
                await self.check()

    async def state(self) -> StoreState:
        """As the port says."""
        return await self.check()

    async def begin(
        self, record: Record, look_at: float, budget: PageBudget | None, *, dedupe_since: float | None
    ) -> Begun:
        """As the port says."""
        return await self._ask(self.store.begin(record, look_at, budget, dedupe_since=dedupe_since))

    async def change(self, changes: Sequence[Change]) -> list[bool]:
        """As the port says."""
        return await self._ask(self.store.change(changes))

    async def find(self, keys: Sequence[str]) -> list[Record | None]:
        """As the port says."""
        return await self._ask(self.store.find(keys))

    async def due(self, now: float, until: float, count: int) -> list[Record]:
        """As the port says."""
        return await self._ask(self.store.due(now, until, count))

    async def postpone(self, keys: Sequence[str], look_at: float) -> None:
        """As the port says."""
        await self._ask(self.store.postpone(keys, look_at))

    async def open_at(self, place: str) -> list[str]:
        """As the port says."""
        return await self._ask(self.store.open_at(place))

    async def bound(self, bucket: str, job_ids: Sequence[str]) -> set[str]:
        """As the port says."""
        return await self._ask(self.store.bound(bucket, job_ids))

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

    async def mark(self, cloud_mark: float) -> None:
        """As the port says."""
        await self._ask(self.store.mark(cloud_mark))

    async def begin_rebuild(self, now: float) -> StoreState:
        """As the port says."""
        return await self.store.begin_rebuild(now)

    async def end_rebuild(self, lost_since: float, cloud_mark: float, used: Sequence[tuple[str, str, int]]) -> bool:
        """As the port says."""
        return await self.store.end_rebuild(lost_since, cloud_mark, used)

    async def _ask(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            await self._check_open()
            result = await work
        except StoreLost as error:
            self.problem = str(error)
            if self.lost is None:
                await self._lose()
            raise StoreError(str(error)) from error
        except StoreError as error:
            self.problem = str(error)
            raise
        finally:
            work.close()
        self.problem = ""
        return result

    async def _check_open(self) -> None:
        if self.lost is not None:
            raise StoreError("the store of creates has lost records, and is being rebuilt")
        if not self._is_open:
            await self.open()

    async def _lose(self) -> None:
        """The store has lost something: begin a rebuild, or join the one that another replica began."""
        self._is_open = False
        # 0 would mean that nothing is lost.
        self.lost = await self.store.begin_rebuild(self._times.latest() or 1.0)
        self.lost_at = self._times.elapsed()
        log.error(
            "the store of creates has lost records: creates with request_id are refused until it is rebuilt",
            generation=self.lost.generation,
        )

    async def _made(self) -> StoreState:
        """The state of an empty store that is new: it has a generation now."""
        begun = await self.store.begin_rebuild(self._times.latest() or 1.0)
        await self.store.end_rebuild(begun.lost_since, 0.0, [])
        return await self.store.state()

    def _remember(self, state: StoreState) -> None:
        self._memory.keep(Remembered(state.generation, state.seq))


def _is_in_use(state: StoreState) -> bool:
    """Whether the store has a generation, and has been changed since it got one."""
    return bool(state.generation) and state.seq > 0
