"""To be said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from docpreview.v1.error_reason_pb2 import ErrorReason
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
    from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, PreviewQueue
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.circuit_breaker import State
    from docpreview_gateway.model.trace_context import Trace
    from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest
    from docpreview_gateway.upstream.wire.signing import Credentials
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.trace_context import Trace
from typing import TYPE_CHECKING


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


class PreviewUpstream(Protocol):
    """The cloud's job API. Every method raises UpstreamError, and does one attempt or many as its decorators decide."""

    async def create(self, request: CreatePreviewJobRequest, bucket: Bucket, output: Bucket, call: Call) -> PreviewJob:
        """Submit a job. CREATE_OUTCOME_UNKNOWN when it may have been accepted all the same."""
        ...

    async def get(self, bucket: Bucket, job_id: str, call: Call) -> PreviewJob:
        """One job. JOB_NOT_FOUND when there is none."""
        ...

    async def list_jobs(self, query: JobQuery, call: Call) -> JobPage:
        """One page of jobs. ReplyTooLarge when the page holds more than the gateway reads at once."""
        ...

    async def list_queues(self, query: QueueQuery, call: Call) -> QueuePage:
        """One page of queues."""
        ...


class CachingUpstream(PreviewUpstream, Protocol):
    """The cloud's job API with a memory."""

    def cached_get(self, bucket: Bucket, job_id: str, call: Call) -> bytes | None:
        """What `get` would answer from this process's memory, serialised; None when it would have to look further.

        GatewayError, as `get` would raise it, where it is known already that the cloud cannot be asked in time.
        """
        ...


class ObjectTags(Protocol):
    """Tells what is in objects."""

    async def tag(self, bucket: Bucket, key: str, call: Call) -> str:
        """What changes with the object's content, empty when the store does not say. GatewayError by the deadline."""
        ...


@dataclass(frozen=True, slots=True)
class JobQuery:
    """One page of a list: `size` jobs after the cloud's `cursor`."""

    request: ListPreviewJobsRequest
    bucket: Bucket
    size: int
    cursor: str


@dataclass(frozen=True, slots=True)
class QueueQuery:
    """One page of a list: page `number`, from 1, of pages of `size` queues."""

    request: ListPreviewQueuesRequest
    bucket: Bucket
    size: int
    number: int


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


class SingleFlightTelemetry(Protocol):
    """Hears of reads that replicas could share."""

    def shared_read(self, outcome: Literal["leader", "follower", "timeout", "local"]) -> None:
        """A read was made for all, or by another replica, which brought the answer or none, or without asking."""
        ...


class JobFeed(Protocol):
    """What other replicas see of a job."""

    async def next(self, bucket: Bucket, job_id: str, seconds: float) -> PreviewJob | None:
        """The job as soon as somebody has read it, or None after so many seconds."""
        ...


class CacheTelemetry(Protocol):
    """Hears of cache look-ups."""

    def cache_lookup(
        self, tier: Literal["memory", "shared", "lists"], outcome: Literal["hit", "miss", "stale", "error", "skipped"]
    ) -> None:
        """A tier was asked. `error` and `skipped` (it does not answer) say why the shared one was of no use."""
        ...


class Attempt(NamedTuple):
    """An attempt at the cloud: for which bucket, what it does, and the trace that it belongs to."""

    bucket: str
    operation: str
    trace: Trace | None


class UpstreamTelemetry(Protocol):
    """Hears of every attempt at the cloud."""

    def upstream_attempt(self, attempt: Attempt, reason: ErrorReason.ValueType, seconds: float) -> None:
        """An attempt ended; `reason` is ERROR_REASON_UNSPECIFIED when it succeeded."""
        ...


class RetryTelemetry(Protocol):
    """Hears of attempts that are made again."""

    def retry(self, operation: str, outcome: Literal["made", "over_budget"]) -> None:
        """A retry was due: it is made, or the process has made too many."""
        ...


class HostLoad(NamedTuple):
    """Calls under way to a bucket's host, how many may be, and how many wait."""

    in_flight: int
    limit: int
    queued: int


class HostLimiterTelemetry(Protocol):
    """Hears of the ways to the buckets' hosts."""

    def measure_host(self, bucket: str, load: Callable[[], HostLoad]) -> None:
        """There is a way to the bucket's host; `load` tells how full it is, at any time."""
        ...

    def breaker(self, bucket: str, state: State) -> None:
        """The breaker before a bucket's host changed its state."""
        ...

    def shed(self, bucket: str, why: str) -> None:
        """A call was refused at once: because of the `queue`, its own `deadline`, or the `breaker`."""
        ...


class CoalescingTelemetry(Protocol):
    """Hears of reads that share one request."""

    def coalesced(self, operation: Literal["get", "list_jobs", "list_queues"]) -> None:
        """A read joined an equal one that was under way."""
        ...


class JobPages(NamedTuple):
    """Pages of a job that became images, and that did not."""

    succeeded: int
    failed: int


class JobTelemetry(Protocol):
    """Hears of jobs that ended, of each once."""

    def job_ended(self, state: str, seconds: float | None, pages: JobPages) -> None:
        """A job ended in this state, such as `SUCCESS`, so long after its creation; None: the cloud does not tell."""
        ...


class PollTracing(Protocol):
    """Makes spans of polls."""

    def poll(self, job_id: str, watchers: Sequence[Trace]) -> AbstractContextManager[Trace]:
        """A span of one look at a job, which gives its place, linked to those of the calls that wait for it."""
        ...


class Tracing(PollTracing, Protocol):
    """Makes spans."""

    def attempt(self, attempt: Attempt, call: Call) -> AbstractContextManager[None]:
        """A span of one attempt at the cloud."""
        ...


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs of a list, the cloud's cursor behind them (empty at the end), and each job's marker (empty: it has none).

    `as_of` is the cloud's Unix time when it answered, in whole seconds; None when it did not say.
    """

    jobs: tuple[PreviewJob, ...]
    cursor: str
    markers: tuple[str, ...] = ()
    as_of: float | None = None


@dataclass(frozen=True, slots=True)
class QueuePage:
    """Queues of a list, how many there are in all pages, and the asked ids that do not exist."""

    queues: tuple[PreviewQueue, ...]
    total: int
    missing: tuple[str, ...]
