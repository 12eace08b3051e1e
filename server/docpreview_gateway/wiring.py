"""The composition root: the one place that names concrete parts, starts them in order and stops them in reverse."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from docpreview_gateway.adapters.admin_http import admin_server
from docpreview_gateway.adapters.aiohttp_transport import AiohttpTransport
from docpreview_gateway.adapters.prometheus import PrometheusTelemetry
from docpreview_gateway.adapters.system_clock import SystemClock
from docpreview_gateway.core.buckets import Bucket
from docpreview_gateway.core.polling import Schedule
from docpreview_gateway.core.signing import Credentials
from docpreview_gateway.rpc.handlers import Handlers
from docpreview_gateway.rpc.server import Health, enable_reflection, grpc_server
from docpreview_gateway.rpc.services import register, routes
from docpreview_gateway.service.bucket_register import BucketRegister
from docpreview_gateway.service.page_urls import PageUrls
from docpreview_gateway.service.preview_jobs import PreviewJobs
from docpreview_gateway.service.preview_queues import PreviewQueues
from docpreview_gateway.service.watching import Watching, WatchLimits
from docpreview_gateway.upstream.client import CloudClient
from docpreview_gateway.upstream.observed import ObservedUpstream

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import grpc

    from docpreview_gateway.ports import Clock, PreviewUpstream
    from docpreview_gateway.settings import Settings

log = structlog.get_logger("docpreview_gateway")


class StartError(Exception):
    """The gateway cannot start; the message says why and what to do."""


class StaticCredentials:
    """The port `CredentialsSource` for keys that stand in the settings."""

    def __init__(self, settings: Settings) -> None:
        self._sets = {
            name: Credentials(found.secret_id, found.secret_key.get_secret_value(), found.token.get_secret_value())
            for name, found in settings.credentials.items()
        }

    def credentials(self, name: str) -> Credentials:
        """The credential set of this name; the settings made sure that it exists."""
        return self._sets[name]


class Gateway:
    """A running gateway: `async with Gateway(settings) as gateway`. Leaving the context drains and stops it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._unready: str | None = "starting"
        self.registry = CollectorRegistry()
        self.port = 0
        self.admin_port = 0

    async def __aenter__(self) -> Self:
        """Start; StartError when a port is taken. What was started before a failure is stopped again."""
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        self._unready = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        for collect in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            self.registry.register(collect)
        telemetry = PrometheusTelemetry(self.registry)
        upstream, clock, credentials = await self._upstream(stack, telemetry)
        buckets = BucketRegister(_buckets(self._settings))
        page_urls = PageUrls(buckets, credentials, clock, base=self._settings.upstream.object_url_base)
        watching = self._watching(upstream, clock, telemetry)
        stack.push_async_callback(watching.close)
        await self._admin(stack)
        jobs = PreviewJobs(upstream, buckets, watching, page_urls)
        await self._grpc(stack, jobs, PreviewQueues(upstream, buckets), watching, telemetry)

    async def _upstream(
        self, stack: AsyncExitStack, telemetry: PrometheusTelemetry
    ) -> tuple[PreviewUpstream, Clock, StaticCredentials]:
        settings = self._settings.upstream
        transport = AiohttpTransport(
            base_url=str(settings.endpoint) if settings.endpoint else None,
            connect_seconds=settings.connect_timeout_seconds,
            read_seconds=settings.timeout_seconds,
        )
        await stack.enter_async_context(transport)
        credentials, clock = StaticCredentials(self._settings), SystemClock()
        client = CloudClient(transport, credentials, clock, timeout_seconds=settings.timeout_seconds)
        return ObservedUpstream(client, telemetry), clock, credentials

    def _watching(self, upstream: PreviewUpstream, clock: Clock, telemetry: PrometheusTelemetry) -> Watching:
        watch = self._settings.watch
        limits = WatchLimits(
            heartbeat=watch.heartbeat_seconds,
            stream=watch.max_stream_seconds,
            poll=self._settings.upstream.timeout_seconds,
            schedule=Schedule(floor=watch.poll_floor_seconds, cap=watch.poll_cap_seconds),
        )
        return Watching(upstream, clock, telemetry, limits=limits, jitter=random.random)

    async def _admin(self, stack: AsyncExitStack) -> None:
        host, port = _host_port(self._settings.admin_listen)
        try:
            self.admin_port = await stack.enter_async_context(
                admin_server(host, port, registry=self.registry, unready=lambda: self._unready)
            )
        except OSError as error:
            raise StartError(f"admin_listen {self._settings.admin_listen}: {error.strerror}") from error

    async def _grpc(
        self,
        stack: AsyncExitStack,
        jobs: PreviewJobs,
        queues: PreviewQueues,
        watching: Watching,
        telemetry: PrometheusTelemetry,
    ) -> None:
        server = grpc_server()
        handlers = Handlers(telemetry)
        register(server, handlers, routes(jobs, queues, longest_stream=self._settings.watch.max_stream_seconds))
        health = Health(server)
        if self._settings.reflection:
            enable_reflection(server)
        try:
            self.port = server.add_insecure_port(self._settings.listen)
        except RuntimeError as error:
            raise StartError(f"listen {self._settings.listen}: the address cannot be used, is it taken?") from error
        await server.start()
        await health.serving()
        stack.push_async_callback(self._drain, server, handlers, health, watching)

    async def _drain(self, server: grpc.aio.Server, handlers: Handlers, health: Health, watching: Watching) -> None:
        """Not ready, wait until the callers know, end the watches, let calls finish, stop."""
        drain = self._settings.drain
        self._unready = "stopping"
        try:
            await health.leaving()
            await asyncio.sleep(drain.delay_seconds)
            watching.drain()
            await server.stop(drain.grace_seconds)
        finally:
            # Also for somebody in a hurry, who cancels the drain: the server ends with the gateway.
            await server.stop(None)
            await handlers.drained(1.0)


def _buckets(settings: Settings) -> list[Bucket]:
    return [
        Bucket(bucket.name, bucket.region, bucket.credentials, bucket.default_queue_id) for bucket in settings.buckets
    ]


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; a second signal ends the drain at once."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    gateway = Gateway(settings)
    await gateway.__aenter__()
    log.info("serving", grpc_port=gateway.port, admin_port=gateway.admin_port)
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
