"""Fault injection: kinds of faults, the operations that they apply to, and how often."""

import math
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import TypeVar

from docpreview_emulator.errors import ControlError


class Kind(StrEnum):
    """The kind of a fault; `MEANINGS` says what each does."""

    LATENCY = "latency"
    THROTTLE = "throttle"
    ERROR = "error"
    DROP_BEFORE = "drop_before"
    DROP_AFTER = "drop_after"
    TRUNCATE = "truncate"
    GARBAGE = "garbage"
    DRIP = "drip"
    EMPTY_PAGE = "empty_page"
    TWICE = "twice"
    EARLY = "early"
    REVERSE = "reverse"
    OTHER_STATE = "other_state"
    OTHER_JOB = "other_job"
    WRONG_TOKEN = "wrong_token"


class Operation(StrEnum):
    """The requests that a fault applies to."""

    ANY = "*"
    CREATE = "create"
    GET = "get"
    LIST = "list"
    QUEUES = "queues"
    UPDATE_QUEUE = "update_queue"
    BUCKETS = "buckets"
    OBJECT = "object"
    OTHER = "other"
    CALLBACK = "callback"
    """Not a request to the emulator but one that it makes: `*` does not mean it. It has kinds of its own, and
    `latency`, which makes it late, and `drop_before`, which loses it."""


MEANINGS = {
    Kind.LATENCY: "The request is carried out, or the callback sent, seconds later.",
    Kind.THROTTLE: "503 SlowDown, or the given status and code; the request is not carried out.",
    Kind.ERROR: "500 InternalError, or the given status and code; the request is carried out only with accepted.",
    Kind.DROP_BEFORE: "The connection breaks and the request is not carried out; a callback is lost.",
    Kind.DROP_AFTER: "The request is carried out and the connection breaks before the answer.",
    Kind.TRUNCATE: "The request is carried out and the connection breaks in the middle of the answer's body.",
    Kind.GARBAGE: "The request is carried out and answered 200 with something that is not XML.",
    Kind.DRIP: "The request is carried out and its answer's body takes seconds to arrive, piece by piece.",
    Kind.EMPTY_PAGE: "A list is answered with an empty page, whose NextToken leads to the page that was asked for.",
    Kind.TWICE: "A callback is sent twice.",
    Kind.EARLY: "A callback comes before the end that it tells: reads show its job as running for seconds after it.",
    Kind.REVERSE: "As many callbacks as times says are kept until all their jobs have ended, then sent in reverse.",
    Kind.OTHER_STATE: "A callback says that a job has failed that has succeeded, and the other way round.",
    Kind.OTHER_JOB: "A callback names another job of the bucket, or a made-up one when there is none.",
    Kind.WRONG_TOKEN: "A callback goes to an address whose last part is another one of the same length.",
}
"""What a fault of each kind does."""

_OF_CALLBACKS_ONLY = frozenset(
    {Kind.TWICE, Kind.EARLY, Kind.REVERSE, Kind.OTHER_STATE, Kind.OTHER_JOB, Kind.WRONG_TOKEN}
)
_OF_CALLBACKS = _OF_CALLBACKS_ONLY | {Kind.LATENCY, Kind.DROP_BEFORE}
_LEAST_REVERSED = 2
_NEED_SECONDS = {
    Kind.LATENCY: "how much later the request is carried out, or the callback sent",
    Kind.DRIP: "how long the body takes to arrive",
    Kind.EARLY: "how long reads show the job as running after its callback",
}
_STATUS = {Kind.THROTTLE: (503, "SlowDown"), Kind.ERROR: (500, "InternalError")}


def fitting(kind: Kind) -> list[Operation]:
    """The operations that faults of this kind may have."""
    if kind in _OF_CALLBACKS_ONLY:
        return [Operation.CALLBACK]
    if kind is Kind.EMPTY_PAGE:
        return [Operation.ANY, Operation.LIST]
    return [each for each in Operation if each is not Operation.CALLBACK or kind in _OF_CALLBACKS]


def takes_seconds(kind: Kind) -> bool:
    """Whether `seconds` changes faults of this kind, which need it then."""
    return kind in _NEED_SECONDS


