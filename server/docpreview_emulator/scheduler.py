"""Running jobs: each queue in order, so many at a time, unless the queue is paused or a test says hold."""

import asyncio
import logging
from collections import deque

from docpreview_emulator.conversion import Converter
from docpreview_emulator.errors import JobFailure, StorageError
from docpreview_emulator.jobs import JobTable
from docpreview_emulator.model import Job
from docpreview_emulator.queues import QueueTable
from docpreview_emulator.settings import Settings

_log = logging.getLogger(__name__)


class _Line:
    """One queue's jobs: those that wait, and those that run."""

    def __init__(self) -> None:
        self.waiting: deque[str] = deque()
        self.running = 0


class Scheduler:
    """Lives in the server's event loop; call its methods there only."""

    def __init__(self, jobs: JobTable, queues: QueueTable, converter: Converter, settings: Settings) -> None:
        self._jobs = jobs
        self._queues = queues
        self._converter = converter
        self._settings = settings
        self._lines: dict[str, _Line] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._released = asyncio.Event()
        self._released.set()
        self._timers: set[asyncio.TimerHandle] = set()

    def resume(self) -> None:
        """Take up the jobs that an earlier emulator left unfinished."""
        for job in self._jobs.unfinished():
            self._enqueue(job.job_id, job.queue_id)

    def submit(self, job: Job) -> None:
        """Run a new job after its delay."""
        loop = asyncio.get_running_loop()

        def due() -> None:
            self._timers.discard(timer)
            self._enqueue(job.job_id, job.queue_id)

        timer = loop.call_later(self._settings.submit_delay, due)
        self._timers.add(timer)

    def hold(self) -> None:
        """Keep jobs in Running until `release`."""
        self._released.clear()

    def release(self) -> None:
        """Let held jobs go on."""
        self._released.set()

    def pump(self, queue_id: str) -> None:
        """Start what a queue lets start."""
        line = self._lines.get(queue_id)
        while line and line.waiting and line.running < self._settings.max_concurrent:
            if not self._queues.get(queue_id).active:
                return
            job_id = line.waiting.popleft()
            line.running += 1
            task = asyncio.create_task(self._run(job_id))
            self._tasks[job_id] = task
            task.add_done_callback(lambda _, job_id=job_id: self._finished(job_id, queue_id))  # type: ignore[misc]

    def abandon(self, job_id: str) -> None:
        """Stop working on a job whose state was set by hand."""
        if job_id in self._tasks:
            self._tasks[job_id].cancel()

    async def close(self) -> None:
        """Stop all work; jobs stay as they are on disk."""
        for timer in self._timers:
            timer.cancel()
        self._lines.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _enqueue(self, job_id: str, queue_id: str) -> None:
        self._lines.setdefault(queue_id, _Line()).waiting.append(job_id)
        self.pump(queue_id)

    def _finished(self, job_id: str, queue_id: str) -> None:
        self._tasks.pop(job_id, None)
        line = self._lines.get(queue_id)
        if line is not None:
            line.running -= 1
            self.pump(queue_id)

    async def _run(self, job_id: str) -> None:
        """One job from Running to its end. Whatever goes wrong is the job's failure, never the scheduler's."""
        try:
            if not self._jobs.start(job_id):
                return
            await self._released.wait()
            await asyncio.sleep(self._settings.run_delay)
            result = await self._converter.convert(self._jobs.get(job_id))
            self._jobs.succeed(job_id, result)
        except JobFailure as failure:
            self._fail(job_id, failure.code, failure.message)
        except (StorageError, OSError) as error:
            _log.error("job %s: %s", job_id, error)
            self._fail(job_id, "InternalError", str(error))
        except Exception:  # noqa: BLE001 - logged in full; one job must not end all others
            _log.exception("job %s failed by a fault of the emulator", job_id)
            self._fail(job_id, "InternalError", "The emulator failed; its log says how.")

    def _fail(self, job_id: str, code: str, message: str) -> None:
        try:
            self._jobs.fail(job_id, code, message)
        except StorageError as error:
            _log.error("job %s cannot even be marked as failed: %s", job_id, error)
