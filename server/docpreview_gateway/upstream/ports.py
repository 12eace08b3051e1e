"""Ports of the upstream part: transport, credentials, caches, single-flight and telemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from docpreview.v1.error_reason_pb2 import ErrorReason
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.trace_context import Trace
    from docpreview_gateway.upstream.policies.circuit_breaker import State
    from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest
    from docpreview_gateway.upstream.wire.signing import Credentials


class TransportError(Exception):
    """An exchange ended without a reply. `sent` is False only when certainly no byte of the request left."""

    def __init__(self, message: str, *, sent: bool, timed_out: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.timed_out = timed_out


class Transport(Protocol):
    """Sends a signed request and reads the whole reply."""

    async def send(self, request: HttpRequest) -> HttpReply:
        """The reply, whatever its status. TransportError when there is none, ReplyTooLarge past the cap."""
        ...


class CredentialsSource(Protocol):
    """Where the keys are kept."""

    def credentials(self, name: str) -> Credentials:
        """The credential set of this name, as it is now."""
        ...


class ObjectTags(Protocol):
    """Tells what is in objects."""

    async def tag(self, bucket: Bucket, key: str, call: Call) -> str:
        """What changes with the object's content, empty when the store does not say. GatewayError by the deadline."""
        ...


class MemoryCache(Protocol):
    """Bytes by key in this process, bounded by their size."""

    def get(self, key: str) -> bytes | None:
        """What was set, unless it had to make room."""
        ...

    def set(self, key: str, value: bytes) -> None:
        """Keep a value, which may push out others or not fit at all."""
        ...


class SharedCache(Protocol):
    """Bytes by key for all replicas. It never raises: what is slow or gone is a miss."""

    async def get(self, key: str) -> bytes | None:
        """What some replica set, while it lives."""
        ...

    async def set(self, key: str, value: bytes, seconds: float, *, spent: float = 0.0) -> None:
        """Keep a value for a time, if possible. `spent` as in `SingleFlight.lead`."""
        ...


class Subscription(Protocol):
    """What other replicas tell about one key while the context that gave it is open."""

    async def next(self, seconds: float) -> bytes | None:
        """What was shared first since the last call; b"" when a read brought nothing, None after so many seconds."""
        ...


class SingleFlight(Protocol):
    """Reads that replicas do for each other. It never raises: without an answer each replica goes on by itself."""

    def subscribe(self, key: str) -> AbstractContextManager[Subscription]:
        """Hear what is shared about a key, to be opened before `lead` or `ask` makes others tell."""
        ...

    async def lead(self, key: str, *, now: bool, spent: float = 0.0) -> bool | None:
        """Whether to read: True, and then `tell`; False, another replica does and will tell; None, nobody knows.

        What another one has shared a moment ago is told again, unless the read must be made `now`.
        The lead lasts until `tell`. Should this replica be lost, another gets it half a second later. `spent` are the
        seconds that the caller has waited for shared state before: all that it asks of it has one time limit.
        """
        ...

    def publish(self, key: str, value: bytes) -> None:
        """End a lead and hand what was read, b"" for nothing, to the replicas that wait. Takes no time."""
        ...

    async def ask(self, key: str, seconds: float) -> None:
        """Be shared of the next read that ends within so many seconds, whoever makes it."""
        ...

    def created(self, bucket: str) -> None:
        """Tell the other replicas that the lists of a bucket have changed. Takes no time."""
        ...


class JobFeed(Protocol):
    """What other replicas see of a job."""

    async def next(self, bucket: Bucket, job_id: str, seconds: float) -> PreviewJob | None:
        """The job as soon as somebody has read it, or None after so many seconds."""
        ...


class Attempt(NamedTuple):
    """An attempt at the cloud: for which bucket, what it does, and the trace that it belongs to."""

    bucket: str
    operation: str
    trace: Trace | None


class HostLoad(NamedTuple):
    """Calls under way to a bucket's host, how many may be, and how many wait."""

    in_flight: int
    limit: int
    queued: int


class JobPages(NamedTuple):
    """Pages of a job that became images, and that did not."""

    succeeded: int
    failed: int


class UpstreamTelemetry(Protocol):
    """Records what happens on the way to the cloud."""

    def upstream_attempt(self, attempt: Attempt, reason: ErrorReason.ValueType, seconds: float) -> None:
        """Records the end of an attempt; `reason` is ERROR_REASON_UNSPECIFIED when it succeeded."""
        ...

    def retry(self, operation: str, outcome: Literal["made", "over_budget"]) -> None:
        """Records a retry that is made, or is not because the process has made too many."""
        ...

    def measure_host(self, bucket: str, load: Callable[[], HostLoad]) -> None:
        """Records the load of a bucket's host from now on, by asking `load` at any time."""
        ...

    def breaker(self, bucket: str, state: State) -> None:
        """Records a new state of the circuit breaker of a bucket's host."""
        ...

    def shed(self, bucket: str, why: str) -> None:
        """Records a call refused before it was sent: because of the `queue`, its own `deadline`, or the `breaker`."""
        ...

    def coalesced(self, operation: str) -> None:
        """Records a read that joined an equal one in flight."""
        ...

    def cache_lookup(
        self, tier: Literal["memory", "shared", "lists"], outcome: Literal["hit", "miss", "stale", "error", "skipped"]
    ) -> None:
        """Records a look-up in a tier. `error` and `skipped` (circuit breaker open) are of the shared one."""
        ...

    def shared_read(self, outcome: Literal["leader", "follower", "timeout", "local"]) -> None:
        """Records a single-flight read: made for all replicas, by another one, by none in time, or without asking."""
        ...

    def job_ended(self, state: str, seconds: float | None, pages: JobPages) -> None:
        """Records a job's end, once: its state, such as `SUCCESS`, and its age; None: the cloud does not say."""
        ...


class Tracing(Protocol):
    """Makes spans of attempts."""

    def attempt(self, attempt: Attempt, call: Call) -> AbstractContextManager[None]:
        """A span of one attempt at the cloud."""
        ...
