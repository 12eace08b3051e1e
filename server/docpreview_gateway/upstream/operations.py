"""The operations of the cloud's job API, as values, and the one callable that carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar

from docpreview.v1.preview_job_pb2 import PreviewJob

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
    from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, PreviewQueue
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.wire.signing import Window

Result_co = TypeVar("Result_co", covariant=True)
Result = TypeVar("Result")

OperationName: TypeAlias = Literal["create", "get", "list_jobs", "list_queues"]
"""As metrics and spans name operations."""


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of jobs; `markers` are those of creates, one a job.

    Only an empty `cursor` means that it is the last: a page without jobs may have one. `repeated`: the cloud answered
    with the cursor that it was asked with, so the list does not go on, and has not ended either.
    `as_of` is a lower bound of the cloud's Unix time when the list was asked for: the `Date` of the answer, which is
    in whole seconds, less the time that the exchange took, less a second. None when the answer had no `Date`.
    """

    jobs: tuple[PreviewJob, ...]
    cursor: str
    markers: tuple[str, ...] = ()
    as_of: float | None = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class QueuePage:
    """One page of queues; `total` counts those of all pages, `missing` are ids that do not exist."""

    queues: tuple[PreviewQueue, ...]
    total: int
    missing: tuple[str, ...]


class Operation(Generic[Result_co]):
    """A request to the cloud's job API. `Result_co` is what the cloud answers."""

    __slots__ = ()
    name: ClassVar[OperationName]
    repeatable: ClassVar[bool] = True
    """Whether it changes nothing: such operations are coalesced, and retried after any transient error."""
    bucket: Bucket
    """The bucket whose host is asked."""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for operations with equal results, hashable. Of repeatable ones only."""
        raise NotImplementedError


@dataclass(eq=False, slots=True)
class Flight:
    """The sending of a create that is on record: when it may be sent, and whether that may have happened."""

    window: Window
    """Validity of its signature, by the cloud's clock."""
    send_by: float
    """The instant of `CloudTimes.elapsed` after which no byte of it may leave."""
    began: bool = False
    """Whether a byte of it may have left this process. False again after an attempt that certainly sent none."""


@dataclass(frozen=True, slots=True)
class CreateJob(Operation[PreviewJob]):
    """Submits a job. CREATE_OUTCOME_UNKNOWN when the cloud may have accepted it.

    With a `flight`: OVERLOADED, and nothing was sent, after its `send_by`; CLOCK_SKEW, and nothing was made, when the
    cloud refuses its window: the cloud's `Date` is heard then, and another attempt needs another window.
    """

    name = "create"
    repeatable = False
    request: CreatePreviewJobRequest
    bucket: Bucket
    output: Bucket
    flight: Flight | None = None
    """None: it is not on record, and is signed as a read is."""


@dataclass(frozen=True, slots=True)
class GetJob(Operation[PreviewJob]):
    """Reads one job. JOB_NOT_FOUND when there is none."""

    name = "get"
    bucket: Bucket
    job_id: str

    @property
    def key(self) -> tuple[object, ...]:
        """Name, bucket, id."""
        return self.name, self.bucket.name, self.job_id


@dataclass(frozen=True, slots=True)
class ListJobs(Operation[JobPage]):
    """Lists a page of `size` jobs (1 to 100) after the cloud's `cursor`.

    ReplyTooLarge when the page is larger than the cap on replies.
    """

    name = "list_jobs"
    request: ListPreviewJobsRequest
    bucket: Bucket
    size: int
    cursor: str

    @property
    def key(self) -> tuple[object, ...]:
        """Name, bucket, filters, page."""
        filters = self.request.SerializeToString(deterministic=True)
        return self.name, self.bucket.name, filters, self.size, self.cursor


@dataclass(frozen=True, slots=True)
class ListQueues(Operation[QueuePage]):
    """Lists page `number`, from 1, of pages of `size` queues (1 to 100)."""

    name = "list_queues"
    request: ListPreviewQueuesRequest
    bucket: Bucket
    size: int
    number: int

    @property
    def key(self) -> tuple[object, ...]:
        """Name, bucket, filters, page."""
        filters = self.request.SerializeToString(deterministic=True)
        return self.name, self.bucket.name, filters, self.size, self.number


class Upstream(Protocol):
    """The cloud's job API as one asynchronous function; middleware is a function of this type around another."""

    async def __call__(self, operation: Operation[Result], call: Call) -> Result:
        """The cloud's answer. UpstreamError, or another GatewayError when it was not asked."""
        ...


class CachingUpstream(Upstream, Protocol):
    """An `Upstream` with a cache in this process."""

    def cached_get(self, bucket: Bucket, job_id: str, call: Call) -> bytes | None:
        """The job from this process's cache, serialised; None on a miss.

        GatewayError, as reading the job would raise it, when it is known already that the cloud cannot answer in time.
        """
        ...

    def cached_many(self, bucket: Bucket, job_ids: Iterable[str], call: Call) -> list[bytes] | None:
        """The jobs from this process's cache, serialised, in this order; None on a miss of one of them."""
        ...

    async def find_shared(self, bucket: Bucket, job_ids: Iterable[str], call: Call) -> dict[str, PreviewJob]:
        """Those of the jobs that the cache of all replicas has, fresh. Does not wait without such a cache."""
        ...
