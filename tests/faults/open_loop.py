"""Open-loop load generator: `python -m tests.faults.open_loop CPU PORT RATE SECONDS DEADLINE`.

RATE 0 measures the capacity in closed loop: 50 callers, each of which calls again when it is answered. Prints one line
of JSON. Speaks HTTP/2 itself (`http2.py`), so that one processor can offer a multiple of the gateway's capacity.
OPEN_LOOP_TOKEN is the bearer token of its calls, for a gateway with a policy.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections import Counter

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from tests.faults import http2
from tests.faults.gateway_process import BUCKET

CONNECTIONS = 50
STREAMS = 100
PATH = "/docpreview.v1.PreviewJobService/GetPreviewJob"
_IDS = itertools.count(int.from_bytes(os.urandom(6), "big"))


class Connection(asyncio.Protocol):
    """One HTTP/2 connection; a call beyond the gateway's limit of streams is not made and counts as `no stream`."""

    def __init__(self, results: Results, deadline: float) -> None:
        self._results = results
        token = os.environ.get("OPEN_LOOP_TOKEN", "").encode()
        extra = [(b"authorization", b"Bearer " + token)] if token else []
        self._headers = http2.request_headers(PATH, deadline=f"{round(1000 * deadline)}m", extra=extra)
        self._buffer = bytearray()
        self._stream = 1
        self.open: dict[int, float] = {}
        self.closed_loop = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(http2.HELLO)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._results.outcomes["connection lost"] += 1
        self._results.outcomes["lost with it"] += len(self.open)
        self.open.clear()

    def call(self) -> None:
        if len(self.open) >= STREAMS or self._transport.is_closing():
            self._results.outcomes["no stream"] += 1
            return
        body = GetPreviewJobRequest(bucket=BUCKET, job_id=f"d{next(_IDS):031x}").SerializeToString()
        self.open[self._stream] = asyncio.get_running_loop().time()
        self._transport.write(http2.call(self._stream, self._headers, body))
        self._stream += 2

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for frame in http2.frames(self._buffer):
            if frame.kind == http2.SETTINGS and not frame.flags & http2.ACK:
                self._transport.write(http2.frame(http2.SETTINGS, http2.ACK))
            elif frame.kind == http2.PING and not frame.flags & http2.ACK:
                self._transport.write(http2.frame(http2.PING, http2.ACK, 0, frame.payload))
            elif frame.kind == http2.HEADERS and frame.flags & http2.END_STREAM:
                self._ended(frame.stream, http2.status(frame.payload))
            elif frame.kind == http2.RST_STREAM:
                self._ended(frame.stream, None)

    def _ended(self, stream: int, status: int | None) -> None:
        begun = self.open.pop(stream, None)
        if begun is None:
            return
        self._results.add(status, asyncio.get_running_loop().time() - begun)
        if self.closed_loop:
            self.call()


class Results:
    """Outcomes of calls, and their latencies."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {"OK": [], "refused": []}

    def add(self, status: int | None, seconds: float) -> None:
        # 1 is CANCELLED by gRPC's server itself, before the gateway's handler has seen the call.
        kind = {0: "OK", 1: "refused", 4: "late", 8: "refused", 14: "refused"}.get(
            -1 if status is None else status, f"status {status}"
        )
        self.outcomes[kind] += 1
        if kind in self.times:
            self.times[kind].append(seconds)

    def summary(self, seconds: float) -> dict[str, object]:
        outcomes = dict(self.outcomes)
        found: dict[str, object] = {"seconds": seconds, "outcomes": outcomes, "goodput": self.outcomes["OK"] / seconds}
        for kind, times in self.times.items():
            times.sort()
            for share in (0.5, 0.99):
                found[f"{kind} p{round(100 * share)} ms"] = (
                    round(1000 * times[int(share * len(times))], 1) if times else 0.0
                )
        return found


async def main(port: int, rate: float, seconds: float, deadline: float) -> dict[str, object]:
    loop, results = asyncio.get_running_loop(), Results()
    connections = [
        (await loop.create_connection(lambda: Connection(results, deadline), "127.0.0.1", port))[1]
        for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(0.5)
    begun = loop.time()
    if not rate:
        for connection in connections:
            connection.closed_loop = True
            connection.call()
        await asyncio.sleep(seconds)
    made = 0
    while rate and (now := loop.time() - begun) < seconds:
        for _ in range(min(500, int(now * rate) - made)):
            connections[made % CONNECTIONS].call()
            made += 1
        await asyncio.sleep(0.001)
    took = loop.time() - begun
    for connection in connections:
        connection.closed_loop = False
    await asyncio.sleep(0 if not rate else deadline + 0.5)
    results.outcomes["no answer"] = sum(len(connection.open) for connection in connections)
    return {"offered": rate, "made": made, **results.summary(took)}


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    print(json.dumps(asyncio.run(main(int(sys.argv[2]), *map(float, sys.argv[3:])))))  # noqa: T201
