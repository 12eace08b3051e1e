"""What the layers above core need from the world, as small as each need is.

Implementations live in `upstream` (the cloud) and `adapters` (everything else); `wiring` alone knows which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from docpreview_gateway.model.call import Call, Method

if TYPE_CHECKING:
    pass


class EndTelemetry(Protocol):
    """Hears of every call that has ended."""

    def call_ended(self, method: Method, call: Call, code: str, seconds: float) -> None:
        """A call ended with the status of this name, such as `NOT_FOUND`; `call.reason` says why."""
        ...


class CallTelemetry(EndTelemetry, Protocol):
    """Hears of every call."""

    def call_started(self, method: Method, call: Call) -> None:
        """A call came in. Its caller may not be known yet."""
        ...


class RpcTelemetry(CallTelemetry, Protocol):
    """Hears of every call and its messages."""

    def message_sent(self, method: Method) -> None:
        """A message of a stream left; each other call that ends well has sent one."""
        ...
