"""Creates over a store in memory, wired as `wiring/creates.py` does it, without rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from docpreview_gateway.creates.attempts import Attempts
from docpreview_gateway.creates.days import Days
from docpreview_gateway.creates.drafts import Drafts
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.leases import PageLeases
from docpreview_gateway.creates.lists import JobHistory
from docpreview_gateway.creates.outcomes import Outcomes
from docpreview_gateway.creates.recorded import RecordedCreates
from docpreview_gateway.creates.records import Timing
from docpreview_gateway.creates.rendered import RenderedJobs
from docpreview_gateway.creates.settlement import Settlement
from docpreview_gateway.creates.usage import PageUsages
from tests.fakes.creates import MemoryCreates
from tests.fakes.tags import FakeTags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.creates.imported import OldIds
    from docpreview_gateway.creates.ports import CallbackTrust, CreatesTelemetry, CreateStore, Webhooks
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.upstream.ports import ObjectTags

KEYS = CreateKeys("tests", [bytes(range(32))])


class MemoryJournal:
    """The port `Journal`."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    async def add(self, record: Record) -> None:
        self.records[record.key] = record

    async def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.records.pop(key, None)

    async def all(self) -> list[Record]:
        return list(self.records.values())


@dataclass
class Recorded:
    """All parts of creates. What is not given is a fake that does nothing unusual."""

    upstream: Upstream
    buckets: BucketRegistry
    times: CloudTimes
    telemetry: CreatesTelemetry
    timing: Timing = field(default_factory=Timing)
    tags: ObjectTags = field(default_factory=FakeTags)
    store: CreateStore = field(default_factory=MemoryCreates)
    callbacks: CallbackTrust | None = None
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    keys: CreateKeys = KEYS
    old: OldIds | None = None
    webhooks: Webhooks | None = None

    def __post_init__(self) -> None:
        upstream, store, keys, times = self.upstream, self.store, self.keys, self.times
        telemetry, timing = self.telemetry, self.timing
        self.history = JobHistory(upstream, keys, times)
        self.outcomes = Outcomes(
            store,
            self.history,
            keys,
            times,
            telemetry=telemetry,
            timing=timing,
            is_exclusive=lambda bucket: bucket.exclusive,
            webhooks=self.webhooks,
        )
        self.leases = PageLeases(store, self.journal, times, replica="one")
        self.attempts = Attempts(
            upstream, store, self.outcomes, keys, times, leases=self.leases, telemetry=telemetry, timing=timing
        )
        self.days = Days(store, times)
        self.creates = RecordedCreates(
            upstream,
            self.buckets,
            store,
            self.attempts,
            outcomes=self.outcomes,
            drafts=Drafts(keys, timing, self.old),
            rendered=RenderedJobs(upstream, self.tags, keys),
            history=self.history,
            leases=self.leases,
            days=self.days,
            keys=keys,
            times=times,
            telemetry=telemetry,
        )
        self.settlement = Settlement(
            store,
            upstream,
            self.buckets,
            outcomes=self.outcomes,
            history=self.history,
            times=times,
            telemetry=telemetry,
            timing=timing,
            callbacks=self.callbacks,
            keys=keys,
        )
        self.usages = PageUsages(store, lambda: self.days.today(times.now("")))
