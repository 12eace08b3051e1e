"""A cloud for the realistic day: jobs of 30 pages that take their time, and call back at their end if asked to.

`POST /doc_jobs` makes a job, `GET /doc_jobs/<id>` reads it, a list is empty. The seconds of a job are log-normal with
the median and the seed that are the arguments, the same for the nth job of every cloud with that seed, between a fourth
of the median and six times as long.

HTTP/1.1 with keep-alive connections. Prints its port and serves until its standard input ends; `GET /told` answers with
how many requests there were of each kind, and when each job ended, by the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from urllib.parse import urlsplit

from canned_upstream import until_stdin_ends

PAGES = 30
SIGMA = 0.6
"""Of the logarithm of a job's seconds."""

CLOUD_ZONE = timezone(timedelta(hours=8))

DETAIL = """<JobsDetail><Code>Success</Code><CreationTime>{created}</CreationTime><EndTime>{ended}</EndTime><Input>\
<BucketId>docs-1250000000</BucketId><Object>{source}</Object><Region>ap-chongqing</Region></Input><JobId>{job_id}</JobId>\
<Message/><Operation><DocProcess><Comments>0</Comments><DocPassword/><EndPage>-1</EndPage><ImageDpi>96</ImageDpi>\
<ImageParams/><PageRanges/><PaperDirection>0</PaperDirection><PaperSize>0</PaperSize><PicPagination>0</PicPagination>\
<Quality>100</Quality><SheetId>0</SheetId><SrcType/><StartPage>0</StartPage><TgtType/><Zoom>100</Zoom></DocProcess>{result}\
<JobLevel>0</JobLevel><Output><Bucket>docs-1250000000</Bucket><Object>{output}</Object><Region>ap-chongqing</Region>\
</Output><UserData>{user_data}</UserData></Operation><QueueId>p4bdf22746b014a22a5a097b1f1d057f1</QueueId>\
<StartTime>{started}</StartTime><State>{state}</State><Tag>DocProcess</Tag></JobsDetail>"""

RESULT = (
    "<DocProcessResult><FailPageCount>0</FailPageCount>{pages}<SuccPageCount>30</SuccPageCount><TaskId/><TgtType/>"
    "<TotalPageCount>30</TotalPageCount></DocProcessResult>"
)
PAGE = "<PageInfo><PageNo>{number}</PageNo><TgtUri>{uri}</TgtUri></PageInfo>"

HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nServer: tencent-ci\r\n"
    "Date: {date}\r\nx-ci-request-id: NjMxMjEwMWFfZTFjOTdiNjRfMTIzXzQ1Ng==\r\n\r\n"
)
CALLBACK = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Go-http-client/1.1\r\nContent-Type: {kind}\r\n"
    "Content-Length: {length}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
)
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


def cloud_time(at: float) -> str:
    return datetime.fromtimestamp(at, CLOUD_ZONE).strftime("%Y-%m-%dT%H:%M:%S%z")


@dataclass
class Job:
    """A job as it was asked for."""

    job_id: str
    body: str
    created: float
    seconds: float
    begun: float = field(default_factory=time.monotonic)

    @property
    def has_ended(self) -> bool:
        return time.monotonic() >= self.begun + self.seconds

    def detail(self) -> str:
        """What a read and a callback tell of it."""
        output, ended = found("<Output>.*?<Object>(.*?)</Object>.*?</Output>", self.body), self.has_ended
        pages = (
            PAGE.format(number=number, uri=output.replace("${Number}", str(number))) for number in range(1, PAGES + 1)
        )
        return DETAIL.format(
            created=cloud_time(self.created),
            started=cloud_time(self.created),
            ended=cloud_time(self.created + self.seconds) if ended else "",
            source=found("<Input><Object>(.*?)</Object>", self.body),
            output=output,
            user_data=found("<UserData>(.*?)</UserData>", self.body),
            job_id=self.job_id,
            state="Success" if ended else "Running",
            result=RESULT.format(pages="".join(pages)) if ended else "",
        )

    def callback(self) -> str:
        """The body of its callback, in the format that was asked for."""
        detail = self.detail()
        if found("<CallBackFormat>(.*?)</CallBackFormat>", self.body) != "JSON":
            return f"<Response><EventName>TaskFinish</EventName>{detail}</Response>"
        pages = [
            {"PageNo": int(number), "TgtUri": uri}
            for number, uri in re.findall("<PageNo>(.*?)</PageNo><TgtUri>(.*?)</TgtUri>", detail)
        ]
        fields = dict(re.findall(r"<(JobId|State|Code|CreationTime|EndTime|StartTime|QueueId|Tag)>(.*?)</", detail))
        operation = {"DocProcessResult": {"PageInfo": pages, "SuccPageCount": PAGES, "TotalPageCount": PAGES}}
        return json.dumps({"EventName": "TaskFinish", "JobsDetail": [fields | {"Operation": operation}]})


class Cloud:
    """The jobs, and what was asked."""

    def __init__(self, median: float, seed: int) -> None:
        self._median = median
        self._random = random.Random(seed)  # noqa: S311 - the same seconds for every cloud
        self._jobs: dict[str, Job] = {}
        self._asked: Counter[str] = Counter()
        self._ended: dict[str, float] = {}
        self._calling: set[asyncio.Task[None]] = set()

    def answer(self, method: str, path: str, body: str) -> str:
        if path == "/told":
            return json.dumps({"asked": self._asked, "ended": self._ended})
        if method == "POST":
            return f"<Response>{self._made(body).detail()}</Response>"
        if job := self._jobs.get(path.rpartition("/")[2]):
            self._asked["reads"] += 1
            return f"<Response>{job.detail()}</Response>"
        self._asked["others"] += 1
        return "<Response></Response>"

    def _made(self, body: str) -> Job:
        self._asked["creates"] += 1
        seconds = self._random.lognormvariate(math.log(self._median), SIGMA)
        seconds = min(max(seconds, self._median / 4), 6 * self._median)
        job = Job(f"d{len(self._jobs):032x}", body, time.time(), seconds)  # noqa: TID251 - the cloud's clock
        self._jobs[job.job_id] = job
        asyncio.get_running_loop().call_later(seconds + 0.001, self._end, job)
        return job

    def _end(self, job: Job) -> None:
        self._ended[job.job_id] = time.monotonic()
        if url := found("<CallBack>(.*?)</CallBack>", job.body):
            self._asked["callbacks"] += 1
            task = asyncio.create_task(call_back(url, job))
            self._calling.add(task)
            task.add_done_callback(self._calling.discard)


async def call_back(url: str, job: Job) -> None:
    """Post the callback over a connection of its own."""
    address = urlsplit(url)
    body = job.callback().encode()
    kind = "application/json" if body.startswith(b"{") else "application/xml"
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = CALLBACK.format(path=address.path, host=address.netloc, kind=kind, length=len(body))
    writer.write(head.encode() + body)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200"), answer
    writer.close()


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n") + 4) > 3:
            head = self._pending[:end]
            length = LENGTH.search(head)
            stop = end + (int(length[1]) if length else 0)
            if len(self._pending) < stop:
                return
            body, self._pending = self._pending[end:stop], self._pending[stop:]
            method, path, _ = head.decode("latin-1").split(" ", 2)
            reply = self._cloud.answer(method, path.partition("?")[0], body.decode()).encode()
            self._transport.write(HEAD.format(length=len(reply), date=formatdate(usegmt=True)).encode() + reply)


async def main(median: float, seed: int) -> None:
    cloud = Cloud(median, seed)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(cloud), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await until_stdin_ends()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2])))
