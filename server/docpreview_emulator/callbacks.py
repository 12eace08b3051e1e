"""Completion callbacks: a POST once a job has succeeded or failed, to the address of its create, else of its queue.

Forms as the vendor shows them (documents 1545/65203, 460/84951): XML, or JSON with an array of jobs.
"""

import asyncio
import json
import logging
import os
import secrets
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, replace
from typing import Any

import aiohttp

from docpreview_emulator.documents import callback_response
from docpreview_emulator.faults import ActiveFaults, Fault, Kind, Operation
from docpreview_emulator.jobs import JobTable
from docpreview_emulator.model import NO_CALLBACK, Callback, Job, State
from docpreview_emulator.queues import QueueTable
from docpreview_emulator.xmltree import Element, read_xml

MOST_RECORDS = 10_000
_AGENT = "Go-http-client/1.1"
_log = logging.getLogger("docpreview_emulator")


@dataclass(frozen=True, slots=True)
class CallbackRecord:
    """A callback that was sent. `job_id` is that of the job that ended, whatever the callback said."""

    job_id: str
    status: int | None
    """The receiver's status; None: it did not answer."""

    problem: str = ""
    """Why it did not: the name of the error."""

    def as_dict(self) -> dict[str, object]:
        """The record as a JSON object."""
        return asdict(self)


class Callbacks:
    """Tells receivers of ended jobs, once each, in the background. No answer, or a bad one, is not repeated.

    A receiver has `seconds` to answer.
    """

    def __init__(self, jobs: JobTable, queues: QueueTable, faults: ActiveFaults, seconds: float) -> None:
        self._jobs = jobs
        self._queues = queues
        self._faults = faults
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: list[Callable[[], Coroutine[Any, Any, None]]] = []
        """Callbacks that are to be sent in reverse order once all of them are there."""
        self.records: deque[CallbackRecord] = deque(maxlen=MOST_RECORDS)

    def ended(self, job_id: str) -> None:
        """Tell the job's receiver, if it has one and the job has succeeded or failed."""
        job = self._jobs.get(job_id)
        to = self._callback(job)
        if to is None or job.state not in {State.SUCCESS, State.FAILED}:
            return
        faults = self._faults.take(Operation.CALLBACK)
        delay = sum(fault.seconds for fault in faults if fault.kind is Kind.LATENCY)
        other = next((fault for fault in faults if fault.kind is not Kind.LATENCY), None)
        if other is not None and other.kind is Kind.EARLY:
            self._jobs.show_running(job_id, other.seconds)
        if other is not None and other.kind is Kind.REVERSE:
            self._kept.append(lambda: self._tell(job, to, None, delay))
            if other.times == 0:
                self._start(self._reversed())
            return
        self._start(self._tell(job, to, other, delay))

    def _callback(self, job: Job) -> Callback | None:
        found = job.spec.callback or self._queues.get(job.queue_id).callback
        return None if found is None or found.url == NO_CALLBACK else found

    async def close(self) -> None:
        """Give up what is being sent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reversed(self) -> None:
        kept, self._kept = self._kept, []
        for tell in reversed(kept):
            await tell()

    async def _tell(self, job: Job, to: Callback, fault: Fault | None, delay: float) -> None:
        """Send what is told of a job, after `delay` seconds, as the fault has it."""
        kind = None if fault is None else fault.kind
        if kind is Kind.DROP_BEFORE:
            return
        await asyncio.sleep(delay)
        url = to.url
        if kind is Kind.WRONG_TOKEN:
            path, slash, token = url.rpartition("/")
            url = path + slash + "A" * len(token)
        body = callback_response(_said(job, kind, self._jobs))
        content = "application/xml"
        if to.format == "JSON":
            body, content = json.dumps(_plain(body)).encode(), "application/json"
        for _ in range(2 if kind is Kind.TWICE else 1):
            await self._post(job, url, body, {"User-Agent": _AGENT, "Content-Type": content})

    async def _post(self, job: Job, url: str, body: bytes, headers: dict[str, str]) -> None:
        timeout = aiohttp.ClientTimeout(total=self._seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, data=body, headers=headers, allow_redirects=False) as reply,
            ):
                self.records.append(CallbackRecord(job.job_id, reply.status))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            problem = _why(error, self._seconds)
            self.records.append(CallbackRecord(job.job_id, None, problem))
            _log.warning("the callback of job %s failed: %s", job.job_id, problem)


def _why(error: Exception, seconds: float) -> str:
    """Why a receiver did not answer, without the path of its address, which may be a secret."""
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = os.strerror(error.os_error.errno) if error.os_error.errno else "the name is not known"
        return f"no connection to {error.host}:{error.port}: {reason}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before the answer"
    return f"no answer ({type(error).__name__})"


def _said(job: Job, kind: Kind | None, jobs: JobTable) -> Job:
    """The job as its callback has it: forged ones have another state, or name another job."""
    if kind is Kind.OTHER_STATE:
        return replace(job, state=State.FAILED if job.state is State.SUCCESS else State.SUCCESS)
    if kind is Kind.OTHER_JOB:
        others = [other for other in jobs.all() if other.bucket == job.bucket and other.job_id != job.job_id]
        unfinished = [other for other in others if not other.state.is_final]
        named = next(iter(unfinished or others), None)
        return replace(job, job_id="d" + secrets.token_hex(16) if named is None else named.job_id)
    return job


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
