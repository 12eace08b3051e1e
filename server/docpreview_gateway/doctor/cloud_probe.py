"""A probe of the real cloud: one job of one page, and what the vendor's documents leave open about it.

It sends requests as the gateway does, without retries, cache and records, and keeps their replies' forms.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, PreviewQueue
from docpreview_gateway.doctor import diagnosis
from docpreview_gateway.doctor.one_page import one_page_pdf
from docpreview_gateway.doctor.reply_facts import creation_offset, facts_of
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.upstream.ports import ProxyError, TransportError
from docpreview_gateway.upstream.wire import refusals, requests, responses
from docpreview_gateway.upstream.wire.http import HttpRequest
from docpreview_gateway.upstream.wire.signing import Window, presign, sign

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.upstream.operations import JobPage
    from docpreview_gateway.upstream.ports import CredentialsSource, Transport
    from docpreview_gateway.upstream.wire.http import HttpReply

FOLDER = "docpreview-probe"
POLL_SECONDS = 1.0
LONGEST_JOB = 180.0
PAUSED_SECONDS = 10.0
"""How long a job has to be seen as paused before it is left to its queue."""

LONGEST_LIST_DELAY = 120.0
MOST_LIST_PAGES = 12
FUTURE_SECONDS = 30 * 86400
MISSING_ID = "d00000000000000000000000000000000"
"""In the form of the cloud's ids of document jobs, and none of them."""

_ENDED = frozenset({PreviewJob.STATE_SUCCESS, PreviewJob.STATE_FAILED, PreviewJob.STATE_CANCELLED})


