"""The port that the cloud calls back: `POST /<token>`, answered with 200 at once, whatever it says.

An answer tells a stranger nothing: not whether the token was right, nor whether there is such a job. Connections, the
time of a head and of a body, and its size have limits. So has the rate of callbacks with a token of ours; those without
one cost no more than their answer, and use up nothing that the cloud's callbacks need.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from aiohttp import ClientError, web

from docpreview_gateway.callbacks.bodies import MAX_BODY_BYTES, job_ids
from docpreview_gateway.limits.gcra import Rates, rule
from docpreview_gateway.model.callers import Rate
from docpreview_gateway.telemetry.bounded_http import BoundedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from docpreview_gateway.callbacks.hints import Hints, HintTelemetry
    from docpreview_gateway.model.buckets import Bucket

STOP_SECONDS = 1.0
BODY_SECONDS = 10.0
"""Seconds in which the body of a callback must have come."""

MOST_CONNECTIONS = 1000
"""Most open connections: the cloud opens one for each job, and many jobs may end in the same second."""

OF_PEER, OF_ALL = Rate(200, 2000), Rate(400, 4000)
"""Most callbacks with a token of ours, from one address and in all. Behind an Ingress all have its address."""

MOST_BODY_BYTES = 8 * MAX_BODY_BYTES
"""A sender may write so much until it is cut off: one that is not read to its end would have no answer."""

MOST_NONCE = 64
FORGET_AFTER = 1000
"""Callbacks after which addresses are forgotten that have sent none lately."""


class Receiver:
    """Takes callbacks. `bucket_of` gives the bucket of a token, None for one that was not made here.

    `tell` passes hints on to the other workers of this gateway; None: there are none, or they hear by themselves.
    `proof` gives what answers a nonce for a token of `doctor`, None for all others.
    """

    def __init__(  # noqa: PLR0913 - each is a collaborator, and wiring names them
        self,
        hints: Hints,
        telemetry: HintTelemetry,
        bucket_of: Callable[[str], Bucket | None],
        tell: Callable[[str, str], None] | None = None,
        *,
        proof: Callable[[str], Callable[[str], str] | None] = lambda _token: None,
        of_peer: Rate = OF_PEER,
        of_all: Rate = OF_ALL,
    ) -> None:
        self._proof = proof
        self._of_peer, self._of_all = of_peer, of_all
        self._tell = tell
        self._hints = hints
        self._telemetry = telemetry
        self._bucket_of = bucket_of
        self._rates = Rates()
        self._counted = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """200 without a body; to `doctor` with a proof."""
        token = request.path.rstrip("/").rpartition("/")[2] if request.method == "POST" else ""
        bucket = self._bucket_of(token)
        if bucket is None and (proof := self._proof(token)) is not None:
            return web.Response(text=proof((await _body(request))[:MOST_NONCE].decode(errors="replace")))
        if bucket is None:
            # Its body is not read.
            self._telemetry.callback("foreign")
            return web.Response()
        if self._is_over_rate(request.remote or ""):
            self._telemetry.callback("limited")
            return web.Response()
        found = job_ids(await _body(request))
        if not found:
            self._telemetry.callback("malformed")
        for job_id in found:
            if self._hints.take(bucket, job_id) == "read" and self._tell is not None:
                self._tell(bucket.name, job_id)
        return web.Response()

    @asynccontextmanager
    async def serving(self, host: str, port: int, *, shared: bool = False) -> AsyncIterator[int]:
        """Serve while the context is open. Yields the port. OSError when it is taken; `shared` ones have others too."""
        server = BoundedServer(self.answer, most=MOST_CONNECTIONS, answer_seconds=BODY_SECONDS, name="callback port")
        runner = web.ServerRunner(server, shutdown_timeout=STOP_SECONDS)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, backlog=MOST_CONNECTIONS, reuse_port=shared or None)
            await site.start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    def _is_over_rate(self, peer: str) -> bool:
        now = time.monotonic()
        self._counted += 1
        if self._counted % FORGET_AFTER == 0:
            self._rates.forget_idle(now)
        rules = rule(f"peer:{peer}", "rate", self._of_peer), rule("all", "rate", self._of_all)
        return self._rates.take(rules, now) is not None


async def _body(request: web.BaseRequest) -> bytes:
    """The first MAX_BODY_BYTES of the body; empty for one that does not come whole, or is far larger."""
    kept, size = bytearray(), 0
    # What aiohttp raises for a sender that goes away, or breaks off a chunk.
    with suppress(OSError, web.RequestPayloadError, ClientError):
        async for part in request.content.iter_any():
            size += len(part)
            if size > MOST_BODY_BYTES:
                return b""
            kept += part[: MAX_BODY_BYTES - len(kept)]
        return bytes(kept)
    return b""
