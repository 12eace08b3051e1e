"""A store of creates in memory: the plainest implementation of the port `CreateStore`, and faults on demand."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from docpreview_gateway.creates.pages import PageCount, Pages, Periods, refusing
from docpreview_gateway.creates.ports import (
    MAKING,
    Begun,
    Lease,
    SecretUse,
    StoreError,
    StoreLost,
    StoreState,
    Survey,
    UnknownSecret,
    UnreadableRecord,
)
from docpreview_gateway.creates.records import Held, State

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from docpreview_gateway.creates.ports import Change, Outcome
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.model.callers import PageBudget

Result = TypeVar("Result")


class Due(NamedTuple):
    record: Record
    look_at: float


@dataclass
class MemoryData:
    """What a store holds; connections of several replicas share it."""

    generation: str = "generation-1"
    seq: int = 0
    cloud_mark: float = 0.0
    lost_since: float = 0.0
    day: str = ""
    records: dict[str, Due] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    pages: dict[tuple[str, str], Held] = field(default_factory=dict)
    leases: dict[tuple[str, str, str], Lease] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    generations: int = 1
    secrets: dict[str, float] = field(default_factory=dict)

    def empty(self) -> None:
        """Lose everything, the generation too."""
        self.__dict__.update(MemoryData(generation="", generations=self.generations).__dict__)

    def add(self, caller: str, day: str, held: int, used: int) -> None:
        """Change the counters of a day and its month; those of no day are not kept."""
        for period in (day, day[:7]) if day else ():
            before = self.pages.get((caller, period), Held())
            self.pages[caller, period] = Held(before.held + held, before.used + used)

    def count(self, caller: str, periods: Periods) -> PageCount:
        found = (self.pages.get((caller, period), Held()) for period in periods)
        return PageCount(*(Pages(used=used, reserved=held) for held, used in found))

    def read(self, key: str) -> Record | None:
        if key in self.unreadable:
            raise UnreadableRecord(f"record {key}: its MAC does not match", key)
        found = self.records.get(key)
        return found.record if found else None

    def put(self, record: Record, look_at: float) -> None:
        """Insert or replace a record, and count its pages instead of those of the record before it."""
        self.take_out(record.key, forget_used=True)
        self.records[record.key] = Due(record, look_at)
        self.add(record.caller, record.day, *record.counts)

    def take_out(self, key: str, *, forget_used: bool) -> None:
        """Delete a record, if there is one. Used pages stay counted when a create is forgotten."""
        if key in self.records:
            old = self.records.pop(key).record
            held, used = old.counts
            self.add(old.caller, old.day, -held, -used if forget_used else 0)

    def take_place(self, record: Record) -> None:
        if record.place:
            self.places[record.place] = record.key

    def delete(self, key: str) -> None:
        self.take_out(key, forget_used=False)
        self.places = {place: its for place, its in self.places.items() if its != key}

    def state(self) -> StoreState:
        return StoreState(self.generation, self.seq, self.cloud_mark, self.lost_since, self.day, self.uses())

    def uses(self) -> tuple[SecretUse, ...]:
        return tuple(SecretUse(*each) for each in sorted(self.secrets.items()))


class MemoryCreates:
    """The port `CreateStore`.

    `fail_before` and `fail_after` are numbers of next calls that raise StoreError: before they do anything, or when
    all is done, as if the answer were lost. `failing` restricts them to methods of these names. `calls` counts calls.
    """

    def __init__(
        self,
        data: MemoryData | None = None,
        *,
        fail_before: int = 0,
        fail_after: int = 0,
        failing: Collection[str] = (),
        secrets: Sequence[str] = ("secret",),
    ) -> None:
        self.data = MemoryData() if data is None else data
        self.fail_before = fail_before
        self.fail_after = fail_after
        self.failing = failing
        self.secrets = secrets
        self.calls: Counter[str] = Counter()
        self._expected: StoreState | None = None
        self._seq = 0

    def beside(self) -> MemoryCreates:
        """The connection of another replica to the same store."""
        return MemoryCreates(self.data)

    def empty(self) -> None:
        """Lose everything, the generation too."""
        self.data.empty()

    async def state(self) -> StoreState:
        await self._enter("state", known=False)
        return self._leave("state", self.data.state(), expect=True)

    async def begin(
        self,
        record: Record,
        look_at: float,
        budget: PageBudget | None,
        *,
        dedupe_since: float | None,
        alone: bool = False,
    ) -> Begun:
        await self._enter("begin")
        data = self.data
        outcome, found = self._refused(record, budget, dedupe_since, alone=alone)
        if outcome == "new":
            found = record
            data.day = data.day or record.day
            data.put(record, look_at)
            data.take_place(record)
            data.seq += 1
        pages = data.count(record.caller, Periods(record.day, record.month))
        return self._leave("begin", Begun(outcome, found, pages, data.day))

    def _refused(
        self, record: Record, budget: PageBudget | None, dedupe_since: float | None, *, alone: bool
    ) -> tuple[Outcome, Record | None]:
        """The outcome of `begin`, `new` if nothing speaks against it, and the record that was found."""
        data = self.data
        known = data.read(record.key)
        if known is not None:
            return "known", known
        there = data.records.get(data.places.get(record.place, ""))
        if there is not None and dedupe_since is not None and _same(there.record, record, dedupe_since):
            return "duplicate", data.read(there.record.key)
        if there is not None and alone and there.record.state is State.OPEN:
            return "occupied", data.read(there.record.key)
        if not record.day:
            return "new", None
        if data.day and record.day != data.day:
            return "period", None
        count = data.count(record.caller, Periods(record.day, record.month))
        return (budget and refusing(record.asked, count, budget)) or "new", None

    async def change(self, changes: Sequence[Change]) -> list[bool]:
        await self._enter("change")
        for change in changes:
            self.data.read(_key(change))
        return self._leave("change", [self._changed(change) for change in changes])

    def _changed(self, change: Change) -> bool:
        data, new = self.data, change.new
        stored = data.read(_key(change))
        if not _matches(stored, change.old):
            return False
        if new is None:
            data.delete(_key(change))
        else:
            data.put(new, change.look_at)
            if new.state is State.OPEN:
                data.take_place(new)
        data.seq += 1
        return True

    async def find(self, keys: Sequence[str]) -> list[Record | None]:
        await self._enter("find")
        return self._leave("find", [self.data.read(key) for key in keys])

    async def due(self, now: float, until: float, count: int) -> list[Record]:
        await self._enter("due")
        rows = sorted((look_at, key) for key, (_, look_at) in self.data.records.items() if look_at <= now)
        keys = [key for _, key in rows[:count]]
        unreadable = [key for key in keys if key in self.data.unreadable]
        for key in unreadable or keys:
            self._postpone(key, until)
        return self._leave("due", [found for key in unreadable or keys if (found := self.data.read(key))])

    async def postpone(self, keys: Sequence[str], look_at: float) -> None:
        await self._enter("postpone")
        for key in keys:
            self._postpone(key, look_at)
        self._leave("postpone", None)

    def _postpone(self, key: str, look_at: float) -> None:
        if key in self.data.records:
            self.data.records[key] = self.data.records[key]._replace(look_at=look_at)
            self.data.seq += 1

    async def open_at(self, place: str) -> list[str]:
        await self._enter("open_at")
        records = (record for record, _ in self.data.records.values())
        found = [each.key for each in records if each.place == place and each.state is State.OPEN]
        return self._leave("open_at", found[:100])

    async def bound(self, bucket: str, job_ids: Sequence[str]) -> set[str]:
        await self._enter("bound")
        bound = {record.job_id for record, _ in self.data.records.values() if record.bucket == bucket}
        return self._leave("bound", bound.intersection(job_ids) - {""})

    async def accepted(self, bucket: str, begin: float, end: float, count: int) -> dict[str, float]:
        await self._enter("accepted")
        records = (record for record, _ in self.data.records.values())
        jobs = {each.job_id: each.created_at for each in records if each.bucket == bucket and each.created_at}
        inside = sorted((at, job_id) for job_id, at in jobs.items() if begin <= at <= end)
        return self._leave("accepted", {job_id: at for at, job_id in inside[:count]})

    async def count(self, caller: str, periods: Periods) -> PageCount:
        await self._enter("count")
        return self._leave("count", self.data.count(caller, periods))

    async def advance(self, old: str, new: str) -> str:
        await self._enter("advance")
        if self.data.day == old and new > old:
            self.data.day = new
            self.data.seq += 1
        return self._leave("advance", self.data.day)

    async def lease(self, lease: Lease, budget: PageBudget) -> Lease:
        await self._enter("lease")
        before = self._leased(lease)
        day, month = self.data.count(lease.caller, Periods(lease.day, lease.day[:7]))
        rooms = [
            limit - (sum(pages) - before)
            for limit, pages in ((budget.per_day, day), (budget.per_month, month))
            if limit is not None
        ]
        granted = lease._replace(pages=max(0, min([lease.pages, *rooms])))
        self._set_lease(granted)
        return self._leave("lease", granted)

    def _leased(self, lease: Lease) -> int:
        found = self.data.leases.get(lease[:3])
        return found.pages if found else 0

    def _set_lease(self, lease: Lease) -> None:
        """Replace the replica's lease; its pages count as held."""
        self.data.add(lease.caller, lease.day, lease.pages - self._leased(lease), 0)
        self.data.leases.pop(lease[:3], None)
        if lease.pages:
            self.data.leases[lease[:3]] = lease
        self.data.seq += 1

    async def leases(self) -> list[Lease]:
        await self._enter("leases")
        return self._leave("leases", list(self.data.leases.values()))

    async def hand_over(self, lease: Lease, records: Sequence[tuple[Record, float]]) -> None:
        await self._enter("hand_over")
        there = self.data.records
        spent = 0
        for record, _ in records:
            self.data.read(record.key)
        for record, look_at in records:
            if record.key not in there:
                self.data.put(record, look_at)
                spent += sum(record.counts)
                self.data.seq += 1
        left = self.data.leases.get(lease[:3])
        if left is not None and spent:
            self._set_lease(left._replace(pages=max(0, left.pages - spent)))
        self._leave("hand_over", None)

    async def survey(self) -> Survey:
        await self._enter("survey")
        found = Survey({}, {})
        for key, (record, _) in self.data.records.items():
            if key in self.data.unreadable:
                found.unreadable[key] = f"record {key}: its MAC does not match"
            else:
                found.add(record)
        return self._leave("survey", found)

    async def mark(self, cloud_mark: float) -> None:
        await self._enter("mark")
        self.data.cloud_mark = max(self.data.cloud_mark, cloud_mark)
        self.data.secrets[self.secrets[0]] = self.data.cloud_mark
        self.data.seq += 1
        self._leave("mark", None)

    async def begin_rebuild(self, now: float) -> StoreState:
        await self._enter("begin_rebuild", known=False)
        data = self.data
        is_new = not data.generation
        if is_new:
            data.generations += 1
            data.generation = f"generation-{data.generations}"
        if is_new or now != MAKING:
            data.lost_since = data.lost_since or now
            data.seq += 1
        return self._leave("begin_rebuild", data.state(), expect=True)

    async def end_rebuild(self, lost_since: float, cloud_mark: float, used: Sequence[tuple[str, str, int]]) -> bool:
        await self._enter("end_rebuild")
        ended = self.data.lost_since == lost_since != 0
        if ended:
            for caller, period, pages in used:
                before = self.data.pages.get((caller, period), Held())
                self.data.pages[caller, period] = before._replace(used=max(before.used, pages))
            self.data.lost_since = 0.0
            self.data.cloud_mark = max(self.data.cloud_mark, cloud_mark)
            self.data.seq += 1
        return self._leave("end_rebuild", ended)

    async def _enter(self, name: str, *, known: bool = True) -> None:
        self.calls[name] += 1
        self._seq = self.data.seq
        await asyncio.sleep(0)  # other callers take their turn, as they do during a round trip
        self._seq = self.data.seq
        if self.fail_before and self._may_fail(name):
            self.fail_before -= 1
            raise StoreError("out of order")
        if not known:
            return
        expected, data = self._expected, self.data
        if not data.generation or (
            expected is not None and (data.generation != expected.generation or data.seq < expected.seq)
        ):
            raise StoreLost("not the store that was known")
        seen = self.secrets if expected is None else [*self.secrets, *(use.id for use in expected.secrets)]
        if expected is not None and not set(data.secrets) <= set(seen):
            raise UnknownSecret("a secret that was not known")

    def _leave(self, name: str, result: Result, *, expect: bool = False) -> Result:
        if self.data.seq > self._seq:
            self.data.secrets.setdefault(self.secrets[0], self.data.cloud_mark)
        if self._expected is not None or expect:
            self._expected = self.data.state()
        if self.fail_after and self._may_fail(name):
            self.fail_after -= 1
            raise StoreError("the answer was lost")
        return result

    def _may_fail(self, name: str) -> bool:
        return not self.failing or name in self.failing


def _key(change: Change) -> str:
    record = change.old or change.new
    assert record is not None
    return record.key


def _matches(stored: Record | None, old: Record | None) -> bool:
    if stored is None or old is None:
        return stored is old
    return (stored.state, stored.nonce) == (old.state, old.nonce)


def _same(there: Record, record: Record, since: float) -> bool:
    """Whether a record of the same place answers another create."""
    return (
        there.render == record.render != ""
        and there.caller == record.caller
        and there.state is not State.OPEN
        and there.first_start >= since
    )