class CloudProbe:
    """One run, in one bucket. `document` is the key of a document that is there; empty: one is put, and deleted."""

    def __init__(  # noqa: PLR0913 - collaborators
        self,
        transport: Transport,
        credentials: CredentialsSource,
        clock: Clock,
        bucket: Bucket,
        *,
        nonce: str,
        document: str = "",
    ) -> None:
        self._transport = transport
        self._keys = credentials.credentials(bucket.credentials)
        self._clock = clock
        self._bucket = bucket
        self._own = f"{FOLDER}/{nonce}/one-page.pdf"
        self._document = document or self._own
        self._output = f"{FOLDER}/{nonce}/page_${{Number}}.jpg"
        self._user_data = f"docpreview-probe {nonce}"
        self._job_id = ""
        self._created_at = 0.0
        self._waits = False
        self.failed: list[str] = []

    async def run(self) -> dict[str, Any]:
        """The facts, by what was asked. A step that fails is one of them, and its name is in `failed`."""
        facts: dict[str, Any] = {}
        if self._document == self._own and not await self._step(facts, "put_document", self._put):
            return facts
        steps: tuple[tuple[str, Callable[[], Awaitable[dict[str, Any]]]], ...] = (
            ("create", self._create),
            ("list_delay", self._list_delay),
            ("job", self._job),
            ("missing_job", self._missing),
            ("paging", self._paging),
            ("empty_list", self._empty_list),
            ("queues", self._queues),
        )
        for name, step in steps:
            if not await self._step(facts, name, step) and name == "create":
                break
        await self._step(facts, "clean_up", self._clean_up)
        return facts

    async def _step(self, facts: dict[str, Any], name: str, step: Callable[[], Awaitable[dict[str, Any]]]) -> bool:
        try:
            facts[name] = await step()
        except ProxyError:
            # Not its message: it names hosts, and with them a bucket.
            facts[name] = {"failed": "the proxy gave no connection"}
        except (TransportError, TimeoutError) as error:
            facts[name] = {"failed": diagnosis.of_silence(error)}
        except GatewayError as error:
            # Not its message: the cloud's words may name a bucket or a key.
            facts[name] = {"failed": ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")}
        if "failed" in facts[name]:
            self.failed.append(name)
            return False
        return True

    async def _put(self) -> dict[str, Any]:
        body = one_page_pdf()
        headers = {"content-length": str(len(body)), "content-type": "application/pdf"}
        request = replace(requests.put_object(self._bucket, self._own, headers), body=body)
        reply = await self._transport.send(presign(request, self._keys, self._window()))
        return self._of(reply, need="the key may not PutObject here: name a document of the bucket by --document")

    async def _create(self) -> dict[str, Any]:
        bucket = self._bucket
        request = CreatePreviewJobRequest(
            bucket=bucket.name,
            input_object=self._document,
            output=ObjectLocation(region=bucket.region, bucket=bucket.name, object=self._output),
            options=PreviewOptions(start_page=1, end_page=1),
            user_data=self._user_data,
        )
        self._created_at = time.monotonic()
        reply = await self._send(requests.create(request, bucket, bucket))
        facts = self._of(reply, need="the cloud refused the job; nothing was billed") | {
            "echoes_user_data": self._user_data.encode() in reply.body,
            "creation_time_offset": creation_offset(reply),
        }
        if "failed" not in facts:
            self._job_id = responses.created_job(reply.body, bucket.name)[0].job_id
        return facts

    async def _list_delay(self) -> dict[str, Any]:
        """How long after its create the job is missing from lists."""
        while time.monotonic() < self._created_at + LONGEST_LIST_DELAY:
            reply = await self._list(size=10)
            page = self._page(reply, "")
            pages = 1
            while not page.jobs and page.cursor and pages < MOST_LIST_PAGES:
                page = self._page(reply := await self._list(size=10, cursor=page.cursor), page.cursor)
                pages += 1
            if any(job.job_id == self._job_id for job in page.jobs):
                seconds = round(time.monotonic() - self._created_at, 1)
                echoes = self._user_data.encode() in reply.body
                return self._of(reply) | {"seconds": seconds, "echoes_user_data": echoes}
            await asyncio.sleep(POLL_SECONDS)
        return {"failed": f"the job was in no list within {LONGEST_LIST_DELAY:.0f} s"}

    async def _job(self) -> dict[str, Any]:
        """The states of the job until it ends."""
        states: list[str] = []
        while time.monotonic() < self._created_at + LONGEST_JOB:
            reply = await self._send(requests.get(self._bucket, self._job_id))
            job, _ = responses.one_job(reply.body, self._bucket.name, self._job_id)
            if (state := job.raw_state if job.raw_state.isalnum() else "?") not in states:
                states.append(state)
            self._waits = job.state == PreviewJob.STATE_PAUSED and time.monotonic() > self._created_at + PAUSED_SECONDS
            if job.state in _ENDED or self._waits:
                return self._of(reply) | {
                    "states": states,
                    "waits_in_a_paused_queue": self._waits,
                    "seconds": round(time.monotonic() - self._created_at, 1),
                    "echoes_user_data": self._user_data.encode() in reply.body,
                    "pages": job.result.total_page_count,
                }
            await asyncio.sleep(POLL_SECONDS)
        return {"failed": f"the job did not end within {LONGEST_JOB:.0f} s", "states": states}

    async def _missing(self) -> dict[str, Any]:
        """What is said of a job that does not exist."""
        return facts_of(await self._send(requests.get(self._bucket, MISSING_ID)), self._clock.now())

    async def _paging(self) -> dict[str, Any]:
        """Pages of one job each: how many have none, and whether they lead on."""
        pages: list[dict[str, Any]] = []
        cursor, seen = "", set[str]()
        for _ in range(MOST_LIST_PAGES):
            reply = await self._list(size=1, cursor=cursor)
            page = self._page(reply, cursor)
            ids = {job.job_id for job in page.jobs}
            pages.append({"jobs": len(page.jobs), "leads_on": bool(page.cursor), "repeats_jobs": bool(ids & seen)})
            cursor, seen = page.cursor, seen | ids
            if not cursor or page.repeated:
                break
        empty = sum(1 for page in pages if not page["jobs"] and page["leads_on"])
        return {"pages": pages, "empty_pages_that_lead_on": empty, "repeats_its_cursor": page.repeated}

    async def _empty_list(self) -> dict[str, Any]:
        """A list of a time in which no job was made."""
        future = Timestamp(seconds=int(self._clock.now()) + FUTURE_SECONDS)
        request = ListPreviewJobsRequest(bucket=self._bucket.name, created_after=future)
        return facts_of(
            await self._send(requests.list_jobs(request, self._bucket, size=10, cursor="")), self._clock.now()
        )

    async def _queues(self) -> dict[str, Any]:
        """The states of the queues, and what a list of paused ones has. No queue is changed."""
        found: dict[str, Any] = {}
        for name, state in (("all", PreviewQueue.STATE_UNSPECIFIED), ("paused", PreviewQueue.STATE_PAUSED)):
            request = ListPreviewQueuesRequest(bucket=self._bucket.name, state=state)
            reply = await self._send(requests.list_queues(request, self._bucket, size=100, page=1))
            found[name] = self._of(reply)
        return found

    async def _clean_up(self) -> dict[str, Any]:
        """Delete what the probe has made, as far as the key may, and not under a job that is still to come."""
        if self._waits:
            return {"deleted": {}, "left": f"the job waits in a paused queue; after it delete {FOLDER}/"}
        keys = {"document": self._own, "page": self._output.replace("${Number}", "1")}
        if self._document != self._own:
            del keys["document"]
        deleted = {}
        for what, key in keys.items():
            request = HttpRequest("DELETE", self._bucket.object_host, f"/{key}")
            reply = await self._transport.send(presign(request, self._keys, self._window()))
            deleted[what] = refusals.accepted(reply)
        return {"deleted": deleted, "left": "" if all(deleted.values()) else f"{FOLDER}/ has objects: delete them"}

    async def _list(self, *, size: int, cursor: str = "") -> HttpReply:
        request = ListPreviewJobsRequest(bucket=self._bucket.name)
        return await self._send(requests.list_jobs(request, self._bucket, size=size, cursor=cursor))

    def _page(self, reply: HttpReply, cursor: str) -> JobPage:
        return responses.job_page(reply.body, self._bucket.name, with_pages=False, requested_cursor=cursor)

    async def _send(self, request: HttpRequest) -> HttpReply:
        return await self._transport.send(sign(request, self._keys, self._window()))

    def _of(self, reply: HttpReply, need: str = "the cloud refused it") -> dict[str, Any]:
        facts = facts_of(reply, self._clock.now())
        return facts if refusals.accepted(reply) else facts | {"failed": need}

    def _window(self) -> Window:
        return Window.around(self._clock.now())
