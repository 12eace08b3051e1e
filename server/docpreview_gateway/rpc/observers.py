"""Several who hear of every call, as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Call, Method
    from docpreview_gateway.model.trace_context import Trace
    from docpreview_gateway.rpc.handlers import CallTelemetry, EndTelemetry, RpcTelemetry


class Observers:
    """The port `RpcTelemetry`, which passes everything on: `metrics`, `traces` (None: there are none), `log`.

    `metrics` alone hears of messages, and `log` of ends only.
    """

    def __init__(self, metrics: RpcTelemetry, traces: CallTelemetry | None, log: EndTelemetry) -> None:
        self._metrics, self._traces, self._log = metrics, traces, log
        self.message_sent = metrics.message_sent

    def call_started(self, method: Method, call: Call) -> Trace | None:
        """A call came in. Returns its position in its trace, if it is traced."""
        self._metrics.call_started(method, call)
        return None if self._traces is None else self._traces.call_started(method, call)

    def call_ended(self, method: Method, call: Call, code: str, seconds: float) -> None:
        """A call ended."""
        self._metrics.call_ended(method, call, code, seconds)
        if self._traces is not None:
            self._traces.call_ended(method, call, code, seconds)
        self._log.call_ended(method, call, code, seconds)
