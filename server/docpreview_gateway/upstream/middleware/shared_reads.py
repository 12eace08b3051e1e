"""Middleware: the cache that replicas share, and single-flight reads of a job across them.

One replica, the leader, reads; the others get its result. When anything between them fails, a replica reads by itself.
A read costs one round trip of shared state before it, and one, for which no caller waits, after it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.call import SharedRead
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.operations import CreateJob, GetJob
from docpreview_gateway.upstream.policies import cache_entries
from docpreview_gateway.upstream.policies.cache_entries import Entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call, Clock
    from docpreview_gateway.upstream.operations import Operation, Upstream
    from docpreview_gateway.upstream.policies.freshness import Freshness
    from docpreview_gateway.upstream.ports import SingleFlight, Subscription, UpstreamTelemetry

LEASE_CHECK_SECONDS = 0.5
"""Seconds between checks whether the leader still holds its lease."""

ASK_AGAIN_SECONDS = 1.0
"""Pause before a replica asks again for the reads of others, when shared state did not answer."""


class SharedReads:
    """An `Upstream` with the replicas' cache and single-flight reads, and a `JobFeed` of their results."""

    def __init__(
        self,
        inner: Upstream,
        single_flight: SingleFlight,
        *,
        freshness: Freshness,
        clock: Clock,
        telemetry: UpstreamTelemetry,
    ) -> None:
        self._inner = inner
        self._single_flight = single_flight
        self._freshness = freshness
        self._clock = clock
        self._telemetry = telemetry

    async def __call__(self, operation: Operation[Any], call: Call) -> Any:  # noqa: ANN401 - depends on the operation
        """The result. A create, also one of unknown outcome, makes the other replicas drop their cached lists."""
        if isinstance(operation, GetJob):
            return await self._get(operation, call)
        if isinstance(operation, CreateJob):
            return await self._create(operation, call)
        return await self._inner(operation, call)

    @property
    def hears(self) -> bool:
        """As the port has it."""
        return self._single_flight.is_listening

    async def next(
        self, bucket: Bucket, job_id: str, seconds: float, missed: Callable[[], Awaitable[PreviewJob | None]]
    ) -> PreviewJob | None:
        """The job as soon as a replica has read it, or None after `seconds`. `missed` is that of `JobFeed`."""
        end = time.monotonic() + seconds
        key = cache_entries.job_key(bucket, job_id)
        with self._single_flight.subscribe(key) as subscription:
            while (left := end - time.monotonic()) > 0:
                listens = await self._single_flight.ask(key, left)
                if (job := await missed()) is not None:
                    return job
                shared = await subscription.next(left if listens else min(left, ASK_AGAIN_SECONDS))
                entry = cache_entries.decode(key, shared) if shared else None
                if entry is not None and entry.job is not None:
                    return entry.job
        return None

    async def _create(self, operation: CreateJob, call: Call) -> PreviewJob:
        try:
            job = await self._inner(operation, call)
        finally:
            self._single_flight.created(operation.bucket.name)
        # Awaited: the cloud may show a new job with a delay, and a replica that has it from here need not ask.
        key = cache_entries.job_key(operation.bucket, job.job_id)
        await self._single_flight.store(key, *self._sealed(key, job))
        return job

    async def _get(self, operation: GetJob, call: Call) -> PreviewJob:
        key = cache_entries.job_key(operation.bucket, operation.job_id)
        read = call.shared_read or SharedRead(call.deadline, call.no_cache)
        with self._single_flight.subscribe(key) as subscription:
            found = await self._found(key, read, call, subscription)
        if not isinstance(found, Entry):
            self._telemetry.shared_read(found)
            return await self._read(key, read, operation, call, leads=found == "leader")
        if found.job is None:
            raise cache_entries.missing(operation.bucket, operation.job_id)
        return found.job

    async def _found(
        self, key: str, read: SharedRead, call: Call, subscription: Subscription
    ) -> Entry | Literal["leader", "local", "timeout"]:
        """What the cache has fresh or another replica reads meanwhile; without it, as what this replica is to read."""
        spent, follows = 0.0, False
        while True:
            begin, no_cache = time.monotonic(), read.no_cache
            turn = await self._single_flight.turn(key, self._clock.now(), no_cache=no_cache, spent=spent)
            spent += time.monotonic() - begin
            entry = cache_entries.seen(key, turn.envelope, self._clock.now())
            if entry is not None:
                read.envelope = turn.envelope
            found = entry if turn.role == "found" else None
            if not no_cache and not follows:
                self._telemetry.cache_lookup("shared", "miss" if found is None else "hit")
            # A caller that has joined since may want what the cloud says now.
            if found is not None and not read.no_cache:
                return self._answer(found, call, follows=follows)
            if turn.role == "found":
                read.no_cache = True
            elif turn.role != "follower" or time.monotonic() >= call.deadline:
                return "leader" if turn.role == "leader" else "local"
            else:
                follows = True
                envelope = await subscription.next(min(LEASE_CHECK_SECONDS, call.deadline - time.monotonic()))
                if envelope is not None:
                    return self._followed(key, envelope, read, call)

    def _followed(self, key: str, envelope: bytes, read: SharedRead, call: Call) -> Entry | Literal["timeout"]:
        entry = cache_entries.decode(key, envelope)
        if entry is None:
            return "timeout"
        read.envelope = envelope
        return self._answer(entry, call, follows=True)

    def _answer(self, entry: Entry, call: Call, *, follows: bool) -> Entry:
        call.response.cache = "coalesced" if follows else "hit"
        if follows:
            self._telemetry.shared_read("follower")
        return entry

    async def _read(self, key: str, read: SharedRead, operation: GetJob, call: Call, *, leads: bool) -> PreviewJob:
        envelope, seconds = b"", 0.0
        try:
            job: PreviewJob = await self._inner(operation, call)
            envelope, seconds = self._sealed(key, job)
            read.envelope = envelope
        except UpstreamError as error:
            # That a new job is missing is no answer for others: the cloud may show it with a delay.
            if error.reason == reasons.ERROR_REASON_JOB_NOT_FOUND and not read.is_new:
                envelope, seconds = self._sealed(key, None)
                read.envelope = envelope
            raise
        finally:
            # Whatever the outcome, no follower should wait until the lease expires.
            if leads:
                self._single_flight.end(key, envelope, seconds)
            elif envelope:
                await self._single_flight.store(key, envelope, seconds)
        return job

    def _sealed(self, key: str, job: PreviewJob | None) -> tuple[bytes, float]:
        """The envelope of what was read just now, and for how many seconds the other replicas should keep it."""
        now = self._clock.now()
        return cache_entries.sealed(key, job, self._freshness, now), self._freshness.kept(job, now)
