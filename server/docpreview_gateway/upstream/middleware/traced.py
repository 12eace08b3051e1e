"""Middleware: a span around each attempt at the cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.upstream.ports import Attempt

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.operations import Operation, Result, Upstream
    from docpreview_gateway.upstream.ports import Tracing


def traced(inner: Upstream, tracing: Tracing) -> Upstream:
    """`inner`, with a span of `tracing` around each operation."""

    async def attempt(operation: Operation[Result], call: Call) -> Result:
        with tracing.attempt(Attempt.of(operation, call), call):
            return await inner(operation, call)

    return attempt
