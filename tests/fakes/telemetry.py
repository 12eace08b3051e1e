"""Telemetry that records what it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview.v1.error_reason_pb2 import ErrorReason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.creates.pages import CallerPages
    from docpreview_gateway.model.call import Call, Method
    from docpreview_gateway.model.circuit_breaker import State
    from docpreview_gateway.uploads.ports import UploadFacts
    from docpreview_gateway.upstream.ports import Attempt, HostLoad, JobPages


class FakeTelemetry:
    """The telemetry ports of all parts but access, recorded in lists."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, str]] = []
        self.pollers = 0
        self.watchers = 0
        self.most_pollers = 0
        self.started: list[str] = []
        self.calls: list[Call] = []
        self.unreconciled_creates: list[tuple[int, float | None]] = []
        self.coalesced_reads: list[str] = []
        self.ended_jobs: list[tuple[str, float | None, JobPages]] = []
        self.sent: list[str] = []
        self.ended: list[tuple[str, str]] = []
        self.lookups: list[tuple[str, str]] = []
        self.shared_reads: list[str] = []
        self.ledger_events: list[str] = []
        self.findings: dict[str, dict[str, int]] = {}
        self.limits: list[tuple[str, str, str]] = []
        self.caller_pages: list[CallerPages] = []
        self.deduped_creates: list[str] = []
        self.retries: list[tuple[str, str]] = []
        self.breaker_states: list[tuple[str, str]] = []
        self.sheds: list[str] = []
        self.loads: dict[str, Callable[[], HostLoad]] = {}

        self.list_lags: dict[str, float] = {}
        self.leased_pages: dict[str, int] = {}
        self.health: set[str] = set()
        self.evicted_keys = 0
        self.store_measures: tuple[Callable[[], bool], Callable[[], bool]] | None = None
        self.listened: list[bool] = []
        self.uploads: list[tuple[str, str, int]] = []
        self.unknown_methods = 0

    def listening(self, listening: bool) -> None:  # noqa: FBT001
        self.listened.append(listening)

    def uploaded(self, caller: str, stage: str, size: int) -> None:
        self.uploads.append((caller, stage, size))

    def unknown_method(self) -> None:
        self.unknown_methods += 1

    def retry(self, operation: str, outcome: str) -> None:
        self.retries.append((operation, outcome))

    def measure_host(self, bucket: str, load: Callable[[], HostLoad]) -> None:
        self.loads[bucket] = load

    def breaker(self, bucket: str, state: State) -> None:
        self.breaker_states.append((bucket, state.name))

    def shed(self, bucket: str, why: str) -> None:
        assert bucket in self.loads
        self.sheds.append(why)

    def limit(self, caller: str, limit: str, outcome: str) -> None:
        self.limits.append((caller, limit, outcome))

    def measure_store(self, *, is_failing: Callable[[], bool], is_lost: Callable[[], bool]) -> None:
        self.store_measures = is_failing, is_lost

    def store_health(self, failing: Mapping[str, bool], evicted_keys: int) -> None:
        self.health = {check for check, fails in failing.items() if fails}
        self.evicted_keys = evicted_keys

    def list_lag(self, bucket: str, seconds: float) -> None:
        self.list_lags[bucket] = seconds

    def leased(self, caller: str, pages: int) -> None:
        self.leased_pages[caller] = pages

    def deduped(self, caller: str) -> None:
        self.deduped_creates.append(caller)

    def unreconciled(self, count: int, oldest_sent_at: float | None, now: float) -> None:
        self.unreconciled_creates.append((count, None if oldest_sent_at is None else now - oldest_sent_at))

    def coalesced(self, operation: str) -> None:
        self.coalesced_reads.append(operation)

    def job_ended(self, state: str, seconds: float | None, pages: JobPages) -> None:
        self.ended_jobs.append((state, seconds, pages))

    def pages(self, found: Sequence[CallerPages]) -> None:
        self.caller_pages = list(found)

    def reconciled(self, bucket: str, findings: Mapping[str, int], _now: float) -> None:
        self.findings[bucket] = dict(findings)

    def ledger(self, event: str) -> None:
        self.ledger_events.append(event)

    def cache_lookup(self, tier: str, outcome: str, count: int = 1) -> None:
        self.lookups += [(tier, outcome)] * count

    def shared_read(self, outcome: str) -> None:
        self.shared_reads.append(outcome)

    def upstream_attempt(self, attempt: Attempt, reason: ErrorReason.ValueType, seconds: float) -> None:
        assert seconds >= 0
        operation = attempt.operation
        self.attempts.append((operation, ErrorReason.Name(reason).removeprefix("ERROR_REASON_") if reason else "OK"))

    def watching(self, *, pollers: int, watchers: int) -> None:
        self.pollers = pollers
        self.watchers = watchers
        self.most_pollers = max(self.most_pollers, pollers)

    def call_started(self, method: Method, _call: Call) -> None:
        self.started.append(method.name)

    def message_sent(self, method: Method) -> None:
        self.sent.append(method.name)

    def call_ended(self, method: Method, call: Call, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append(call)
        self.ended.append((method.name, code))


class FakeAuditLog:
    """An `AuditLog` in memory: outcomes and job ids; and an `UploadLog`: stages, outcomes and facts."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []
        self.uploads: list[tuple[str, str, UploadFacts]] = []

    def upload_ended(self, stage: str, _call: Call, outcome: str, facts: UploadFacts) -> None:
        self.uploads.append((stage, outcome, facts))

    def create_ended(self, _request: CreatePreviewJobRequest, _call: Call, outcome: str, job_id: str) -> None:
        self.entries.append((outcome, job_id))
