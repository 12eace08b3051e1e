"""Rebuilding a store that has lost records, from the cloud's lists: every job carries the marker of its create.

First a quarantine: what was sent before the loss may still arrive and be listed. Then a scan takes every marker that no
record knows, with the pages that its job made.
"""

from __future__ import annotations

import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

from docpreview_gateway.creates import pages
from docpreview_gateway.creates.days import day_of
from docpreview_gateway.creates.evidence import has_valid_marker
from docpreview_gateway.creates.keys import is_unrecorded, new_nonce, of_marker
from docpreview_gateway.creates.ports import Change, StoreError, StoreLost
from docpreview_gateway.creates.records import Record, State
from docpreview_gateway.model.callers import PageBudget
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.wire.refusals import is_transient
from docpreview_gateway.upstream.wire.user_data import read_marker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from docpreview_gateway.creates.evidence import Listed
    from docpreview_gateway.creates.guarded import GuardedStore
    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.lists import JobHistory
    from docpreview_gateway.creates.ports import CreatesTelemetry, CreateStore, StoreState
    from docpreview_gateway.creates.records import Timing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.upstream.cloud_clock import CloudTimes

log = structlog.get_logger("docpreview_gateway.creates")

MONTH_SECONDS = 31 * 86400.0
MARGIN_SECONDS = 2 * 86400.0
CHUNK = 100

TELL_SECONDS = 60.0
"""Between two log lines that say why a rebuild does not end."""

OnLoss = Literal["rebuild", "refuse", "accept"]
"""After a loss: rebuild the store; refuse creates with `request_id` until this is changed; go on with what is there."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan of a bucket's list found."""

    complete: bool
    is_blind: bool
    """There are jobs, and none has user data, here or lately: a cloud without echo of user data shows none of ours."""
    orphans: tuple[Record, ...]
    """Records made of markers that no record knew; they are inserted already."""


class Scans:
    """Scans buckets for markers that no record knows. `caller_names` are those of the policy, which tags stand for."""

    def __init__(
        self,
        history: JobHistory,
        keys: CreateKeys,
        times: CloudTimes,
        *,
        timing: Timing,
        caller_names: Callable[[], Iterable[str]],
    ) -> None:
        self._times = times
        self._history = history
        self._keys = keys
        self._timing = timing
        self._caller_names = caller_names

    async def scan(self, bucket: Bucket, store: CreateStore, begin: float, end: float) -> Scan:
        """Insert a record for each marker of the time span that has none. GatewayError, StoreError."""
        listing = await self._history.read(bucket, begin, end)
        marked = [each for each in listing.jobs if has_valid_marker(each, self._keys)]
        records = self._records(marked)
        orphans: list[Record] = []
        for at in range(0, len(records), CHUNK):
            part = records[at : at + CHUNK]
            made = await store.change([Change(None, record, self._look_at(record)) for record in part])
            orphans += [record for record, new in zip(part, made, strict=True) if new]
        shows_texts = any(each.marker or each.job.user_data for each in listing.jobs)
        is_blind = bool(listing.jobs) and not shows_texts and not self._history.echoes(bucket)
        return Scan(listing.complete, is_blind, tuple(orphans))

    def echoes(self, bucket: Bucket) -> bool:
        """Whether a list of the last hour proves that the bucket's host shows user data."""
        return self._history.echoes(bucket)

    async def span(self, bucket: Bucket, seconds: float) -> tuple[float, float]:
        """The last `seconds` by the cloud's time, and two days on each side, as a `Date` may be wrong. GatewayError."""
        now = await self.now(bucket)
        return now - seconds - MARGIN_SECONDS, now + MARGIN_SECONDS

    async def now(self, bucket: Bucket) -> float:
        """The cloud's time, by a fresh `Date`: a list by our own clock would miss what was made last. GatewayError."""
        await self._history.hear(bucket)
        return self._times.now(bucket.ci_host)

    async def shows_markers(self, bucket: Bucket, since: float, now: float) -> bool:
        """Whether the bucket's list has a job that this deployment has recorded. GatewayError."""
        listing = await self._history.read(bucket, since, now)
        ours = (read_marker(each.marker) for each in listing.jobs if has_valid_marker(each, self._keys))
        return any(marker is not None and not is_unrecorded(marker) for marker in ours)

    def _records(self, marked: Sequence[Listed]) -> list[Record]:
        """The record of each key, by its earliest job."""
        tags = {tag: name for name in self._caller_names() for tag in self._keys.caller_tags(name)}
        found: dict[str, Record] = {}
        for each in marked:
            marker, job = read_marker(each.marker), each.job
            if marker is None or marker.key in found or is_unrecorded(marker):
                continue
            created, caller = float(job.create_time.seconds), tags.get(marker.caller, "")
            made = pages.made(job)
            record = Record(
                key=marker.key,
                body=of_marker(marker),
                kid=self._keys.secret_of(marker),
                caller=caller,
                bucket=job.bucket,
                request=b"",
                place="",
                render="",
                keep=self._timing.keep,
                day=day_of(created) if caller else "",
                asked=PageBudget().asked(job.options),
                nonce=new_nonce(),
                sign_start=created,
                sign_end=created,
                first_start=created,
            ).accepted(job, created)
            found[marker.key] = record.charged(made) if made is not None else record
        return list(found.values())

    @staticmethod
    def _look_at(record: Record) -> float:
        return record.expires_at if record.state is State.CHARGED else record.sign_start + 2


