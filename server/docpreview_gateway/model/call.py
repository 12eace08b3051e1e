"""A call on its way through the gateway: what is fixed when it arrives, and what is filled in for its reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, Self, TypeAlias

from docpreview_gateway.model.callers import ANONYMOUS, Caller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview_gateway.model.trace_context import Trace

ANSWER_MARGIN = 0.05
"""Seconds before a call's deadline at which work for it stops, so that the reply still reaches the caller."""


MAX_REPLY_BYTES = 4 * 1024 * 1024 - 64 * 1024
"""Bytes of the largest message of a reply: clients accept 4 MiB by default."""


MAX_NOTED_JOBS = 10
"""Most jobs of a call by which the operator page finds it."""


@dataclass(slots=True)
class ResponseInfo:
    """Facts about a reply, filled in while the call is served, logged and measured, and sent back if `disclosed`."""

    cache: Literal["", "hit", "miss", "coalesced", "stale"] = ""
    """Outcome of the cache look-up; empty: the call reads nothing."""
    upstream_request_id: str = ""
    """The cloud's id of the latest request made for the call; empty: there was none, or no reply to it."""
    marker: str = ""
    """Marker of the job that was read from the cloud for the call; empty: none was, or it has none."""
    reason: str = ""
    """Name of the reason of the error that ended the call, such as `JOB_NOT_FOUND`; empty: it succeeded."""
    rule: str = ""
    """Path of the policy's rule that refused the call; empty: none did."""
    bucket: str = ""
    """Name of the configured bucket that the call is about; empty: none, or it has not got so far."""
    job_ids: tuple[str, ...] = ()
    """Ids of the jobs that a valid request names, or of the one that it made: MAX_NOTED_JOBS at most."""
    disclosed: bool = False
    """Whether the caller gets `cache` and `upstream_request_id`: to one from whom jobs are hidden they would tell what
    other callers did."""


@dataclass(slots=True)
class SharedRead:
    """State of a read that may serve several callers; it outlives each of them."""

    wanted_by: float
    """Instant after which no caller needs the result. It decides whether to start more work, and ends none."""
    no_cache: bool = False
    """Whether one of the callers wants what the cloud says now."""
    is_new: bool = False
    """Whether the job was created a moment ago, so that the cloud may not show it yet."""
    envelope: bytes | None = None
    """What the replicas' cache has: while the read lasts, and after an error, a stale copy; then what was read."""


Charge: TypeAlias = "Callable[[int], Awaitable[None]]"
"""Charges reads of the cloud, beyond the one that each call is charged for, to the rates of the call's caller."""


class _CallFields(NamedTuple):
    """A tuple and not a frozen dataclass: several are made for a call, and a dataclass takes three times as long."""

    request_id: str
    """The caller's `x-request-id`, or one made here; empty for work of the gateway itself."""
    deadline: float
    """Instant at which the caller stops waiting."""
    caller: Caller = ANONYMOUS
    """Who makes the call."""
    no_cache: bool = False
    """Read from the cloud now, not from a cache."""
    trace: Trace | None = None
    """Position in the trace that the call belongs to; None: it is not traced."""
    shared_read: SharedRead | None = None
    """The read that this call is a part of, below the cache; None above it."""
    response: ResponseInfo | None = None
    charge: Charge | None = None
    """For `charge_reads`; None: the caller has no rate."""


class Call(_CallFields):
    """One call, as it arrived. Instants are those of `time.monotonic`, which is the event loop's clock too.

    Immutable; `_replace` makes a derived call, which fills in the same `response` unless it gets one of its own.
    """

    __slots__ = ()
    response: ResponseInfo
    """Filled in on the way."""

    def __new__(  # noqa: PLR0913, PLR0917 - the fields
        cls,
        request_id: str,
        deadline: float,
        caller: Caller = ANONYMOUS,
        no_cache: bool = False,  # noqa: FBT001, FBT002 - as the field
        trace: Trace | None = None,
        shared_read: SharedRead | None = None,
        response: ResponseInfo | None = None,
        charge: Charge | None = None,
    ) -> Self:
        """A call with an empty `response`, unless there is one."""
        info = ResponseInfo() if response is None else response
        return super().__new__(cls, request_id, deadline, caller, no_cache, trace, shared_read, info, charge)

    async def charge_reads(self, reads: int) -> None:
        """Charge the caller for reading the cloud this many times. The first read is paid with the call.

        They are never refused: they delay the caller's next calls. LIMITER_UNAVAILABLE when they cannot be counted.
        """
        if self.charge is not None and reads > 1:
            await self.charge(reads - 1)

    @property
    def wanted_by(self) -> float:
        """Instant after which nobody needs the result: the latest deadline of all callers who share the read."""
        return self.deadline if self.shared_read is None else min(self.deadline, self.shared_read.wanted_by)

    @property
    def answer_by(self) -> float:
        """Instant at which work for the call stops."""
        return self.deadline - ANSWER_MARGIN


class Clock(Protocol):
    """The wall clock. Instants for deadlines and durations are read from `time.monotonic` instead."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A method of the contract; `kind` as go-grpc-middleware's metrics name it.

    Compared by identity, so that looking up a method's metrics does not compare strings at every call.
    """

    service: str
    name: str
    kind: Literal["unary", "server_stream"]
