"""Reconciliation: the cloud's list of jobs against the records of creates, by every job's marker.

It changes nothing unless it is asked to: what it finds is a bill that nobody knows of, or a count that is wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import structlog

from docpreview_gateway.creates import counters, pages
from docpreview_gateway.creates.evidence import has_valid_marker
from docpreview_gateway.creates.keys import is_unrecorded
from docpreview_gateway.creates.ports import StoreError, UnreadableRecord
from docpreview_gateway.creates.records import State
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.upstream.wire.user_data import read_marker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.creates.counters import CounterReport
    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.lists import JobHistory, Listing
    from docpreview_gateway.creates.ports import CreatesTelemetry, CreateStore
    from docpreview_gateway.creates.rebuild import Scans
    from docpreview_gateway.creates.records import Record, Timing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.upstream.cloud_clock import CloudTimes

log = structlog.get_logger("docpreview_gateway.reconciliation")

DAY_SECONDS = 86400.0
CHUNK = 100


class Miscounted(NamedTuple):
    """A job whose charged pages are not those that it made."""

    job_id: str
    charged: int
    made: int


class Doubled(NamedTuple):
    """A job beside the first one of its create."""

    job_id: str
    first: str
    """The create's job: the one on record, or without a record the earliest."""
    caller: str
    """Of the record; empty: there is none, or it does not know."""


@dataclass(slots=True)
class Report:
    """What a reconciliation of one bucket found."""

    bucket: str
    complete: bool = True
    """Whether the list was read to its end: if not, there may be more."""
    jobs: int = 0
    """Jobs with a marker of this deployment."""
    pages: int = 0
    """Pages that all of them made that have ended, counted or not."""
    unrecorded: int = 0
    """Those of creates that need no record."""
    forgotten: int = 0
    """Those whose creates are not remembered any more: nothing can be said of them."""
    orphans: list[str] = field(default_factory=list)
    """Jobs that should have a record and have none."""
    taken_in: list[str] = field(default_factory=list)
    """Those of them that have a record now."""
    unreadable: list[str] = field(default_factory=list)
    """Keys of records that cannot be read: nothing is said of their jobs."""
    is_blind: bool = False
    """Jobs are on record, and the list shows no marker of this deployment: nothing can be compared."""
    doubled: list[Doubled] = field(default_factory=list)
    """Further jobs of one create."""
    miscounted: list[Miscounted] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    """Pages that ended jobs of counted creates made, by caller."""
    counted: Counter[str] = field(default_factory=Counter)
    """Pages that are counted for those jobs, by caller."""
    uncounted: dict[str, int] = field(default_factory=dict)
    """Pages that ended orphans and second jobs made, by job: no caller's count has them."""

    @property
    def findings(self) -> dict[str, int]:
        """Number of findings by kind, as metrics name them."""
        return {
            "orphan": len(self.orphans),
            "doubled": len(self.doubled),
            "miscounted": len(self.miscounted),
            "unreadable": len(self.unreadable),
            "pages": sum(abs(self.made[caller] - self.counted[caller]) for caller in self.made | self.counted),
        }


