"""To be said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from docpreview_gateway.model.callers import ANONYMOUS, Caller

if TYPE_CHECKING:
    from docpreview_gateway.model.trace_context import Trace


@dataclass(slots=True)
class Call:
    """One call of a caller on its way through the gateway.

    `caller` is who makes it. `deadline` is an instant of `time.monotonic`, which is the event loop's clock too (under
    this name it costs no system call to find the loop, as Python 3.11's does). `no_cache` asks for an answer that is
    read from the cloud now; `sign_until` is the Unix time at which a create's signature must end (None: as usual).
    `wanted_by` is the instant after which a shared read, which has a deadline of its own, is of no use to its callers:
    it decides what is worth beginning, and ends nothing. `trace` is the trace that the call belongs to, if it brought
    one or one is being made. The other fields are filled in on the way: `shared_wait` are the seconds that its latest
    read has waited for what replicas share, `reason` is that of the error that ended the call, for whoever observes it;
    the rest is sent back as metadata.
    """

    request_id: str
    deadline: float
    caller: Caller = ANONYMOUS
    no_cache: bool = False
    sign_until: float | None = None
    wanted_by: float = math.inf
    trace: Trace | None = None
    upstream_request_id: str = ""
    cache: Literal["", "hit", "miss", "coalesced", "stale"] = ""
    reason: str = ""
    shared_wait: float = 0.0


class Clock(Protocol):
    """The wall clock."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A method of the contract; `kind` as go-grpc-middleware's metrics name it.

    Two are never equal, so that finding what is kept for one does not compare words at every call.
    """

    service: str
    name: str
    kind: Literal["unary", "server_stream"]
