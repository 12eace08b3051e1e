"""Ports of the upstream part: transport, credentials, object tags, caches, single-flight and telemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from docpreview.v1.error_reason_pb2 import ErrorReason
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.circuit_breaker import State
    from docpreview_gateway.model.trace_context import Trace
    from docpreview_gateway.upstream.operations import Operation
    from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest
    from docpreview_gateway.upstream.wire.signing import Credentials


class TransportError(Exception):
    """An exchange ended without a reply. `sent` is False only when certainly no byte of the request left.

    The message is the cause, in words that callers may see: without addresses and secrets.
    """

    def __init__(self, message: str, *, sent: bool, timed_out: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.timed_out = timed_out


class ProxyError(TransportError):
    """The proxy on the way gave no connection; nothing was sent. The message names the proxy and no secret."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message, sent=False, timed_out=timed_out)


class Transport(Protocol):
    """Sends a signed request and reads the whole reply."""

    async def send(self, request: HttpRequest) -> HttpReply:
        """The reply, whatever its status. TransportError when there is none, ReplyTooLarge past the cap.

        UPSTREAM_BAD_RESPONSE when it is not HTTP, or its body is not what its `Content-Encoding` says.
        """
        ...


class CredentialsSource(Protocol):
    """The source of cloud keys."""

    def credentials(self, name: str) -> Credentials:
        """The current credential set of this name."""
        ...


class ObjectTags(Protocol):
    """Tags that identify the content of objects."""

    async def tag(self, bucket: Bucket, key: str, call: Call) -> str:
        """A tag that changes with the content; empty: the store gives none. GatewayError, by the deadline."""
        ...


class ObjectFacts(NamedTuple):
    """What the store says of an object; `upload_id` is that of the upload that made it (empty: none of ours)."""

    length: int
    etag: str
    crc64: int | None
    upload_id: str


class ObjectPiece(NamedTuple):
    """Bytes of an object, and the length of the whole object."""

    data: bytes
    length: int


class ObjectReader(Protocol):
    """Reads pieces of objects, each in one attempt."""

    async def read(self, bucket: Bucket, key: str, piece: tuple[int, int], call: Call) -> ObjectPiece:
        """Bytes of an object, from the first of `piece`, as many as the second says. GatewayError, by the deadline."""
        ...


class ObjectStore(Protocol):
    """The cloud's object store. Everything is one attempt, and ends by the call's deadline.

    A request that was signed by a wrong clock is sent once more, by the store's.
    """

    async def now(self, bucket: Bucket, key: str, call: Call) -> float:
        """The store's own time, which is asked for, with a look at this object, if it was not heard yet."""
        ...

    async def head(self, bucket: Bucket, key: str, call: Call) -> ObjectFacts:
        """What the store says of an object. INPUT_OBJECT_NOT_FOUND when there is none."""
        ...

    async def initiate(self, bucket: Bucket, key: str, headers: Mapping[str, str], call: Call) -> str:
        """Begin a multipart upload of an object with these headers. Returns its id."""
        ...

    async def complete(  # noqa: PLR0913, PLR0917 - as the store asks for it
        self, bucket: Bucket, key: str, multipart: str, etags: Sequence[str], headers: Mapping[str, str], call: Call
    ) -> None:
        """Make an object of the parts of a multipart upload."""
        ...

    async def abort(self, bucket: Bucket, key: str, multipart: str, call: Call) -> None:
        """Delete the parts of a multipart upload."""
        ...


class MemoryCache(Protocol):
    """A cache of bytes by key in this process, bounded by size."""

    def get(self, key: str) -> bytes | None:
        """The value; None when it was never set, or was evicted."""
        ...

    def set(self, key: str, value: bytes) -> None:
        """Store a value, which may evict others. A value that does not fit is not stored."""
        ...


class SharedCache(Protocol):
    """The cache of all replicas. It never raises: a slow or failed look is a miss."""

    async def get(self, key: str) -> bytes | None:
        """The envelope that a replica stored, fresh or not, until it expires; None: a miss."""
        ...


class Subscription(Protocol):
    """Results that other replicas publish for one key, while the context of `subscribe` is open."""

    async def next(self, seconds: float) -> bytes | None:
        """The next published result; b"" when that read had none, None after `seconds`."""
        ...


Role: TypeAlias = Literal["found", "leader", "follower", "alone"]