class Reconciliation:
    """Compares buckets with the store."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        store: CreateStore,
        history: JobHistory,
        scans: Scans,
        keys: CreateKeys,
        times: CloudTimes,
        *,
        timing: Timing,
        buckets: Sequence[Bucket],
        telemetry: CreatesTelemetry,
    ) -> None:
        self._store = store
        self._history = history
        self._scans = scans
        self._keys = keys
        self._times = times
        self._timing = timing
        self._buckets = buckets
        self._telemetry = telemetry

    async def daily(self) -> None:
        """Reconcile the last two days of all buckets, and tell by metrics and log lines. Failures are told too."""
        for bucket in self._buckets:
            try:
                if self._times.heard(bucket.ci_host) is None:
                    await self._history.hear(bucket)
                now = self._times.now(bucket.ci_host)
                report = await self.of_bucket(bucket, now - 2 * DAY_SECONDS, now)
            except (GatewayError, StoreError) as error:
                log.warning("reconciliation failed", bucket=bucket.name, error=str(error))
                continue
            self._telemetry.reconciled(bucket.name, report.findings, now)
            _tell(report)
        try:
            counters.tell(await self.of_counters())
        except StoreError as error:
            log.warning("the counters of pages cannot be compared with the records", error=str(error))

    async def of_counters(self) -> CounterReport:
        """Compare callers' counted pages with all records. StoreError."""
        return await counters.compare_counters(self._store, self._timing.keep)

    async def of_bucket(self, bucket: Bucket, since: float, until: float, *, charge: bool = False) -> Report:
        """Compare the bucket's jobs of a time span (the cloud's time) with the records. GatewayError, StoreError.

        With `charge` orphans get a record, and their pages are counted. Jobs that are older than the time for which
        creates are remembered are no orphans: they were counted once, and would be counted twice.
        """
        listing = await self._history.read(bucket, since, until)
        report = Report(bucket.name, listing.complete)
        by_key = self._by_key(listing, report)
        report.is_blind = not report.jobs and bool(await self._store.accepted(bucket.name, since, until, 1))
        found = await self._records(list(by_key), report)
        remembered = self._times.now(bucket.ci_host) - self._timing.keep
        for key, jobs in by_key.items():
            if key in report.unreadable:
                continue
            record = found.get(key)
            # An id may be used again once it is forgotten: the job of its first life is none of its second. A record
            # that is younger than a job which would still be remembered is the one of a second job.
            born = remembered if record is None else record.first_start - record.keep - self._timing.fence_slack
            alive = [job for job in jobs if job.create_time.seconds >= born]
            report.forgotten += len(jobs) - len(alive)
            if alive:
                _judge(report, record, alive)
        if charge and report.orphans:
            scan = await self._scans.scan(bucket, self._store, max(since, remembered), until)
            for record in scan.orphans:
                _take_in(report, record)
        return report

    def _by_key(self, listing: Listing, report: Report) -> dict[str, list[PreviewJob]]:
        """The jobs of recorded creates, by the keys of their records."""
        by_key: defaultdict[str, list[PreviewJob]] = defaultdict(list)
        for each in listing.jobs:
            marker = read_marker(each.marker)
            if marker is None or not has_valid_marker(each, self._keys):
                continue
            report.jobs += 1
            report.pages += pages.made(each.job) or 0
            if is_unrecorded(marker):
                report.unrecorded += 1
            else:
                by_key[marker.key].append(each.job)
        return by_key

    async def _records(self, keys: Sequence[str], report: Report) -> dict[str, Record]:
        """The records of these keys; those that cannot be read are noted."""
        found: dict[str, Record] = {}
        for at in range(0, len(keys), CHUNK):
            part = keys[at : at + CHUNK]
            try:
                records = await self._store.find(part)
            except UnreadableRecord:
                records = [await self._readable(key, report) for key in part]
            found |= {record.key: record for record in records if record is not None}
        return found

    async def _readable(self, key: str, report: Report) -> Record | None:
        try:
            return (await self._store.find([key]))[0]
        except UnreadableRecord:
            report.unreadable.append(key)
            return None


def _judge(report: Report, record: Record | None, jobs: Sequence[PreviewJob]) -> None:
    """Note what is wrong with the jobs of one create."""
    known = record.job_id if record is not None else ""
    first, *others = sorted(jobs, key=lambda job: (job.job_id != known, job.create_time.seconds))
    if known and first.job_id != known:
        # The job on record is of before the time span: all of these were made beside it.
        others = [first, *others]
    elif record is not None:
        _compare(report, record, first)
    else:
        report.orphans.append(first.job_id)
        report.uncounted[first.job_id] = pages.made(first) or 0
    caller = record.caller if record is not None else ""
    report.doubled += [Doubled(job.job_id, known or first.job_id, caller) for job in others]
    report.uncounted |= {job.job_id: pages.made(job) or 0 for job in others}


def _take_in(report: Report, record: Record) -> None:
    """Note that an orphan has a record now, and its pages a count if it has ended and its caller is known."""
    report.taken_in.append(record.job_id)
    if record.state is State.CHARGED and record.day:
        made = report.uncounted.pop(record.job_id, 0)
        report.made[record.caller] += made
        report.counted[record.caller] += made


def _compare(report: Report, record: Record, job: PreviewJob) -> None:
    """Compare the pages of an ended job with those that its record charged."""
    made = pages.made(job)
    if made is None or record.state is not State.CHARGED or not record.day:
        return
    report.made[record.caller] += made
    report.counted[record.caller] += record.made
    if made != record.made:
        report.miscounted.append(Miscounted(job.job_id, record.made, made))


def _tell(report: Report) -> None:
    for job_id in report.orphans:
        log.error("a job of ours is on no record", bucket=report.bucket, job_id=job_id)
    for doubled in report.doubled:
        log.error(
            "a create has a second job",
            bucket=report.bucket,
            caller=doubled.caller,
            job_id=doubled.first,
            second_job_id=doubled.job_id,
        )
    for job in report.miscounted:
        log.error("a job was charged wrongly", bucket=report.bucket, **job._asdict())
    if report.is_blind:
        log.warning("nothing can be compared: the cloud's list shows no marker of ours", bucket=report.bucket)
    log.info("reconciled", bucket=report.bucket, complete=report.complete, jobs=report.jobs, **report.findings)
