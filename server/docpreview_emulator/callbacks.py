"""Completion callbacks: a POST once a job has succeeded or failed, to the address of its create, else of its queue.

Forms as the vendor shows them (documents 1545/65203, 460/84951): XML, or JSON with an array of jobs.
"""

import asyncio
import json
import logging
from typing import Any

import aiohttp

from docpreview_emulator.documents import callback_response
from docpreview_emulator.faults import ActiveFaults, Kind, Operation
from docpreview_emulator.jobs import JobTable
from docpreview_emulator.model import NO_CALLBACK, Callback, Job, State
from docpreview_emulator.queues import QueueTable
from docpreview_emulator.xmltree import Element, read_xml

SECONDS = 5.0
"""Within which a receiver answers."""

_AGENT = "Go-http-client/1.1"
_log = logging.getLogger("docpreview_emulator")


class Callbacks:
    """Tells receivers of ended jobs, once each, in the background. No answer, or a bad one, is not repeated."""

    def __init__(self, jobs: JobTable, queues: QueueTable, faults: ActiveFaults) -> None:
        self._jobs = jobs
        self._queues = queues
        self._faults = faults
        self._tasks: set[asyncio.Task[None]] = set()
        self.sent = 0
        """Callbacks that were answered with 200."""

    def ended(self, job_id: str) -> None:
        """Tell the job's receiver, if it has one and the job has succeeded or failed."""
        job = self._jobs.get(job_id)
        if job.state not in {State.SUCCESS, State.FAILED}:
            return
        if (callback := self._callback(job)) is not None:
            task = asyncio.create_task(self._tell(job, callback.url, callback.format))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _callback(self, job: Job) -> Callback | None:
        found = job.spec.callback or self._queues.get(job.queue_id).callback
        return None if found is None or found.url == NO_CALLBACK else found

    async def close(self) -> None:
        """Give up what is being sent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, job: Job, url: str, form: str) -> None:
        body = callback_response(job)
        kind = "application/xml"
        if form == "JSON":
            body, kind = json.dumps(_plain(body)).encode(), "application/json"
        headers = {"User-Agent": _AGENT, "Content-Type": kind}
        faults = self._faults.take(Operation.CALLBACK)
        kinds = {fault.kind for fault in faults}
        if Kind.DROP_BEFORE in kinds:
            return
        await asyncio.sleep(sum(fault.seconds for fault in faults if fault.kind is Kind.LATENCY))
        for _ in range(2 if Kind.TWICE in kinds else 1):
            await self._post(job, url, body, headers)

    async def _post(self, job: Job, url: str, body: bytes, headers: dict[str, str]) -> None:
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, data=body, headers=headers, allow_redirects=False) as reply,
            ):
                self.sent += reply.status == 200  # noqa: PLR2004 - the expected answer
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            _log.warning("the callback of job %s failed: %s", job.job_id, type(error).__name__)


def _plain(body: bytes) -> dict[str, Any]:
    found = _values(read_xml(body))
    return {"EventName": found["EventName"], "JobsDetail": [found["JobsDetail"]]}


def _values(element: Element) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for child in element.children:
        value = _values(child) if child.children else child.text
        if child.name == "PageInfo":
            found.setdefault(child.name, []).append(value)
        else:
            found[child.name] = value
    return found
