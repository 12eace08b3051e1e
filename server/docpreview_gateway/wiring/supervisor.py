"""The supervisor of `serve --workers N`: starts and restarts the workers, and serves the admin port for all of them.

Workers are new processes, not forks. They share the port by SO_REUSEPORT: the kernel gives each connection to one of
them. The supervisor itself serves no call and does not load gRPC.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.settings.sections import host_port
from docpreview_gateway.storage.background import repeated
from docpreview_gateway.telemetry import recent_calls
from docpreview_gateway.telemetry.admin_server import NOT_LISTENING, admin_server
from docpreview_gateway.telemetry.debug_report import debug_report
from docpreview_gateway.telemetry.operator_page import SAMPLE_SECONDS, OperatorPage
from docpreview_gateway.telemetry.readiness import Dependency
from docpreview_gateway.telemetry.worker_metrics import WorkerMetrics
from docpreview_gateway.wiring.edge_drain import drain_edge
from docpreview_gateway.wiring.hangups import ignore_hangups
from docpreview_gateway.wiring.listening import why_not
from docpreview_gateway.wiring.reserved_port import CAN_SHARE, NO_SHARING, at_port, reserved_port
from docpreview_gateway.wiring.system_clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.telemetry.recent_calls import Recent

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a crashed worker is restarted: the pause doubles with each crash."""

STEADY_SECONDS = 60.0
"""Uptime after which a crash of a worker counts as its first again."""

SCRAPE_SECONDS = 2.0
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
READY = b"ready\n"
"""Written by a worker to its standard output when it serves."""

log = structlog.get_logger("docpreview_gateway.supervisor")


class Supervisor:
    """The workers of one gateway. `command` starts one; its number, ports and admin socket are appended.

    `callbacks` is the address that takes callbacks; empty: none does.
    """

    def __init__(self, settings: Settings, command: Sequence[str], folder: Path, callbacks: str = "") -> None:
        self._callbacks = callbacks
        self._settings = settings
        self._command = command
        self._folder = folder
        self._metrics = WorkerMetrics()
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._ready: set[int] = set()
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()
        self._failed: int | None = None
        self._has_started = False
        self.registry = CollectorRegistry()
        self.registry.register(self._metrics)
        Gauge("docpreview_workers", "Workers that serve.", registry=self.registry).set_function(
            lambda: len(self._ready)
        )
        Gauge("docpreview_workers_configured", "Workers that should serve.", registry=self.registry).set(
            settings.workers
        )
        self._restarts = Counter(
            "docpreview_worker_restarts_total", "Workers that were started again.", registry=self.registry
        )

    @property
    def unready(self) -> str | None:
        """The reason for not being ready; None when a worker serves: the kernel gives it all new connections."""
        if self._stopping.is_set():
            return "stopping"
        return None if self._ready and self._has_started else "starting"

    def dependencies(self) -> dict[str, Dependency]:
        """What the workers depend on, as of their last scrape: one that fails for a worker fails."""
        problems = {
            "cloud": ("docpreview_cloud_failing", "a worker cannot use any bucket of the cloud, and its log says why"),
            "records": ("docpreview_store_failing", "a worker cannot record creates, and its log says why"),
        }
        failing = {name: self.registry.get_sample_value(metric) for name, (metric, _) in problems.items()}
        return {name: Dependency(text if failing[name] else "") for name, (_, text) in problems.items()}

    async def run(self, address: str, on_started: Callable[[], None]) -> int:
        """Run the workers on `address` until they have all stopped; the exit code for this process.

        The first worker starts alone, so that an error of all workers is logged once, and ends the run.
        """
        first = asyncio.create_task(self._keep(0, address))
        first.add_done_callback(lambda _task: self._news.set())
        await self._until(lambda: bool(self._ready) or first.done())
        if first.done():
            return first.result()
        others = [asyncio.create_task(self._keep(number, address)) for number in range(1, self._settings.workers)]
        await self._until(lambda: len(self._ready) == self._settings.workers or self._stopping.is_set())
        if not self._stopping.is_set():
            self._has_started = True
            on_started()
        await asyncio.gather(first, *others)
        return self._failed or 0

    def stop(self) -> None:
        """Pass SIGTERM on to all workers: they drain, and at the second one stop at once."""
        self._stopping.set()
        self._news.set()
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)

    async def stopping(self) -> None:
        """Wait until the workers are told to stop."""
        await self._stopping.wait()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def refresh(self) -> None:
        """Scrape the workers. A worker that does not answer in time keeps its last metrics."""
        await asyncio.gather(*(self._scrape(number, process) for number, process in self._running.items()))

    async def _keep(self, number: int, address: str) -> int:
        """Run one worker, restarting it when it ends; the code with which it failed to start, or 0."""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            begun = time.monotonic()
            code, was_ready = await self._run_once(number, address)
            if self._stopping.is_set():
                break
            if not (was_ready or self._has_started):
                self._fail(code or 1)
                break
            pause = FIRST_PAUSE if time.monotonic() - begun > STEADY_SECONDS else pause
            log.error("a worker ended and is started again", worker=number, code=code, pause=pause)
            await self._pause(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
            self._restarts.inc()
        return self._failed or 0

    def _fail(self, code: int) -> None:
        self._failed = code
        self.stop()

    async def _pause(self, seconds: float) -> None:
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((stopping,), timeout=seconds)
        stopping.cancel()

    async def _run_once(self, number: int, address: str) -> tuple[int, bool]:
        """Run a worker once: its exit code, and whether it ever served."""
        path = self._socket(number)
        path.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *("--number", str(number), "--listen", address, "--admin", str(path)),
            *(("--callbacks", self._callbacks) if self._callbacks else ()),
            # A worker stops when its input ends, so that none outlives the supervisor.
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Signals of the terminal reach the supervisor only, which passes them on once.
            start_new_session=True,
        )
        self._running[number] = process
        self._metrics.started(str(process.pid), str(number))
        if self._stopping.is_set():
            process.send_signal(signal.SIGTERM)
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        was_ready = await process.stdout.readline() == READY
        if was_ready:
            self._ready.add(number)
            self._news.set()
        code = await process.wait()
        self._ready.discard(number)
        del self._running[number]
        self._metrics.ended(str(process.pid))
        return code, was_ready

    async def why_unhealthy(self) -> str | None:
        """The reason for being unhealthy; None when a worker listens: the kernel gives it all new connections."""
        answers = await asyncio.gather(*(self._listens(number) for number in self._running))
        return None if any(answers) else NOT_LISTENING

    async def _listens(self, number: int) -> bool:
        try:
            async with self._asking(number) as session, session.get("http://worker/healthz") as answer:
                return answer.status == HTTPStatus.OK
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _asking(self, number: int) -> aiohttp.ClientSession:
        connector = aiohttp.UnixConnector(str(self._socket(number)))
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=SCRAPE_SECONDS))

    async def _scrape(self, number: int, process: asyncio.subprocess.Process) -> None:
        text = await self._ask(number, "/metrics", accept=OPEN_METRICS)
        if text is not None:
            self._metrics.update(str(process.pid), text.decode())

    async def _ask(self, number: int, path: str, wanted: str = "", *, accept: str = "*/*") -> bytes | None:
        """The answer of a worker's admin socket; None without one in time."""
        try:
            async with (
                self._asking(number) as session,
                session.get(f"http://worker{path}", params={"id": wanted}, headers={"Accept": accept}) as answer,
            ):
                return await answer.read() if answer.status == HTTPStatus.OK else None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.debug("a worker does not answer", worker=number, path=path, error=type(error).__name__)
            return None

    async def recent(self, wanted: str = "") -> Recent:
        """Recent calls and failed jobs of all workers that answer. What ended workers had in memory is lost."""
        answers = await asyncio.gather(*(self._ask(number, "/recent", wanted) for number in self._running))
        return recent_calls.merged(
            [recent_calls.decode(text) for text in answers if text is not None], SystemClock().now()
        )

    async def debug(self, query: Mapping[str, str]) -> bytes:
        """Where the threads and tasks of this process and of all workers are."""
        numbers = sorted(self._running)
        answers = await asyncio.gather(*(self._ask(number, "/debug") for number in numbers))
        parts = [
            f"== worker {number}\n".encode() + (text or b"") for number, text in zip(numbers, answers, strict=True)
        ]
        return b"\n".join((b"== supervisor\n" + await debug_report(query), *parts))

    def _socket(self, number: int) -> Path:
        return self._folder / f"{number}.sock"


