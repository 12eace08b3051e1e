"""A cloud that always gives the same answer: every `GET /doc_jobs/<id>` is a finished job of 1.2 KB.

But a job whose id begins with `r` runs for ever, and one with `c` has another state at each read, Submitted or Running.
The argument, if there is one, is how many seconds each answer takes.

HTTP/1.1 with keep-alive connections and nothing else, to affect the measurement as little as possible.
Run as a command it prints its port and serves until its standard input ends; `GET /count` answers the number of served
jobs. Lists are empty.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import ClassVar

JOB = """<Response><JobsDetail><Code>Success</Code><CreationTime>{day}T17:15:43+0800</CreationTime>\
<EndTime>{day}T17:15:45+0800</EndTime><Input><BucketId>docs-1250000000</BucketId><Object>1.txt</Object>\
<Region>ap-chongqing</Region></Input><JobId>{job_id}</JobId><Message/><Operation><DocProcess><Comments>1</Comments>\
<DocPassword/><EndPage>-1</EndPage><ImageDpi>96</ImageDpi><ImageParams/><PageRanges>1,3</PageRanges>\
<PaperDirection>0</PaperDirection><PaperSize>0</PaperSize><PicPagination>0</PicPagination><Quality>100</Quality>\
<SheetId>0</SheetId><SrcType/><StartPage>0</StartPage><TgtType/><Zoom>100</Zoom></DocProcess><DocProcessResult>\
<FailPageCount>0</FailPageCount><PageInfo><PageNo>1</PageNo><TgtUri>/test_doc/normal/abc_1.jpg</TgtUri></PageInfo>\
<PageInfo><PageNo>3</PageNo><TgtUri>/test_doc/normal/abc_3.jpg</TgtUri></PageInfo><SuccPageCount>2</SuccPageCount>\
<TaskId/><TgtType/><TotalPageCount>7</TotalPageCount></DocProcessResult><JobLevel>0</JobLevel><Output>\
<Bucket>docs-1250000000</Bucket><Object>/test_doc/normal/abc_${{Number}}.jpg</Object><Region>ap-chongqing</Region>\
</Output></Operation><QueueId>p4bdf22746b014a22a5a097b1f1d057f1</QueueId><StartTime>{day}T17:15:44+0800</StartTime>\
<State>Success</State><Tag>DocProcess</Tag></JobsDetail></Response>"""
"""The vendor's sample answer (document 1045/51266), of yesterday: pages 1 and 3 of a document."""

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()  # noqa: TID251 - jobs of old are not kept

HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nServer: tencent-ci\r\n"
    f"Date: {formatdate(usegmt=True)}\r\nx-ci-request-id: NjMxMjEwMWFfZTFjOTdiNjRfMTIzXzQ1Ng==\r\n\r\n"
)


class CannedUpstream(asyncio.Protocol):
    """One connection. Requests have no body, so a request ends with the empty line behind its headers."""

    served = 0
    delay = 0.0
    reads: ClassVar[Counter[str]] = Counter()
    """Of each job that changes."""

    def __init__(self) -> None:
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._pending = (self._pending + data).split(b"\r\n\r\n")
        for request in requests:
            reply = self._reply(request.split(b" ", 2)[1].decode())
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self._transport.write, reply)
            else:
                self._transport.write(reply)

    @classmethod
    def _reply(cls, path: str) -> bytes:
        if path == "/count":
            body = str(cls.served)
        elif "?" in path:
            body = "<Response></Response>"  # a list: the gateway asks whether the cloud is there
        else:
            cls.served += 1
            job_id = path.rpartition("/")[2]
            body = JOB.format(job_id=job_id, day=YESTERDAY)
            if (state := cls._state(job_id)) != "Success":
                body = body.replace("<State>Success", f"<State>{state}")
        return (HEAD.format(length=len(body)) + body).encode()

    @classmethod
    def _state(cls, job_id: str) -> str:
        if not job_id.startswith("c"):
            return "Running" if job_id.startswith("r") else "Success"
        cls.reads[job_id] += 1
        return "Submitted" if cls.reads[job_id] % 2 else "Running"


async def until_stdin_ends() -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(stop.set)), daemon=True).start()
    await stop.wait()


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(CannedUpstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await until_stdin_ends()


if __name__ == "__main__":
    CannedUpstream.delay = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    asyncio.run(main())
