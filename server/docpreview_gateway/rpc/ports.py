"""What gRPC's handlers need from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Call, Method
    from docpreview_gateway.model.trace_context import Trace


class RpcTelemetry(Protocol):
    """Records calls and their messages."""

    def call_started(self, method: Method, call: Call) -> Trace | None:
        """Records an incoming call, whose caller may not be known yet. Returns its position in its trace, if any."""
        ...

    def message_sent(self, method: Method) -> None:
        """Records a message of a stream; each other call that ends well has sent one."""
        ...

    def call_ended(self, method: Method, call: Call, code: str, seconds: float) -> None:
        """Records a call's end with the status of this name, such as `NOT_FOUND`; `call.response.reason` says why."""
        ...

    def listening(self, listening: bool) -> None:  # noqa: FBT001 - the value that is recorded
        """Records whether the process accepts connections."""
        ...

    def unknown_method(self) -> None:
        """Records a call of a method that does not exist."""
        ...
