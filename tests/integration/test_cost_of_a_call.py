"""What an uncached Get asks of the event loop: counted, as times say more about the machine.

The caller is a blocking client in a thread, and the cloud a protocol that answers at once, so all that is counted is
gRPC's and the gateway's.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, settings

_JOB = (Path(__file__).parents[1] / "vectors" / "paused-job" / "reply.xml").read_bytes()
_JOB_ID = re.search(rb"<JobId>(.*?)</JobId>", _JOB)[1]  # type: ignore[index]

CALLS = 200
AT_ONCE = 16


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts what is made in it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()

    def create_task(self, *arguments: Any, **options: Any) -> Any:
        self.made["tasks"] += 1
        return super().create_task(*arguments, **options)

    def call_at(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        self.made["timers"] += 1
        return super().call_at(*arguments, **options)


class Cloud(asyncio.Protocol):
    """One connection of a cloud that has every job."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        job_id = data.split(b" ", 2)[1].rpartition(b"/")[2]
        body = _JOB.replace(_JOB_ID, job_id)
        head = b"HTTP/1.1 200 OK\r\nServer: tencent-ci\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)


@dataclass
class Address:
    """Where the cloud is."""

    url: str


async def made_by(calls: int, at_once: int) -> dict[str, float]:
    """What each of so many uncached Gets makes; so many of them are under way at once."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    server = await loop.create_server(Cloud, "127.0.0.1", 0)
    cloud: Any = Address(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with Gateway(settings(cloud)) as gateway:
        with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
            stub = PreviewJobServiceStub(channel)

            def read(first: int, count: int) -> None:
                with ThreadPoolExecutor(at_once) as threads:
                    list(threads.map(lambda number: _read(stub, number), range(first, first + count)))

            await asyncio.to_thread(read, 0, 2 * at_once)  # connections are made
            loop.made.clear()
            await asyncio.to_thread(read, 1000, calls)
            made = {what: number / calls for what, number in loop.made.items()}
    server.close()
    return made


def _read(stub: PreviewJobServiceStub, number: int) -> None:
    job_id = f"d{number:032x}"
    assert stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id=job_id), timeout=20).job_id == job_id


def test_an_uncached_get_makes_three_tasks_and_no_more_than_two_timers() -> None:
    """Two tasks are gRPC's; the third is the read, which outlives its caller when others wait for it.

    The timers are the deadline of the call and that of the attempt.
    """
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        made = runner.run(made_by(CALLS, 1))
    # The gateway's own rounds, such as that of the watchdog, make a few beside.
    assert (round(made["tasks"], 1), round(made["timers"], 1)) <= (3.1, 2.2), made


def test_uncached_gets_at_the_same_time_share_their_timers() -> None:
    """A timer is made for all deadlines of a tick."""
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        made = runner.run(made_by(CALLS, AT_ONCE))
    assert made["tasks"] <= 3.2, made
    assert made["timers"] <= 1.0, made
