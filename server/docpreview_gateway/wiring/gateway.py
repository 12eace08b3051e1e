"""The composition root: builds the parts, starts them in order and stops them in reverse."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.jobs.page_urls import PageUrls
from docpreview_gateway.jobs.preview_jobs import PreviewJobs
from docpreview_gateway.jobs.preview_queues import PreviewQueues
from docpreview_gateway.jobs.watching import Watching, WatchLimits
from docpreview_gateway.limits.call_limits import CallLimits, Counting, has_limits
from docpreview_gateway.limits.fair_shares import FairShares
from docpreview_gateway.model.callers import ANONYMOUS
from docpreview_gateway.rpc.handlers import Bounds, Handlers, Route
from docpreview_gateway.rpc.server import Health, enable_reflection, grpc_server
from docpreview_gateway.rpc.services import register, routes
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.settings.sections import host_port
from docpreview_gateway.storage.background import repeated
from docpreview_gateway.telemetry.admin_server import admin_server
from docpreview_gateway.telemetry.operator_page import SAMPLE_SECONDS, OperatorPage
from docpreview_gateway.upstream.cloud_clock import CloudClock
from docpreview_gateway.wiring.access import CHECK_SECONDS, KEYS_SECONDS, Access
from docpreview_gateway.wiring.creates import create_parts
from docpreview_gateway.wiring.event_loop import freeze_startup_objects
from docpreview_gateway.wiring.limits import counting
from docpreview_gateway.wiring.observability import Observability
from docpreview_gateway.wiring.reloading import InvalidFileError
from docpreview_gateway.wiring.system_clock import SystemClock
from docpreview_gateway.wiring.upstream import cloud_parts

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import grpc

    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.rpc.handlers import Route
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.upstream.ports import JobFeed

log = structlog.get_logger("docpreview_gateway")


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker's share of its supervisor's ports: the shared address, and the path of its own admin socket."""

    listen: str
    admin: str


