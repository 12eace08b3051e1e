"""The emulator's parts behind the HTTP routes, built and closed in one place."""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

from docpreview_emulator.callbacks import Callbacks
from docpreview_emulator.clock import Clock
from docpreview_emulator.conversion import Converter
from docpreview_emulator.database import Database
from docpreview_emulator.faults import ActiveFaults
from docpreview_emulator.fonts import Fonts, installed
from docpreview_emulator.jobs import JobTable
from docpreview_emulator.model import Credential
from docpreview_emulator.multiparts import MultipartTable
from docpreview_emulator.objects import ObjectTable
from docpreview_emulator.office import find_office
from docpreview_emulator.private_files import private_folder
from docpreview_emulator.queues import QueueTable
from docpreview_emulator.recording import Recorder
from docpreview_emulator.sandbox import Limits
from docpreview_emulator.scheduler import Scheduler
from docpreview_emulator.settings import Settings
from docpreview_emulator.turns import Turns
from docpreview_emulator.worker import Workers

MEBIBYTE = 1024 * 1024


class Backend:
    """The emulator without its sockets. Build it and close it in the event loop that serves it."""

    def __init__(
        self, directory: Path, clock: Clock, credentials: Mapping[str, Credential], settings: Settings
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.credentials = credentials
        self.faults = ActiveFaults()
        self.recorder = Recorder(settings.record_limit)
        self.database = Database(directory)
        self.jobs = JobTable(self.database, clock, settings.retention, settings.list_delay)
        self.queues = QueueTable(self.database, clock, strict=settings.strict)
        self.objects = ObjectTable(self.database, directory / "objects", clock)
        self.multiparts = MultipartTable(self.database, self.objects, directory / "objects", clock)
        self._fonts: asyncio.Future[Fonts | None] | None = None
        self.office = find_office(settings.soffice)
        work = directory / "work"
        shutil.rmtree(work, ignore_errors=True)
        private_folder(work)
        self.workers = Workers(work, _limits(settings), self.office, settings.isolation)
        turns, profile = Turns(settings.workers), directory / "office"
        converter = Converter(self.objects, self.workers, turns, profile=profile, settings=settings)
        self.callbacks = Callbacks(self.jobs, self.queues, self.faults, settings.callback_seconds)
        self.scheduler = Scheduler(self.jobs, self.queues, converter, settings, self.callbacks.ended)

    async def fonts(self) -> Fonts | None:
        """As `fonts.installed`, asked once: `health` is quick."""
        if self._fonts is None:
            self._fonts = asyncio.ensure_future(asyncio.to_thread(installed))
        return await asyncio.shield(self._fonts)

    def start(self) -> None:
        """Clean up after an earlier emulator and resume its jobs."""
        self.jobs.delete_expired()
        self.objects.sweep()
        self.scheduler.resume()

    async def close(self) -> None:
        """Stop all jobs; their state stays on disk."""
        await self.scheduler.close()
        await self.callbacks.close()
        await self.workers.close()
        if self._fonts is not None:
            await asyncio.wait([self._fonts])
        self.database.close()

    def set_queue_active(self, queue_id: str, *, active: bool) -> None:
        """Pause or resume a queue and its waiting jobs; `Scheduler.start_waiting` is for the caller."""
        self.queues.set_active(queue_id, active=active)
        self.jobs.set_paused(queue_id, paused=not active)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_memory * MEBIBYTE, settings.max_cpu_time, settings.max_files * MEBIBYTE)