class Turn(NamedTuple):
    """What a replica is to do about a read, and what the cache of all replicas has (None: nothing).

    `found`: answer with the envelope, which is fresh. `leader`: read, then `end`. `follower`: another replica reads.
    `alone`: read without the others, since there is no shared state now.
    """

    role: Role
    envelope: bytes | None = None


class SingleFlight(Protocol):
    """Single-flight reads across replicas, and the cache that they fill.

    It never raises: without shared state each replica reads by itself.
    """

    @property
    def is_listening(self) -> bool:
        """Whether what other replicas publish is heard now."""
        ...

    def subscribe(self, key: str) -> AbstractContextManager[Subscription]:
        """Receive the results published for a key. To be opened before `turn` or `ask`, so that none is missed."""
        ...

    async def turn(self, key: str, now: float, *, no_cache: bool, spent: float = 0.0) -> Turn:
        """Look into the cache at Unix time `now`, and take the lease of the key unless it has a fresh answer there.

        With `no_cache` nothing is looked up. A lease lasts until `end`; if this replica is lost, another one gets it
        half a second later. One that is cancelled here is not kept. `spent` are the seconds that the read has waited
        for shared state already: all of its waits have one time limit.
        """
        ...

    def end(self, key: str, envelope: bytes, seconds: float) -> None:
        """End a lease: store the result for `seconds` (0: do not), and send it to those who follow. Does not block.

        b"" is no result.
        """
        ...

    async def store(self, key: str, envelope: bytes, seconds: float) -> None:
        """Store what was read or made without a lease."""
        ...

    async def ask(self, key: str, seconds: float) -> bool:
        """Have the next result within `seconds` sent to this replica's subscription, whichever replica reads.

        False: shared state did not answer, and nothing will be sent.
        """
        ...

    def created(self, bucket: str) -> None:
        """Make the other replicas drop their cached lists of a bucket. Does not block."""
        ...

    def called_back(self, bucket: str, job_id: str, queue_id: str) -> None:
        """Tell the other replicas that a callback has told of the end of a job. Does not block."""
        ...


class JobFeed(Protocol):
    """Jobs as other replicas read them."""

    @property
    def hears(self) -> bool:
        """Whether what they read is heard now."""
        ...

    async def next(
        self, bucket: Bucket, job_id: str, seconds: float, missed: Callable[[], Awaitable[PreviewJob | None]]
    ) -> PreviewJob | None:
        """The job as soon as a replica has read it; None after `seconds`.

        `missed` is called once nothing is missed any more; what it gives, unless None, was read before.
        """
        ...


class Attempt(NamedTuple):
    """An attempt at the cloud: its bucket, its operation, and the trace that it belongs to (None: not traced)."""

    bucket: str
    operation: str
    trace: Trace | None

    @classmethod
    def of(cls, operation: Operation[object], call: Call) -> Attempt:
        """An attempt of an operation of the job API."""
        return cls(operation.bucket.name, operation.name, call.trace)


class HostLoad(NamedTuple):
    """Load of a bucket's host: calls in flight, their limit, and calls in the queue."""

    in_flight: int
    limit: int
    queued: int


class JobPages(NamedTuple):
    """Pages of a job that were rendered, and pages that failed."""

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
        self,
        tier: Literal["memory", "shared", "lists"],
        outcome: Literal["hit", "miss", "stale", "error", "skipped"],
        count: int = 1,
    ) -> None:
        """Records look-ups in a tier. `error` and `skipped` (circuit breaker open) are of the shared one."""
        ...

    def shared_read(self, outcome: Literal["leader", "follower", "timeout", "local"]) -> None:
        """Records a single-flight read: made for all replicas, by another one, by none in time, or without asking."""
        ...

    def job_ended(self, state: str, seconds: float | None, pages: JobPages) -> None:
        """Records a job's end, once: its state, such as `SUCCESS`, and its age; None: the cloud does not say."""
        ...


class FailedJobs(Protocol):
    """Records the latest failed jobs."""

    def job_failed(self, bucket: str, job_id: str, caller: str, reason: str) -> None:
        """Records that a job of the caller of this name failed; `reason` is one of `JobFailure.Reason`, or its code."""
        ...


class Tracing(Protocol):
    """Makes spans of attempts."""

    def attempt(self, attempt: Attempt, call: Call) -> AbstractContextManager[None]:
        """A span of one attempt at the cloud."""
        ...