class Gateway:
    """A running gateway: `async with Gateway(settings) as gateway`. Leaving the context drains and stops it."""

    def __init__(self, settings: Settings, worker: Worker | None = None) -> None:
        self._settings = settings
        self._worker = worker
        self._stack = AsyncExitStack()
        self._unready: str | None = "starting"
        self._counting = Counting()
        self._clock = SystemClock()
        self._observed = Observability(settings, self._clock)
        self.registry = self._observed.registry
        self.port = 0
        self.admin_port = 0

    async def __aenter__(self) -> Self:
        """Start. StartError when a port is taken; everything started before it is stopped again."""
        async with AsyncExitStack() as stack:
            try:
                await self._start(stack)
            except InvalidFileError as error:
                raise StartError(str(error)) from None
            self._stack = stack.pop_all()
        self._unready = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self._observed.close)
        clock = self._clock
        access = Access(self._settings, clock, self._observed.access)
        credentials, cloud_clock = access.cloud_credentials(), CloudClock(clock)
        self._counting = await stack.enter_async_context(counting(self._settings))
        cloud = await stack.enter_async_context(
            cloud_parts(self._settings, credentials, cloud_clock, rates=self._counting, observed=self._observed)
        )
        upstream = cloud.jobs
        buckets = BucketRegistry([found.bucket() for found in self._settings.buckets])
        page_urls = PageUrls(buckets, credentials, cloud_clock, base=self._settings.upstream.object_url_base)
        watching = self._watching(upstream, cloud_clock, cloud.feed)
        stack.push_async_callback(watching.close)
        await self._admin(stack)
        creates, budgets = await stack.enter_async_context(
            create_parts(self._settings, upstream, cloud.objects, buckets=buckets, clock=clock, observed=self._observed)
        )
        jobs = PreviewJobs(upstream, buckets, creates, watching, page_urls)
        all_routes = routes(
            jobs,
            PreviewQueues(upstream, buckets),
            budgets,
            self._observed.log,
            longest_stream=self._settings.watch.max_stream_seconds,
        )
        await self._grpc(stack, self._handlers(access), all_routes, access, watching)

    def _handlers(self, access: Access) -> Handlers:
        limits = self._settings.limits
        anonymous, authentication = limits.anonymous.caller(ANONYMOUS.name), access.authenticator()
        telemetry, bounds = self._observed.limits, Bounds(limits.max_calls, self._settings.watch.max_watches)
        gate = CallLimits(self._counting, telemetry, share=self._settings.processes)
        shares = {
            False: FairShares(bounds.calls, "calls", telemetry),
            True: FairShares(bounds.waits, "waits and watches", telemetry),
        }
        return Handlers(
            self._observed.rpc,
            bounds,
            anonymous=anonymous,
            authentication=authentication,
            gate=gate if authentication is not None or has_limits(anonymous) else None,
            shares=None if authentication is None else shares,
        )

    def _watching(self, upstream: Upstream, clock: Clock, feed: JobFeed | None) -> Watching:
        watch = self._settings.watch
        limits = WatchLimits(
            heartbeat=watch.heartbeat_seconds,
            stream=watch.max_stream_seconds,
            poll=self._settings.upstream.timeout_seconds,
            schedule=watch.schedule(),
        )
        return Watching(
            upstream,
            clock,
            self._observed.jobs,
            limits=limits,
            jitter=random.random,
            feed=feed,
            tracing=self._observed.tracing,
        )

    async def _admin(self, stack: AsyncExitStack) -> None:
        host, port = (self._worker.admin, 0) if self._worker else host_port(self._settings.admin_listen)
        page = None
        if self._worker is None:
            # With workers the supervisor has the page.
            page = OperatorPage(self.registry, self._clock, self._why_unready)
            await stack.enter_async_context(repeated(page.sample, SAMPLE_SECONDS))
        try:
            self.admin_port = await stack.enter_async_context(
                admin_server(host, port, registry=self.registry, unready=self._why_unready, page=page)
            )
        except OSError as error:
            raise StartError(f"admin_listen {self._settings.admin_listen}: {error.strerror}") from error

    def _why_unready(self) -> str | None:
        return self._unready

    async def _grpc(
        self,
        stack: AsyncExitStack,
        handlers: Handlers,
        all_routes: list[Route[Any]],
        access: Access,
        watching: Watching,
    ) -> None:
        server = grpc_server(
            self._guards(handlers),
            shares_port=self._worker is not None,
            connection_age=self._settings.limits.connection_age_seconds,
            longest_stream=self._settings.watch.max_stream_seconds,
        )
        register(server, handlers, all_routes)
        health = Health(server)
        if self._settings.reflection:
            enable_reflection(server)
        credentials = access.server_credentials()
        await access.refresh_keys()
        await stack.enter_async_context(repeated(access.refresh_keys, KEYS_SECONDS))
        await stack.enter_async_context(repeated(access.reloading.check, CHECK_SECONDS))
        try:
            self.port = self._listen(server, credentials)
        except RuntimeError as error:
            raise StartError(f"listen {self._settings.listen}: the address cannot be used, is it taken?") from error
        await server.start()
        await health.serving()
        stack.push_async_callback(self._drain, server, handlers, health, watching)

    def _guards(self, handlers: Handlers) -> list[grpc.aio.ServerInterceptor]:
        """Authentication of reflection, not a route of ours. Only if needed: interceptors cost every call."""
        if not self._settings.reflection or handlers.authentication is None:
            return []
        from docpreview_gateway.rpc.reflection import ReflectionGuard  # noqa: PLC0415

        return [ReflectionGuard(handlers.authentication)]

    def _listen(self, server: grpc.aio.Server, credentials: grpc.ServerCredentials | None) -> int:
        address = self._worker.listen if self._worker else self._settings.listen
        return server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)

    async def _drain(self, server: grpc.aio.Server, handlers: Handlers, health: Health, watching: Watching) -> None:
        """Fail readiness, wait until load balancers notice, end the watches, let calls finish, stop."""
        drain = self._settings.drain
        self._unready = "stopping"
        try:
            await health.leaving()
            await asyncio.sleep(drain.delay_seconds)
            watching.drain()
            await server.stop(drain.grace_seconds)
        finally:
            # Also when a second signal has cancelled the drain: the server ends with the gateway.
            await server.stop(None)
            await handlers.drained(1.0)


async def serve(settings: Settings, worker: Worker | None = None) -> None:
    """Run until SIGTERM or SIGINT, or until a worker's input ends. A second signal ends the drain at once."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    gateway = Gateway(settings, worker)
    await gateway.__aenter__()
    freeze_startup_objects()
    if worker is None:
        log.info("serving", grpc_port=gateway.port, admin_port=gateway.admin_port)
    else:
        _report(stop)
    await stop.wait()
    log.info("stopping")
    leaving = asyncio.ensure_future(gateway.__aexit__(None, None, None))
    hurried = asyncio.ensure_future(hurry.wait())
    await asyncio.wait((leaving, hurried), return_when=asyncio.FIRST_COMPLETED)
    if hurried.done():
        log.warning("stopping before the calls have ended")
        leaving.cancel()
    hurried.cancel()
    await asyncio.gather(leaving, hurried, return_exceptions=True)
    log.info("stopped")


def _report(stop: asyncio.Event) -> None:
    """Report readiness to the supervisor, and stop when the supervisor is gone."""
    loop, supervisor = asyncio.get_running_loop(), sys.stdin.fileno()

    def on_end() -> None:
        loop.remove_reader(supervisor)
        stop.set()

    loop.add_reader(supervisor, on_end)
    log.info("worker serves")
    print("ready", flush=True)  # noqa: T201 - the supervisor reads it