async def supervise(settings: Settings, command: Sequence[str]) -> int:
    """Serve with several workers until SIGTERM or SIGINT; the exit code. StartError when a port is taken."""
    if not CAN_SHARE:
        raise StartError(NO_SHARING)
    async with AsyncExitStack() as stack:
        reserved = stack.enter_context(reserved_port("listen", settings.listen))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="docpreview-"))
        supervisor = Supervisor(settings, command, Path(folder), _reserved_callbacks(settings, stack))
        host, port = host_port(settings.admin_listen)
        page = OperatorPage(
            supervisor.registry,
            SystemClock(),
            unready=lambda: supervisor.unready,
            dependencies=supervisor.dependencies,
            recent=supervisor,
            refresh=supervisor.refresh,
        )
        admin = admin_server(
            host,
            port,
            registry=supervisor.registry,
            unready=lambda: supervisor.unready,
            unhealthy=supervisor.why_unhealthy,
            dependencies=supervisor.dependencies,
            refresh=supervisor.refresh,
            pages=page,
            texts={"/debug": supervisor.debug} if settings.admin_debug else None,
            hosts=settings.admin_hosts,
            listen=settings.listen,
        )
        try:
            admin_port = await stack.enter_async_context(admin)
        except OSError as error:
            raise StartError(why_not("admin_listen", settings.admin_listen)) from error
        await stack.enter_async_context(repeated(page.sample, SAMPLE_SECONDS))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)
        ignore_hangups(loop)
        edge = asyncio.create_task(_drain_edge(supervisor, settings))
        stack.callback(edge.cancel)

        def started() -> None:
            port = reserved.getsockname()[1]
            log.info("serving", grpc_port=port, admin_port=admin_port, workers=settings.workers)

        code = await supervisor.run(at_port(settings.listen, reserved), started)
    log.info("stopped")
    return code


def _reserved_callbacks(settings: Settings, stack: AsyncExitStack) -> str:
    """The address at which the workers take callbacks, reserved for them; empty: they take none."""
    listen = settings.callbacks.listen
    if listen is None:
        return ""
    return at_port(listen, stack.enter_context(reserved_port("callbacks.listen", listen)))


async def _drain_edge(supervisor: Supervisor, settings: Settings) -> None:
    await supervisor.stopping()
    await drain_edge(settings.edge)
