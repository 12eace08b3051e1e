"""The composition root: the one place that names concrete parts, starts them in order and stops them in reverse."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.background import repeated
from docpreview_gateway.jobs.page_urls import PageUrls
from docpreview_gateway.jobs.polling import Schedule
from docpreview_gateway.jobs.preview_jobs import PreviewJobs
from docpreview_gateway.jobs.preview_queues import PreviewQueues
from docpreview_gateway.jobs.watching import Watching, WatchLimits
from docpreview_gateway.limits.call_limits import CallLimits, Counting, has_limits
from docpreview_gateway.model.callers import ANONYMOUS
from docpreview_gateway.rpc.handlers import Bounds, Handlers, Route
from docpreview_gateway.rpc.server import Health, enable_reflection, grpc_server
from docpreview_gateway.rpc.services import register, routes
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.settings.sections import host_port
from docpreview_gateway.telemetry.admin_server import admin_server
from docpreview_gateway.telemetry.operator_page import SAMPLE_SECONDS, OperatorPage
from docpreview_gateway.upstream.aiohttp_transport import AiohttpTransport
from docpreview_gateway.upstream.client import CloudClient
from docpreview_gateway.upstream.cloud_clock import CloudClock
from docpreview_gateway.upstream.memory_cache import LruMemoryCache
from docpreview_gateway.upstream.middleware.cached import Cached
from docpreview_gateway.upstream.middleware.coalesced import Coalesced
from docpreview_gateway.upstream.middleware.concurrency_limited import HostLimiters, concurrency_limited
from docpreview_gateway.upstream.middleware.rate_limited import RateLimited
from docpreview_gateway.upstream.middleware.retrying import Retrying
from docpreview_gateway.upstream.middleware.shared_reads import SharedReads
from docpreview_gateway.upstream.object_tags import CloudObjectTags
from docpreview_gateway.wiring import tuning
from docpreview_gateway.wiring.creates import create_parts, stores
from docpreview_gateway.wiring.event_loop import freeze_startup_objects
from docpreview_gateway.wiring.identity import KEYS_SECONDS, LOOK_SECONDS, Identities
from docpreview_gateway.wiring.observability import Observability
from docpreview_gateway.wiring.reloading import InvalidFileError
from docpreview_gateway.wiring.stores import counting
from docpreview_gateway.wiring.system_clock import SystemClock

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import grpc

    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.rpc.handlers import Route
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.telemetry.prometheus_upstream import PrometheusUpstream
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.upstream.ports import CredentialsSource, JobFeed, ObjectTags
    from docpreview_gateway.wiring.shared_state import SharedParts

RECONCILE_SECONDS = 10.0
"""Between looks for creates that nobody came back for."""

CHARGE_PAGES_SECONDS = 2.0
"""Between looks for jobs that have ended, so that their pages count."""

log = structlog.get_logger("docpreview_gateway")


@dataclass(frozen=True, slots=True)
class Worker:
    """What a supervisor gives one of its workers: the shared address, and the path of its admin socket."""

    listen: str
    admin: str


class Cloud(NamedTuple):
    """The cloud's job API, what other replicas see of jobs, and what is in its objects."""

    jobs: Cached
    feed: JobFeed | None
    objects: ObjectTags


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
        """Start; StartError when a port is taken. What was started before a failure is stopped again."""
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
        identities = Identities(self._settings, clock, self._observed.access)
        credentials, cloud_clock = identities.cloud_credentials(), CloudClock(clock)
        self._counting = await stack.enter_async_context(counting(self._settings))
        cloud = await self._cloud(stack, credentials, cloud_clock, self._observed.upstream)
        upstream = cloud.jobs
        buckets = BucketRegistry(tuning.buckets(self._settings))
        page_urls = PageUrls(buckets, credentials, cloud_clock, base=self._settings.upstream.object_url_base)
        watching = self._watching(upstream, cloud_clock, cloud.feed)
        stack.push_async_callback(watching.close)
        opened = await stack.enter_async_context(stores(self._settings))
        await self._admin(stack)
        creates, budgets, creating = create_parts(
            self._settings,
            upstream,
            cloud.objects,
            opened,
            buckets=buckets,
            clock=clock,
            observed=self._observed,
        )
        jobs = PreviewJobs(upstream, buckets, creates, watching, page_urls)
        await stack.enter_async_context(repeated(budgets.charge, CHARGE_PAGES_SECONDS))
        await stack.enter_async_context(repeated(creating.reconcile, RECONCILE_SECONDS))
        stack.push_async_callback(creates.drained)
        stack.push_async_callback(budgets.drained)
        stack.push_async_callback(creating.drained)
        all_routes = routes(
            jobs,
            PreviewQueues(upstream, buckets),
            budgets,
            self._observed.log,
            longest_stream=self._settings.watch.max_stream_seconds,
        )
        await self._grpc(stack, self._handlers(identities), all_routes, identities, watching)

    def _handlers(self, identities: Identities) -> Handlers:
        limits = self._settings.limits
        anonymous, identification = limits.anonymous.caller(ANONYMOUS.name), identities.identification()
        gate = CallLimits(self._counting, self._observed.limits, share=self._settings.processes)
        return Handlers(
            self._observed.rpc,
            Bounds(limits.max_calls, self._settings.watch.max_watches),
            anonymous=anonymous,
            identification=identification,
            gate=gate if identification is not None or has_limits(anonymous) else None,
        )

    async def _cloud(
        self, stack: AsyncExitStack, credentials: CredentialsSource, clock: CloudClock, telemetry: PrometheusUpstream
    ) -> Cloud:
        """The cloud and, from the outside in, what stands before its job API."""
        settings = self._settings.upstream
        transport = AiohttpTransport(
            base_url=str(settings.endpoint) if settings.endpoint else None,
            connect_seconds=settings.connect_timeout_seconds,
            read_seconds=settings.timeout_seconds,
        )
        await stack.enter_async_context(transport)
        slack = self._settings.ledger.fence_slack_seconds
        client = CloudClient(transport, credentials, clock, timeout_seconds=settings.timeout_seconds, fence_slack=slack)
        memory = LruMemoryCache(self._settings.cache.max_bytes)
        telemetry.measure_cache(lambda: memory.size)
        rules = tuning.host_limiter_rules(self._settings)
        limiters = HostLimiters(rules=rules, telemetry=telemetry, jitter=random.random)
        limited = concurrency_limited(self._observed.attempts(client), limiters)
        reads, retrying = None, self._retrying(limited, clock, telemetry)
        shared = await self._shared(stack, telemetry)
        if shared is not None:
            reads = SharedReads(retrying, shared.single_flight, clock=clock, telemetry=telemetry)
        coalesced = Coalesced(
            reads or retrying,
            telemetry,
            # Longer than two attempts, so that the attempt's own limit is the one that is shared.
            longest=2 * settings.timeout_seconds + 1,
            # What other replicas know or are reading needs no room here.
            shed_if_late=limiters.shed_if_late if shared is None else None,
        )
        cached = Cached(
            coalesced,
            memory,
            shared.cache if shared is not None else None,
            freshness=tuning.freshness(self._settings),
            clock=clock,
            telemetry=telemetry,
            check_admission=coalesced.check_admission,
        )
        if shared is not None:
            await stack.enter_async_context(shared.listening(cached.forget_lists))
        objects = CloudObjectTags(transport, credentials, clock, host_limiters=limiters, telemetry=telemetry)
        return Cloud(cached, reads, objects)

    def _retrying(self, limited: Upstream, clock: Clock, telemetry: PrometheusUpstream) -> Retrying:
        """Attempts that are made again, and never more in a second than an account may."""
        if (account := self._settings.limits.account) is not None:
            limited = RateLimited(limited, self._counting, rate=account.rate(), telemetry=self._observed.limits)
        policy = tuning.retry_policy(self._settings)
        return Retrying(limited, policy=policy, clock=clock, telemetry=telemetry, jitter=random.random)

    async def _shared(self, stack: AsyncExitStack, telemetry: PrometheusUpstream) -> SharedParts | None:
        """What replicas share. Nothing is connected yet: a server that is down does not keep us from starting."""
        state = self._settings.shared_state
        if state.url is None:
            return None
        # Whoever shares nothing does without the 20 MiB and the half second that the library takes to import.
        from docpreview_gateway.wiring.shared_state import shared_parts  # noqa: PLC0415

        url = state.url.get_secret_value()
        return await stack.enter_async_context(shared_parts(url, telemetry, seconds=state.timeout_seconds))

    def _watching(self, upstream: Upstream, clock: Clock, feed: JobFeed | None) -> Watching:
        watch = self._settings.watch
        limits = WatchLimits(
            heartbeat=watch.heartbeat_seconds,
            stream=watch.max_stream_seconds,
            poll=self._settings.upstream.timeout_seconds,
            schedule=Schedule(floor=watch.poll_floor_seconds, cap=watch.poll_cap_seconds),
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
            # With workers the page is the supervisor's.
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
        identities: Identities,
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
        credentials = identities.server_credentials()
        await identities.refresh_keys()
        await stack.enter_async_context(repeated(identities.refresh_keys, KEYS_SECONDS))
        await stack.enter_async_context(repeated(identities.reloading.look, LOOK_SECONDS))
        try:
            self.port = self._listen(server, credentials)
        except RuntimeError as error:
            raise StartError(f"listen {self._settings.listen}: the address cannot be used, is it taken?") from error
        await server.start()
        await health.serving()
        stack.push_async_callback(self._drain, server, handlers, health, watching)

    def _guards(self, handlers: Handlers) -> list[grpc.aio.ServerInterceptor]:
        """The handlers ask for themselves, reflection cannot. Interceptors cost every call, so only when needed."""
        if not self._settings.reflection or handlers.identification is None:
            return []
        from docpreview_gateway.rpc.reflection import ReflectionGuard  # noqa: PLC0415

        return [ReflectionGuard(handlers.identification)]

    def _listen(self, server: grpc.aio.Server, credentials: grpc.ServerCredentials | None) -> int:
        address = self._worker.listen if self._worker else self._settings.listen
        return server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)

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


async def serve(settings: Settings, worker: Worker | None = None) -> None:
    """Run until SIGTERM or SIGINT; a second signal ends the drain at once. A worker stops when its input ends, too."""
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
    """Tell the supervisor that this worker serves, and stop when the supervisor is gone."""
    loop, supervisor = asyncio.get_running_loop(), sys.stdin.fileno()

    def on_end() -> None:
        loop.remove_reader(supervisor)
        stop.set()

    loop.add_reader(supervisor, on_end)
    log.info("worker serves")
    print("ready", flush=True)  # noqa: T201 - the supervisor reads it
