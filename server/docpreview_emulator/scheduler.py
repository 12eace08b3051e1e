"""Scheduler of jobs: each queue in order with bounded concurrency, unless it is paused or jobs are held."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from docpreview_emulator.conversion import Converter
from docpreview_emulator.errors import JobFailure, StorageError
from docpreview_emulator.jobs import JobTable
from docpreview_emulator.model import Job
from docpreview_emulator.queues import QueueTable
from docpreview_emulator.settings import Settings

_log = logging.getLogger(__name__)


class _QueueJobs:
    """Waiting and running jobs of one queue."""

    def __init__(self) -> None:
        self.waiting: deque[str] = deque()
        self.running = 0


class Scheduler:
    """The scheduler; its methods must be called in the server's event loop."""

    def __init__(
        self,
        jobs: JobTable,
        queues: QueueTable,
        converter: Converter,
        settings: Settings,
        ended: Callable[[str], None],
    ) -> None:
        self._ended = ended
        self._jobs = jobs
        self._queues = queues
        self._converter = converter
        self._settings = settings
        self._by_queue: dict[str, _QueueJobs] = {}
        self._tasks: dict[str, asyncio.Task[bool]] = {}
        self._released = asyncio.Event()
        self._released.set()
        self._timers: set[asyncio.TimerHandle] = set()

    def resume(self) -> None:
        """Resume the unfinished jobs of an earlier emulator."""
        for job in self._jobs.unfinished():
            self._enqueue(job.job_id, job.queue_id)

    def submit(self, job: Job) -> None:
        """Run a new job after its delay."""
        loop = asyncio.get_running_loop()

        def due() -> None:
            self._timers.discard(timer)
            self._enqueue(job.job_id, job.queue_id)

        self._converter.expect()
        timer = loop.call_later(self._settings.submit_delay, due)
        self._timers.add(timer)

    def hold(self) -> None:
        """Keep jobs in Running until `release`."""
        self._released.clear()

    @property
    def holds(self) -> bool:
        """Whether jobs are kept in Running."""
        return not self._released.is_set()

    def release(self) -> None:
        """Continue held jobs."""
        self._released.set()

    def start_waiting(self, queue_id: str) -> None:
        """Start waiting jobs of a queue, up to its concurrency."""
        queue = self._by_queue.get(queue_id)
        while queue and queue.waiting and queue.running < self._settings.max_concurrent:
            if not self._queues.get(queue_id).active:
                return
            job_id = queue.waiting.popleft()
            queue.running += 1
            task = asyncio.create_task(self._run(job_id))
            self._tasks[job_id] = task
            task.add_done_callback(lambda _, job_id=job_id: self._finished(job_id, queue_id))  # type: ignore[misc]

    def cancel(self, job_id: str) -> None:
        """Stop working on a job whose state was set by a control request."""
        if job_id in self._tasks:
            self._tasks[job_id].cancel()
        self._ended(job_id)

    async def close(self) -> None:
        """Stop all jobs; their state stays on disk."""
        for timer in self._timers:
            timer.cancel()
        self._by_queue.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _enqueue(self, job_id: str, queue_id: str) -> None:
        self._by_queue.setdefault(queue_id, _QueueJobs()).waiting.append(job_id)
        self.start_waiting(queue_id)

    def _finished(self, job_id: str, queue_id: str) -> None:
        task = self._tasks.pop(job_id, None)
        if task is not None and not task.cancelled() and task.result():
            self._ended(job_id)
        queue = self._by_queue.get(queue_id)
        if queue is not None:
            queue.running -= 1
            self.start_waiting(queue_id)

    async def _run(self, job_id: str) -> bool:
        """Run one job to its end; whether this has ended it. Any error fails the job, never the scheduler."""
        try:
            if not self._jobs.start(job_id):
                return False
            await self._released.wait()
            await asyncio.sleep(self._settings.run_delay)
            result = await self._converter.convert(self._jobs.get(job_id))
            for warning in result.warnings:
                _log.warning("job %s: %s", job_id, warning)
            return self._jobs.succeed(job_id, result)
        except JobFailure as failure:
            _log.warning("job %s has failed: %s: %s", job_id, failure.code, failure.message)
            return self._fail(job_id, failure.code, failure.message)
        except (StorageError, OSError) as error:
            _log.error("job %s: %s", job_id, error)
            return self._fail(job_id, "InternalError", str(error))
        except Exception:  # noqa: BLE001 - logged in full; one job must not end all others
            _log.exception("job %s failed with an internal error of the emulator", job_id)
            return self._fail(job_id, "InternalError", "Internal error of the emulator; see its log.")

    def _fail(self, job_id: str, code: str, message: str) -> bool:
        try:
            return self._jobs.fail(job_id, code, message)
        except StorageError as error:
            _log.error("job %s cannot be marked as failed: %s", job_id, error)
            return False
