"""What a program does with an error: repeat the call now, later, or never. And how long to pause before it does."""

import random
from datetime import timedelta
from typing import Final, Literal, TypeAlias

import grpc

from docpreview.v1 import error_reason_pb2 as contract

Retry: TypeAlias = Literal["now", "later", "never"]

_NAMES: Final[dict[int, Retry]] = {contract.RETRY_NOW: "now", contract.RETRY_LATER: "later"}
# The contract's own table: each reason has its `(retry)` as an option.
_BY_REASON: Final[dict[str, Retry]] = {
    value.name.removeprefix("ERROR_REASON_"): _NAMES.get(value.GetOptions().Extensions[contract.retry], "never")
    for value in contract.ErrorReason.DESCRIPTOR.values
}
_NOW: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED},
)


def retry_of(code: grpc.StatusCode, reason: str) -> Retry:
    """By the reason, `never` when it is newer than this client; without one by the code."""
    if reason:
        return _BY_REASON.get(reason, "never")
    return "now" if code in _NOW else "never"


class Pauses:
    """Pauses that grow from `first` to `longest` seconds, and are never shorter than the gateway asked for."""

    def __init__(self, *, first: float = 0.2, longest: float = 10.0) -> None:
        self._first = first
        self._longest = longest
        self._pause = first

    def reset(self) -> None:
        """Begins anew with the first pause."""
        self._pause = self._first

    def after(self, retry_delay: timedelta | None = None) -> float:
        """The next pause in seconds, up to 30 % longer by chance."""
        pause, self._pause = self._pause, min(self._pause * 2, self._longest)
        asked = retry_delay.total_seconds() if retry_delay is not None else 0.0
        return max(asked, pause) * random.uniform(1.0, 1.3)  # noqa: S311 - spreads clients, protects nothing
