"""Several who hear of every call, as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docpreview_gateway.ports import Call, Method, RpcTelemetry


class Observers:
    """The port `RpcTelemetry`, which passes everything on, in the order given. `metrics` alone hears of messages."""

    def __init__(self, metrics: RpcTelemetry, *others: RpcTelemetry) -> None:
        self._all = (metrics, *others)
        self.message_sent = metrics.message_sent

    def call_started(self, method: Method, call: Call) -> None:
        """A call came in."""
        for observer in self._all:
            observer.call_started(method, call)

    def call_ended(self, method: Method, call: Call, code: str, seconds: float) -> None:
        """A call ended."""
        for observer in self._all:
            observer.call_ended(method, call, code, seconds)
