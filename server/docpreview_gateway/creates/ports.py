"""Ports of creates: the store of records, telemetry and the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from docpreview_gateway.creates.records import Held
from docpreview_gateway.limits.ports import LimitsTelemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.creates.pages import CallerPages, PageCount, Periods
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.callers import PageBudget


class Creates(Protocol):
    """The create of a job."""

    async def create(self, request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        """Submit a job, or return an existing one in its place."""
        ...


class StoreError(Exception):
    """The store cannot be read or written, or holds a record that cannot be read (its key is in the text)."""

    def __init__(self, *args: object, wait: float = 1.0) -> None:
        super().__init__(*args)
        self.wait = wait
        """Seconds after which it may work again, at the earliest."""


class UnreadableRecord(StoreError):  # noqa: N818 - what was found
    """Records of these keys cannot be read; the store works."""

    def __init__(self, why: str, *keys: str) -> None:
        super().__init__(why)
        self.keys = keys


class StoreLost(StoreError):  # noqa: N818 - what happened
    """The store is not the one that this process knows: it was emptied, restored or replaced, or has lost changes."""


class UnknownSecret(StoreError):  # noqa: N818 - what was found
    """Records are made with a secret that this process does not have. Nothing was changed."""


Outcome = Literal["new", "known", "duplicate", "occupied", "day", "month", "period"]
"""What `begin` did: inserted the record; found one of its key; found one of its place with equal `render`; found an
OPEN one of its place; found too few pages left in the day or the month; found that the store counts for another day, to
which nothing was counted."""


class Begun(NamedTuple):
    """The result of `begin`: the record that was inserted or found, and the caller's pages of the store's day."""

    outcome: Outcome
    record: Record | None
    pages: PageCount
    day: str
    """The day to which the store counts; empty: it has counted nothing yet."""


@dataclass(frozen=True, slots=True)
class Change:
    """One record in place of another: nothing for a record to insert as `old`, or one to delete as `new`.

    It is made if the stored record has the state and the nonce of `old`; for an insert, if there is none.
    """

    old: Record | None
    new: Record | None
    look_at: float = 0.0
    """When `new` is due."""


class Lease(NamedTuple):
    """Pages of one caller and day that a replica may spend while it cannot reach the store."""

    replica: str
    caller: str
    day: str
    pages: int
    renewed_at: float
    """The cloud's time of the last renewal."""


class SecretUse(NamedTuple):
    """A secret with which records of a store were made."""

    id: str
    used_at: float
    """The cloud's time up to which its use was noted last; 0: not known."""


MAKING = 1.0
"""`StoreState.lost_since` of a store that is new and not ready yet: nothing is lost, so nobody has to wait."""


class StoreState(NamedTuple):
    """What tells one store from another."""

    generation: str
    """Random, made when the store was; another one means that the store was emptied or replaced."""
    seq: int
    """Raised by every change; a smaller one than before means that the store has lost changes."""
    cloud_mark: float
    """Cloud's time up to which the records are complete; 0: from the beginning."""
    lost_since: float
    """Cloud's time at which a loss was noticed that is not yet healed; 0: none."""
    day: str
    """The day to which pages are counted; empty: none yet."""
    secrets: tuple[SecretUse, ...] = ()
    """The secrets with which something was written: the first change that a process makes adds its current one."""


class Survey(NamedTuple):
    """What all records come to that can be read, and those that cannot."""

    counted: dict[tuple[str, str], Held]
    """Pages that records count, by caller and day."""
    unreadable: dict[str, str]
    """Why records cannot be read, by their keys."""

    def add(self, record: Record) -> None:
        """Add the pages of a record."""
        if record.day:
            before, counts = self.counted.get((record.caller, record.day), Held()), record.counts
            held = Held(before.held + counts.held, before.used + counts.used)
            self.counted[record.caller, record.day] = held


