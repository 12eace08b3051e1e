"""The port that the cloud calls back: `POST /<token>`, answered with 200 at once, whatever it says.

An answer tells a stranger nothing: not whether the token was right, nor whether there is such a job.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from docpreview_gateway.callbacks.bodies import MAX_BODY_BYTES, job_ids
from docpreview_gateway.telemetry.bounded_http import BoundedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from docpreview_gateway.callbacks.hints import Hints, HintTelemetry
    from docpreview_gateway.model.buckets import Bucket

STOP_SECONDS = 1.0


class Receiver:
    """Takes callbacks. `bucket_of` gives the bucket of a token, None for one that was not made here."""

    def __init__(self, hints: Hints, telemetry: HintTelemetry, bucket_of: Callable[[str], Bucket | None]) -> None:
        self._hints = hints
        self._telemetry = telemetry
        self._bucket_of = bucket_of

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """200 without a body."""
        bucket = self._bucket_of(request.path.rpartition("/")[2]) if request.method == "POST" else None
        if bucket is None:
            # Its body is not read.
            self._telemetry.callback("foreign")
            return web.Response()
        found = job_ids(await _body(request))
        if not found:
            self._telemetry.callback("malformed")
        for job_id in found:
            self._hints.take(bucket, job_id)
        return web.Response()

    @asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncIterator[int]:
        """Serve while the context is open. Yields the port. OSError when it is taken."""
        runner = web.ServerRunner(BoundedServer(self.answer), shutdown_timeout=STOP_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


async def _body(request: web.BaseRequest) -> bytes:
    """The body; empty for one that is too large."""
    parts = bytearray()
    async for part in request.content.iter_any():
        parts += part
        if len(parts) > MAX_BODY_BYTES:
            return b""
    return bytes(parts)