@dataclass(slots=True)
class Fault:
    """A fault. It applies to the next `times` requests of its operation, after `skip` requests without it."""

    kind: Kind
    operation: Operation = Operation.ANY
    times: int | None = 1
    """Number of requests that it applies to; None means all, until the faults are cleared."""

    skip: int = 0
    seconds: float = 0.0
    status: int = 0
    """The HTTP status; 0 means the kind's own."""

    code: str = ""
    message: str = "injected by the emulator"
    accepted: bool = False
    retry_after: float | None = field(default=None)
    """Seconds for a `Retry-After` header with throttle and error."""

    def __post_init__(self) -> None:
        """Check and complete the fields.

        Raises:
            ControlError: a value is not one that is accepted; the message lists those that are.
        """
        self.kind = _member(Kind, self.kind, "kind")
        self.operation = _member(Operation, self.operation, "operation")
        status, code = _STATUS.get(self.kind, (0, ""))
        self.status, self.code = self.status or status, self.code or code
        if self.status and not 300 <= self.status <= 599:  # noqa: PLR2004
            raise ControlError("status must be between 300 and 599")
        if not (math.isfinite(self.seconds) and math.isfinite(self.retry_after or 0)):
            raise ControlError("seconds and retry_after must be finite numbers")
        if self.seconds < 0 or self.skip < 0 or (self.times is not None and self.times < 1):
            raise ControlError("seconds and skip must not be negative, times must be at least 1 or null")
        self._check_operation()

    def _check_operation(self) -> None:
        if self.kind is Kind.EMPTY_PAGE:
            if self.operation not in {Operation.ANY, Operation.LIST}:
                raise ControlError(f"kind {self.kind} is one of operation list only, not of {self.operation}")
            self.operation = Operation.LIST
        if self.operation is Operation.CALLBACK and self.kind not in _OF_CALLBACKS:
            accepted = ", ".join(kind for kind in Kind if kind in _OF_CALLBACKS)
            raise ControlError(f"kind {self.kind} is none of operation callback; accepted: {accepted}")
        if self.operation is not Operation.CALLBACK and self.kind in _OF_CALLBACKS_ONLY:
            raise ControlError(f"kind {self.kind} is one of operation callback only, not of {self.operation}")
        if self.kind in _NEED_SECONDS and not self.seconds:
            raise ControlError(f"{self.kind} needs seconds: {_NEED_SECONDS[self.kind]}")
        if self.kind is Kind.REVERSE and (self.times is None or self.times < _LEAST_REVERSED):
            raise ControlError("reverse needs times of at least 2: the callbacks that are sent in reverse order")

    @classmethod
    def of(cls, given: Mapping[str, object]) -> "Fault":
        """The fault that a JSON object describes.

        Raises:
            ControlError: a key or value is not one that is accepted.
        """
        accepted = [f.name for f in fields(cls)]
        unknown = sorted(given.keys() - set(accepted))
        if unknown or "kind" not in given:
            problem = f"unknown keys {unknown}" if unknown else "kind is missing"
            raise ControlError(f"{problem}; accepted: {', '.join(accepted)}")
        for name, value in given.items():
            if not isinstance(value, _accepted_types(name)) or (isinstance(value, bool) and name != "accepted"):
                raise ControlError(f"{name} is of the wrong type")
        return cls(**given)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, object]:
        """The fault as a JSON object."""
        return asdict(self)


Choice = TypeVar("Choice", bound=StrEnum)


def _accepted_types(name: str) -> tuple[type, ...]:
    special: dict[str, tuple[type, ...]] = {
        "times": (int, type(None)),
        "skip": (int,),
        "status": (int,),
        "seconds": (int, float),
        "retry_after": (int, float, type(None)),
        "accepted": (bool,),
    }
    return special.get(name, (str,))


def _member(choices: type[Choice], value: str, name: str) -> Choice:
    try:
        return choices(value)
    except ValueError:
        raise ControlError(f"{name} {value!r} is unknown; accepted: {', '.join(choices)}") from None


class ActiveFaults:
    """The active faults; safe to change from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Append a fault."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def active(self) -> list[Fault]:
        """The faults that still apply to coming requests."""
        with self._lock:
            return list(self._faults)

    def take(self, operation: Operation) -> list[Fault]:
        """The faults that apply to this request: every latency, and the first fault of another kind."""
        struck: list[Fault] = []
        meant = {operation} if operation is Operation.CALLBACK else {Operation.ANY, operation}
        with self._lock:
            for fault in self._faults:
                if fault.operation not in meant:
                    continue
                if fault.kind is Kind.LATENCY or all(f.kind is Kind.LATENCY for f in struck):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    struck.append(fault)
                    fault.times = None if fault.times is None else fault.times - 1
            self._faults = [fault for fault in self._faults if fault.times != 0]
        return struck