class CreateStore(Protocol):
    """Durable records of creates, callers' pages and leases of pages.

    Each method is atomic and one round trip; what it changes is on disk when it returns, as far as the server's
    settings go. StoreError from every one; StoreLost when the store's generation is not that of `state`, or its `seq`
    went back: nothing was changed then. UnknownSecret when something was written with a secret that is none of this
    process's, and that the last `state` did not have.

    A record's pages (`Record.counts`) are added to its caller's day and month when it is inserted, and follow each
    change; a deleted record gives back the held ones, while used ones stay counted. The key of the record that was last
    begun or reopened at a place is the place's; it is cleared when that record is deleted.

    A record that cannot be read (a bad MAC, or another key's record) fails each call that meets it, with its key in the
    text; it is never replaced or deleted.
    """

    async def state(self) -> StoreState:
        """The present state, read from the store. From now on its generation is expected, and `seq` may only rise."""
        ...

    async def begin(
        self,
        record: Record,
        look_at: float,
        budget: PageBudget | None,
        *,
        dedupe_since: float | None,
        alone: bool = False,
    ) -> Begun:
        """Insert an OPEN record, unless one of these holds. The first one counts.

        - there is one of its key: `known`, that record;
        - `dedupe_since` is a time, and the record of its place has an equal `render` that is not empty, the same
          caller, is ACCEPTED or CHARGED and has a `first_start` of at least `dedupe_since`: `duplicate`, that record;
        - `alone` and the record of its place is OPEN: `occupied`, that record;
        - `record.day` is not empty and not the store's day: `period` (a store without a day takes the record's);
        - `budget` has too few pages left, held and used ones and leases counted: `month`, or else `day`.

        The inserted record is due at `look_at`. `pages` are those after it, of `record.day` and its month.
        """
        ...

    async def change(self, changes: Sequence[Change]) -> list[bool]:
        """Make up to 100 changes, each if its condition holds; which were made."""
        ...

    async def find(self, keys: Sequence[str]) -> list[Record | None]:
        """The records of these keys, None where there is none."""
        ...

    async def due(self, now: float, until: float, count: int) -> list[Record]:
        """Up to `count` records that are due at `now`, the longest due first. They are due again at `until`.

        When one of them cannot be read, StoreError: that one is due again at `until`, the others still at once.
        """
        ...

    async def postpone(self, keys: Sequence[str], look_at: float) -> None:
        """Set when these records are due next; those that are gone are left out."""
        ...

    async def open_at(self, place: str) -> list[str]:
        """Keys of the OPEN records of a place, up to 100."""
        ...

    async def bound(self, bucket: str, job_ids: Sequence[str]) -> set[str]:
        """Those of the jobs that belong to a record."""
        ...

    async def accepted(self, bucket: str, begin: float, end: float, count: int) -> dict[str, float]:
        """Up to `count` jobs of records that the cloud created from `begin` to `end`, and when; the oldest ones."""
        ...

    async def count(self, caller: str, periods: Periods) -> PageCount:
        """A caller's pages in these periods."""
        ...

    async def advance(self, old: str, new: str) -> str:
        """Count to the day `new` if the store counts to `old` and `new` is later; the day that it counts to then."""
        ...

    async def lease(self, lease: Lease, budget: PageBudget) -> Lease:
        """Set the replica's lease for this caller and day to `lease.pages`, as far as the budget has room.

        The pages of the lease count as held, and `count` has them in `reserved`. Returns what was leased; 0 pages
        delete the lease.
        """
        ...

    async def leases(self) -> list[Lease]:
        """All leases."""
        ...

    async def hand_over(self, lease: Lease, records: Sequence[tuple[Record, float]]) -> None:
        """Insert records that were paid from a lease, each unless its key is there, with the time when it is due.

        The lease is reduced by the pages of the inserted ones; pages beyond it are counted all the same.
        """
        ...

    async def survey(self) -> Survey:
        """Read all records, some at a time: changes that are made meanwhile may or may not be in it."""
        ...

    async def mark(self, cloud_mark: float) -> None:
        """The records are complete up to this cloud's time, and this process's secret is in use. It never goes back."""
        ...

    async def begin_rebuild(self, now: float) -> StoreState:
        """Note that the store has lost something at `now`, unless that is noted, and expect its generation from now on.

        A store without generation gets a new one; until then every call but `state` and this one is StoreLost. With
        MAKING for `now` that is all: a store that has one, which another replica may just have made, stays as it is.
        """
        ...

    async def end_rebuild(self, lost_since: float, cloud_mark: float, used: Sequence[tuple[str, str, int]]) -> bool:
        """End the rebuild that began at `lost_since`: `used` are callers, periods and pages, which raise the counts.

        False when another replica ended it.
        """
        ...


class AuditLog(Protocol):
    """The audit log of creates."""

    def create_ended(self, request: CreatePreviewJobRequest, call: Call, outcome: str, job_id: str) -> None:
        """A create ended. `outcome` is OK or the name of its error's reason; `job_id` is empty when there is no job."""
        ...


class CallbackTrust(Protocol):
    """Knows whether the ends of jobs are called back."""

    def works(self, bucket: str, queue_id: str) -> bool:
        """Whether callbacks of the queue's jobs come, so that looks at them may be rare."""
        ...


class Webhooks(Protocol):
    """Tells targets of the policy of the ends of jobs."""

    async def promise(self, caller: str, target: str, job: PreviewJob) -> None:
        """Keep that the target is to be told of the job's end, unless that is kept. StoreError."""
        ...


class CreatesTelemetry(LimitsTelemetry, Protocol):
    """Records what becomes of creates, and callers' pages."""

    def measure_store(self, *, is_failing: Callable[[], bool], is_lost: Callable[[], bool]) -> None:
        """Set how to find out whether creates cannot be recorded, and whether the store has lost records."""
        ...

    def store_health(self, failing: Mapping[str, bool], evicted_keys: int) -> None:
        """Records each check of the server of the store, whether it fails, and how many keys the server has evicted."""
        ...

    def list_lag(self, bucket: str, seconds: float) -> None:
        """Records for how long a list has lacked the oldest accepted job that it should show; 0: it lacks none."""
        ...

    def leased(self, caller: str, pages: int) -> None:
        """Records the pages that a caller may still spend while the store cannot be reached."""
        ...

    def ledger(
        self,
        event: Literal[
            "accepted",
            "replayed",
            "rejected",
            "released",
            "unknown",
            "found",
            "duplicate",
            "absent",
            "ambiguous",
            "orphan",
            "rebuilt",
        ],
    ) -> None:
        """Records a stage of a recorded create, the outcome of a look for its job, or the end of a rebuild."""
        ...

    def unreconciled(self, count: int, oldest_sent_at: float | None, now: float) -> None:
        """Records the unknown creates at the beginning of a round; times are the cloud's."""
        ...

    def reconciled(self, bucket: str, findings: Mapping[str, int], now: float) -> None:
        """Records a reconciliation of a bucket with the cloud: number of findings by kind, and the cloud's time."""
        ...

    def deduped(self, caller: str) -> None:
        """Records a create of a caller that was answered with an existing job."""
        ...

    def pages(self, found: Sequence[CallerPages]) -> None:
        """Records the pages of all callers that are counted, in place of the last ones; none: they are not known."""
        ...
