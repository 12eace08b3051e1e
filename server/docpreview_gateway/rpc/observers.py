"""Fan-out of call telemetry to metrics, traces and the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Call, Method
    from docpreview_gateway.model.trace_context import Trace
    from docpreview_gateway.rpc.handlers import CallTelemetry, EndTelemetry, RpcTelemetry


class Observers:
    """`RpcTelemetry` that forwards to `metrics`, `traces` (None: off) and `log`.

    Only `metrics` gets messages; `log` gets ends only.
    """

    def __init__(self, metrics: RpcTelemetry, traces: CallTelemetry | None, log: EndTelemetry) -> None:
        self._metrics, self._traces, self._log = metrics, traces, log
        self.message_sent = metrics.message_sent

    def call_started(self, method: Method, call: Call) -> Trace | None:
        """Record the start of a call. Returns its own position in its trace, None when it is not traced."""
        self._metrics.call_started(method, call)
        return None if self._traces is None else self._traces.call_started(method, call)

    def call_ended(self, method: Method, call: Call, code: str, seconds: float) -> None:
        """Record the end of a call."""
        self._metrics.call_ended(method, call, code, seconds)
        if self._traces is not None:
            self._traces.call_ended(method, call, code, seconds)
        self._log.call_ended(method, call, code, seconds)