class Rebuild:
    """Ends the loss of a store. One loop per process calls `round` at intervals."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        store: GuardedStore,
        scans: Scans,
        buckets: Sequence[Bucket],
        times: CloudTimes,
        *,
        timing: Timing,
        lease_seconds: float,
        on_loss: OnLoss,
        telemetry: CreatesTelemetry,
    ) -> None:
        self._store = store
        self._scans = scans
        self._buckets = buckets
        self._times = times
        self._timing = timing
        # What another replica pays from a lease of the lost store is sent within its term, and then fenced as all is.
        self._quarantine = timing.watch + lease_seconds
        store.quarantine = self._quarantine if on_loss == "rebuild" else 0.0
        self._on_loss = on_loss
        self._telemetry = telemetry
        self._told_at = -math.inf
        self._taken_in: tuple[str, Counter[str]] = "", Counter()
        """The generation of the store whose loss this process is ending, and the records that it has taken in.

        They are by bucket, and of all rounds: a round may end at a list that fails.
        """

    async def is_first_start(self) -> bool:
        """Whether an empty store is a new one: no bucket has a job with a marker of this deployment.

        StoreError when a bucket does not answer now: then nobody knows.
        """
        for bucket in self._buckets:
            try:
                begin, end = await self._scans.span(bucket, self._timing.keep)
                if await self._scans.shows_markers(bucket, begin, end):
                    return False
            except GatewayError as error:
                log.warning("a bucket cannot be asked for creates of before", bucket=bucket.name, error=error.message)
                if is_transient(error):
                    raise StoreError(f"bucket {bucket.name} cannot be asked whether the store is new") from error
        return True

    async def round(self) -> None:
        """End the rebuild of a lost store, if its quarantine is over and the cloud's lists can be read."""
        lost = self._store.lost
        if lost is None or await self._is_over(lost):
            return
        waited = self._times.elapsed() - self._store.lost_at
        if self._on_loss == "refuse" or (self._on_loss == "rebuild" and waited < self._quarantine):
            return
        try:
            if self._on_loss == "rebuild" and not await self._is_found(lost, waited):
                return
            mark = (self._times.latest() or 0.0) - self._timing.watch
            if not await self._store.end_rebuild(lost.lost_since, mark, []):
                return
            await self._store.reopen()
        except StoreLost as error:
            log.warning("the store of creates was lost again", error=str(error))
            with suppress(StoreError):
                await self._store.lose_again()
            return
        except (GatewayError, StoreError) as error:
            self._tell(str(error))
            return
        self._telemetry.ledger("rebuilt")
        found = self._taken_of(lost)
        log.warning("the store of creates is rebuilt", on_loss=self._on_loss, records=found.total(), buckets=len(found))

    async def _is_over(self, lost: StoreState) -> bool:
        """Whether somebody else has ended this rebuild, or the store was lost once more, which begins another one."""
        try:
            state = await self._store.store.state()
            if state.generation != lost.generation:
                await self._store.lose_again()
                return True
            if state.lost_since:
                return False
            await self._store.reopen()
        except StoreError as error:
            self._tell(str(error))
            return True
        log.warning("the store of creates is in use again: its loss was ended elsewhere")
        return True

    async def _is_found(self, lost: StoreState, waited: float) -> bool:
        """Whether all that the lists show has a record now."""
        mark, blind = lost.cloud_mark, []
        for bucket in self._buckets:
            begin, end = await self._scans.span(bucket, max(self._timing.keep, MONTH_SECONDS))
            # A mark that is still to come was made by a wrong `Date`.
            since = mark if 0 < mark <= end - MARGIN_SECONDS else begin
            scan = await self._scans.scan(bucket, self._store.store, since, end)
            for _ in scan.orphans:
                self._telemetry.ledger("orphan")
            if scan.orphans:
                self._taken_of(lost)[bucket.name] += len(scan.orphans)
            if not scan.complete:
                self._tell(f"the cloud's list of {bucket.name} is not shown to its end")
                return False
            if scan.is_blind:
                blind.append(bucket)
        # One service answers for all buckets of a region: where it echoes for one, a list without markers has none.
        echoing = {bucket.region for bucket in self._buckets if self._scans.echoes(bucket)}
        unsure = [bucket.name for bucket in blind if bucket.region not in echoing]
        if unsure and waited < self._timing.keep:
            self._tell(f"the cloud's lists have no markers, and may not show them: {', '.join(unsure)}")
            return False
        return True

    def _taken_of(self, lost: StoreState) -> Counter[str]:
        """The records that this process has taken in after this loss: those of an earlier one are lost with it."""
        if self._taken_in[0] != lost.generation:
            self._taken_in = lost.generation, Counter()
        return self._taken_in[1]

    def _tell(self, why: str) -> None:
        if loop_time() - self._told_at > TELL_SECONDS:
            self._told_at = loop_time()
            log.error("the store of creates cannot be rebuilt yet", why=why)
