"""The last calls and failed jobs of a process, in memory, for the operator page.

A call that ended is kept with its ids, caller, status and duration. Nothing else of its messages is: no key of an
object, no token, no address.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

import orjson

from docpreview_gateway.model.errors import SERVER_ERROR_CODES
from docpreview_gateway.telemetry.operator_view import BY_DESIGN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from docpreview_gateway.model.call import Call, Clock, Method

Record = TypeVar("Record", bound="CallRecord | FailedJob")

MOST_CALLS = 2000
"""Calls in memory, without those of MOST_FAILED: about a megabyte."""

MOST_FAILED = 500
"""Calls in memory that failed by a fault of the gateway or the cloud: no flood of other calls pushes them out."""

MOST_JOBS = 500
"""Failed jobs in memory."""

MOST_SHOWN = 100
"""Most calls that a search returns."""

MOST_GROUPS = 20
"""Most groups of failed calls, and of failed jobs, that are returned."""

OF_A_GROUP = 3
"""Most records of a group that are returned."""


_Fields: TypeAlias = "tuple[float, str, str, str, str, str, float, str, tuple[str, ...], str, str, str, str]"
"""The fields of a CallRecord."""


class CallRecord(NamedTuple):
    """A call that ended at the Unix time `at`, after `seconds`. Empty texts: the call had none."""

    at: float
    request_id: str
    method: str
    caller: str
    code: str
    reason: str
    seconds: float
    bucket: str
    job_ids: tuple[str, ...]
    cache: str
    upstream_request_id: str
    trace_id: str
    rule: str

    @property
    def kind(self) -> tuple[str, ...]:
        """What is alike in a group of failed calls."""
        return self.caller, self.method, self.reason or self.code


class FailedJob(NamedTuple):
    """A job that was seen to fail at the Unix time `at`."""

    at: float
    bucket: str
    job_id: str
    caller: str
    reason: str

    @property
    def kind(self) -> tuple[str, ...]:
        """What is alike in a group of failed jobs."""
        return self.caller, self.reason


@dataclass(frozen=True, slots=True)
class Group(Generic[Record]):
    """Failures that are alike: their number, and the latest of them, latest first."""

    count: int
    latest: list[Record]


@dataclass(frozen=True, slots=True)
class Recent:
    """What is in memory: the answer to a search, and the latest failures. Each list has the latest first."""

    calls: list[CallRecord]
    """Calls with the wanted id; empty without one."""
    failed_calls: list[Group[CallRecord]]
    """By caller, method and reason."""
    jobs: list[Group[FailedJob]]
    """By caller and reason: jobs with the wanted id, or all."""
    searched: int
    """Number of calls in memory."""
    since: float
    """Unix time since which no call has been dropped."""


class RecentCalls:
    """The last calls and failed jobs of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun = clock.now()
        # Plain tuples: unlike named ones, they are not tracked by garbage collection once it has seen them.
        self._failed: deque[_Fields] = deque(maxlen=MOST_FAILED)
        self._others: deque[_Fields] = deque(maxlen=MOST_CALLS)
        self._jobs: deque[FailedJob] = deque(maxlen=MOST_JOBS)

    def call_ended(self, method: Method, call: Call, code: str, seconds: float) -> None:
        """Remember a call that ended."""
        info = call.response
        has_failed = code in SERVER_ERROR_CODES and info.reason not in BY_DESIGN
        (self._failed if has_failed else self._others).append(
            (
                self._clock.now(),
                call.request_id,
                method.name,
                call.caller.name,
                code,
                info.reason,
                seconds,
                info.bucket,
                info.job_ids,
                info.cache,
                info.upstream_request_id,
                "" if call.trace is None else call.trace.trace_id,
                info.rule,
            )
        )

    def job_failed(self, bucket: str, job_id: str, caller: str, reason: str) -> None:
        """Remember a failed job: the port `FailedJobs`."""
        self._jobs.append(FailedJob(self._clock.now(), bucket, job_id, caller, reason))

    async def recent(self, wanted: str = "") -> Recent:
        """What is in memory; `wanted` is the id of a call, a job, a trace or a request of the cloud."""
        everything = (CallRecord(*record) for record in chain(self._failed, self._others))
        full = [ring[0][0] for ring in (self._failed, self._others) if len(ring) == ring.maxlen]
        return Recent(
            calls=_latest((call for call in everything if _has(call, wanted)), MOST_SHOWN) if wanted else [],
            failed_calls=_grouped(Group(1, [CallRecord(*record)]) for record in self._failed),
            jobs=_grouped(Group(1, [job]) for job in self._jobs if wanted in {"", job.job_id}),
            searched=len(self._failed) + len(self._others),
            since=max(full, default=self._begun),
        )


def _has(call: CallRecord, wanted: str) -> bool:
    return wanted in {call.request_id, call.upstream_request_id, call.trace_id, *call.job_ids}


def _latest(records: Iterable[Record], most: int) -> list[Record]:
    return sorted(records, key=lambda record: record.at, reverse=True)[:most]


def _grouped(groups: Iterable[Group[Record]]) -> list[Group[Record]]:
    """The groups, those of equal kind joined, the one with the latest record first."""
    found: dict[tuple[str, ...], Group[Record]] = {}
    for group in groups:
        kind = group.latest[0].kind
        other = found.get(kind, Group(0, []))
        found[kind] = Group(other.count + group.count, _latest([*other.latest, *group.latest], OF_A_GROUP))
    return sorted(found.values(), key=lambda group: group.latest[0].at, reverse=True)[:MOST_GROUPS]


def merged(parts: Iterable[Recent], now: float) -> Recent:
    """What several processes remember, as one; at `now` when there is none."""
    parts = list(parts)
    return Recent(
        calls=_latest(chain.from_iterable(part.calls for part in parts), MOST_SHOWN),
        failed_calls=_grouped(chain.from_iterable(part.failed_calls for part in parts)),
        jobs=_grouped(chain.from_iterable(part.jobs for part in parts)),
        searched=sum(part.searched for part in parts),
        since=max((part.since for part in parts), default=now),
    )


def encode(recent: Recent) -> bytes:
    """The JSON by which a worker tells its supervisor."""
    groups = [[(group.count, group.latest) for group in found] for found in (recent.failed_calls, recent.jobs)]
    return orjson.dumps([recent.calls, *groups, recent.searched, recent.since], default=tuple)


def decode(text: bytes) -> Recent:
    """The reverse of `encode`."""
    calls, failed, jobs, searched, since = orjson.loads(text)
    return Recent(
        [_record(call) for call in calls],
        [Group(count, [_record(call) for call in latest]) for count, latest in failed],
        [Group(count, [FailedJob(*job) for job in latest]) for count, latest in jobs],
        searched,
        since,
    )


def _record(fields: list[Any]) -> CallRecord:
    call = CallRecord(*fields)
    return call._replace(job_ids=tuple(call.job_ids))


def worker_answers(recent: RecentCalls) -> Callable[[Mapping[str, str]], Awaitable[bytes]]:
    """What a worker tells its supervisor at `/recent`, for the `id` of the query."""

    async def answer(query: Mapping[str, str]) -> bytes:
        return encode(await recent.recent(query.get("id", "")))

    return answer
