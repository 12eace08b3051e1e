"""The cloud's job API over a socket, with jobs that no honest cloud would have: any keys, places and states.

It verifies no signatures and keeps no objects; the emulator does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from tests.fakes.raw_server import Exchange, RawServer

if TYPE_CHECKING:
    from types import TracebackType

HEADERS = "Content-Type: application/xml\r\nServer: tencent-ci\r\nx-ci-request-id: request-{}\r\nDate: {}\r\n"


@dataclass(frozen=True)
class CloudJob:
    """A job as the cloud tells it. `created` is its age in the list: the larger, the newer, in seconds."""

    job_id: str
    bucket: str
    input_object: str = "in/a.pdf"
    state: str = "Success"
    created: int = 0
    output: tuple[str, str, str] = ("", "", "")
    """Bucket, region and template."""
    pages: tuple[str, ...] = ()
    """Keys of the results."""

    def xml(self) -> str:
        bucket, region, template = (escape(text) for text in self.output)
        pages = "".join(
            f"<PageInfo><PageNo>{number}</PageNo><TgtUri>{escape(key)}</TgtUri></PageInfo>"
            for number, key in enumerate(self.pages, 1)
        )
        count = f"<TotalPageCount>{len(self.pages)}</TotalPageCount><SuccPageCount>{len(self.pages)}</SuccPageCount>"
        result = f"<DocProcessResult>{count}{pages}</DocProcessResult>" if self.state == "Success" else ""
        time = f"2026-11-01T{self.created // 3600:02}:{self.created // 60 % 60:02}:{self.created % 60:02}+0800"
        return (
            f"<JobsDetail><Code>Success</Code><JobId>{self.job_id}</JobId><State>{self.state}</State>"
            f"<CreationTime>{time}</CreationTime><Tag>DocProcess</Tag>"
            f"<Input><BucketId>{self.bucket}</BucketId><Object>{escape(self.input_object)}</Object></Input>"
            f"<Operation><Output><Bucket>{bucket}</Bucket><Region>{region}</Region><Object>{template}</Object></Output>"
            f"{result}</Operation></JobsDetail>"
        )


@dataclass
class JobCloud:
    """The server. Every reply has a request id of its own.

    Tests fill `jobs` directly; a create makes a job that has succeeded with one page.
    """

    jobs: dict[str, CloudJob] = field(default_factory=dict)
    empty_pages: int = 0
    """Pages without jobs, each with a token, before each page of a list."""
    next_tokens: dict[str, str] = field(default_factory=dict)
    """Tokens to give in place of others."""

    async def __aenter__(self) -> Self:
        self._server = await RawServer(self._answer).__aenter__()
        self.url = self._server.url
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, trace)

    def add(self, *jobs: CloudJob) -> None:
        """Add jobs, each newer than those before unless it says when it was created."""
        for job in jobs:
            self.jobs[job.job_id] = job if job.created else replace(job, created=len(self.jobs) + 1)

    def listed(self, bucket: str) -> list[CloudJob]:
        """The jobs of a bucket, newest first."""
        return sorted((job for job in self.jobs.values() if job.bucket == bucket), key=lambda job: -job.created)

    async def _answer(self, exchange: Exchange) -> None:
        method, target, _ = exchange.request_line.split()
        bucket = exchange.header("host")[0].split(".")[0]
        path = urlsplit(target).path
        if method == "POST":
            reply = self._create(bucket, exchange.body)
        elif path.startswith("/doc_jobs/"):
            job = self.jobs.get(path.removeprefix("/doc_jobs/"))
            known = job is not None and job.bucket == bucket
            reply = job.xml() if known and job else f"<NonExistJobIds>{path[10:]}</NonExistJobIds>"
        else:
            reply = self._list(bucket, parse_qs(urlsplit(target).query))
        await exchange.answer(
            f"<Response>{reply}</Response>".encode(),
            headers=HEADERS.format(len(self._server.exchanges), formatdate(usegmt=True)),
        )

    def _create(self, bucket: str, body: bytes) -> str:
        request = ET.fromstring(body)  # noqa: S314 - what the gateway wrote
        texts = [
            request.findtext(path, "")
            for path in ("Input/Object", *(f"Operation/Output/{name}" for name in ("Bucket", "Region", "Object")))
        ]
        page = texts[3].replace("${Number}", "1").replace("${Page}", "1")
        job_id = f"made{len(self.jobs)}"
        self.add(CloudJob(job_id, bucket, texts[0], output=(texts[1], texts[2], texts[3]), pages=(page,)))
        return self.jobs[job_id].xml()

    def _list(self, bucket: str, query: dict[str, list[str]]) -> str:
        found = self.listed(bucket)
        if query.get("orderByTime") == ["Asc"]:
            found.reverse()
        if (states := query.get("states", ["All"])[0]) != "All":
            found = [job for job in found if job.state in states.split(",")]
        # A token is where a page begins and how many empty ones were given for it.
        begin, gaps = map(int, query.get("nextToken", ["0.0"])[0].split("."))
        end, token = begin, f"{begin}.{gaps + 1}"
        if gaps == self.empty_pages:
            end = begin + int(query.get("size", ["10"])[0])
            token = f"{end}.0" if end < len(found) else ""
        token = self.next_tokens.get(token, token)
        return "".join(job.xml() for job in found[begin:end]) + f"<NextToken>{token}</NextToken>"
