"""The composition root: builds the parts, starts them in order and stops them in reverse."""

from __future__ import annotations

import asyncio
import random
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.jobs.job_lists import JobLists
from docpreview_gateway.jobs.page_tokens import PageTokens
from docpreview_gateway.jobs.page_urls import PageUrls
from docpreview_gateway.jobs.poller import WatchLimits
from docpreview_gateway.jobs.preview_jobs import PreviewJobs
from docpreview_gateway.jobs.preview_queues import PreviewQueues
from docpreview_gateway.jobs.watching import Watching
from docpreview_gateway.limits.call_limits import CallLimits, Counting, has_limits
from docpreview_gateway.limits.fair_shares import FairShares
from docpreview_gateway.model.callers import ANONYMOUS
from docpreview_gateway.rpc.certificates import from_edge, from_tls
from docpreview_gateway.rpc.connections import Connections
from docpreview_gateway.rpc.handlers import Bounds, Handlers, Route
from docpreview_gateway.rpc.listener import Listener
from docpreview_gateway.rpc.server import (
    MOST_CONNECTIONS,
    MOST_STREAMS,
    MOST_STREAMS_OF_EDGE,
    Health,
    enable_reflection,
    grpc_server,
)
from docpreview_gateway.rpc.services import register, routes
from docpreview_gateway.rpc.streams import WATCHDOG_SECONDS, Streams
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.settings.sections import host_port
from docpreview_gateway.storage.background import repeated
from docpreview_gateway.telemetry.admin_server import NOT_LISTENING, admin_server
from docpreview_gateway.telemetry.debug_report import debug_report
from docpreview_gateway.telemetry.operator_page import SAMPLE_SECONDS, OperatorPage
from docpreview_gateway.telemetry.prometheus_callers import PrometheusCallers
from docpreview_gateway.telemetry.readiness import not_known
from docpreview_gateway.telemetry.recent_calls import worker_answers
from docpreview_gateway.uploads.tokens import UploadTokens
from docpreview_gateway.uploads.uploads import Uploads
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.wiring.access import CHECK_SECONDS, KEYS_SECONDS, Access
from docpreview_gateway.wiring.callbacks import Callbacks
from docpreview_gateway.wiring.creates import create_parts, create_secrets
from docpreview_gateway.wiring.edge_drain import drain_edge
from docpreview_gateway.wiring.limits import counting
from docpreview_gateway.wiring.listening import why_not
from docpreview_gateway.wiring.observability import Observability
from docpreview_gateway.wiring.reloading import InvalidFileError
from docpreview_gateway.wiring.system_clock import SystemClock
from docpreview_gateway.wiring.upstream import cloud_parts
from docpreview_gateway.wiring.webhooks import OutgoingWebhooks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    import grpc

    from docpreview_gateway.access.authentication import Authenticator
    from docpreview_gateway.rpc.handlers import Route
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.storage.key_file import DeploymentSecrets
    from docpreview_gateway.telemetry.readiness import Dependency
    from docpreview_gateway.upstream.middleware.cached import Cached
    from docpreview_gateway.upstream.ports import JobFeed, ObjectStore
    from docpreview_gateway.wiring.access import HeldCredentials
    from docpreview_gateway.wiring.creates import CreateParts
    from docpreview_gateway.wiring.upstream import CloudParts

log = structlog.get_logger("docpreview_gateway")


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker's share of its supervisor's ports: the shared addresses, and the path of its own admin socket.

    `callbacks` is the one that takes callbacks; empty: none does.
    """

    listen: str
    admin: str
    callbacks: str = ""


class Gateway:
    """A running gateway: `async with Gateway(settings) as gateway`. Leaving the context drains and stops it."""

    def __init__(self, settings: Settings, worker: Worker | None = None) -> None:
        self._settings = settings
        self._worker = worker
        self._stack = AsyncExitStack()
        self._unready: str | None = "starting"
        self._dependencies: Callable[[], dict[str, Dependency]] = not_known
        self._counting = Counting()
        self._clock = SystemClock()
        self._observed = Observability(settings, self._clock)
        self._streams = Streams()
        self._connections = Connections(MOST_CONNECTIONS, self._streams.peers)
        PrometheusCallers(self._observed.registry, self._connections, self._streams)
        self.registry = self._observed.registry
        self._listener: Listener | None = None
        self.port = 0
        self.admin_port = 0
        self.callback_port = 0

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
        # Every file is read before the store is touched: with an invalid one there is nothing to connect for.
        credentials, times = access.cloud_credentials(), CloudTimes(clock)
        authentication, tls = access.authenticator(), access.server_credentials()
        self._observed.limits.measure_callers(access.callers)
        known = create_secrets(self._settings)
        webhooks = OutgoingWebhooks(self._settings, known.secrets, clock, self._observed.webhooks, access.webhooks)
        self.callbacks = callbacks = Callbacks(
            self._settings, known.secrets, clock, self._observed.callbacks, webhooks.told, self._worker
        )
        self._counting = await stack.enter_async_context(counting(self._settings))
        cloud = await stack.enter_async_context(self._cloud(credentials, times, callbacks, webhooks))
        upstream = cloud.jobs
        buckets = BucketRegistry([found.bucket() for found in self._settings.buckets])
        page_urls = PageUrls(
            buckets, credentials, times, ask=cloud.objects.now, base=self._settings.upstream.object_url_base
        )
        watching = self._watching(upstream, times, cloud.feed, callbacks, shared=authentication is not None)
        stack.push_async_callback(watching.close)
        await self._admin(stack)
        made = self._creates(cloud, buckets, times, access, known, callbacks, webhooks)
        creates = await stack.enter_async_context(made)
        self._dependencies = creates.dependencies
        tokens = PageTokens(credentials, secrets.token_bytes)
        jobs = PreviewJobs(upstream, buckets, creates.creates, watching, page_urls, lists=JobLists(upstream, tokens))
        all_routes = routes(
            jobs,
            PreviewQueues(upstream, buckets, tokens),
            creates.usages,
            self._uploads(buckets, cloud.objects, credentials),
            self._observed.log,
            longest_stream=self._settings.watch.max_stream_seconds,
        )
        await access.refresh_keys()
        await stack.enter_async_context(repeated(access.refresh_keys, KEYS_SECONDS))
        await stack.enter_async_context(repeated(access.reloading.check, CHECK_SECONDS))
        self.callback_port = await stack.enter_async_context(
            callbacks.serving(upstream, buckets, watching, creates.ended, times=times, came=cloud.called_back)
        )
        await self._grpc(stack, self._handlers(authentication), all_routes, tls, watching)

    def _cloud(
        self, credentials: HeldCredentials, times: CloudTimes, callbacks: Callbacks, webhooks: OutgoingWebhooks
    ) -> AbstractAsyncContextManager[CloudParts]:
        return cloud_parts(
            self._settings,
            credentials,
            times,
            rates=self._counting,
            observed=self._observed,
            callbacks=callbacks,
            job_ended=webhooks.told,
        )

    @asynccontextmanager
    async def _creates(  # noqa: PLR0913, PLR0917 - what creates are made from
        self,
        cloud: CloudParts,
        buckets: BucketRegistry,
        times: CloudTimes,
        access: Access,
        known: DeploymentSecrets,
        callbacks: Callbacks,
        webhooks: OutgoingWebhooks,
    ) -> AsyncIterator[CreateParts]:
        trust = callbacks.trust if self._settings.callbacks.listen else None
        async with (
            webhooks.running(cloud.jobs, buckets, trust) as promises,
            create_parts(
                self._settings,
                cloud.jobs,
                cloud.objects,
                buckets=buckets,
                clock=self._clock,
                times=times,
                observed=self._observed,
                access=access,
                known=known,
                callbacks=trust,
                webhooks=promises,
                host_problem=cloud.host_problem,
                worker=Path(self._worker.admin).stem if self._worker is not None else "",
            ) as made,
        ):
            yield made

    def _handlers(self, authentication: Authenticator | None) -> Handlers:
        limits = self._settings.limits
        anonymous = limits.anonymous.caller(ANONYMOUS.name)
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
            certificate_of=from_edge if self._settings.edge.listen else from_tls,
            shares=None if authentication is None else shares,
        )

    def _uploads(self, buckets: BucketRegistry, store: ObjectStore, credentials: HeldCredentials) -> Uploads:
        return Uploads(
            buckets,
            store,
            credentials,
            UploadTokens(credentials, buckets.find, secrets.token_bytes),
            telemetry=self._observed.uploads,
            log=self._observed.log,
            random_bytes=secrets.token_bytes,
            base=self._settings.upstream.object_url_base,
        )

    def _watching(
        self, upstream: Cached, times: CloudTimes, feed: JobFeed | None, callbacks: Callbacks, *, shared: bool
    ) -> Watching:
        watch = self._settings.watch
        shares = FairShares(watch.max_watches, "jobs in streams of WatchPreviewJobs", self._observed.limits)
        limits = WatchLimits(
            heartbeat=watch.heartbeat_seconds,
            stream=watch.max_stream_seconds,
            poll=self._settings.upstream.timeout_seconds,
            jobs=watch.max_watches,
            schedule=watch.schedule(),
        )
        return Watching(
            upstream,
            times,
            self._observed.jobs,
            limits=limits,
            jitter=random.random,
            feed=feed,
            tracing=self._observed.tracing,
            shares=shares if shared else None,
            callbacks=callbacks.trust if self._settings.callbacks.listen else None,
            last_seen=upstream.last_seen,
        )

    async def _admin(self, stack: AsyncExitStack) -> None:
        host, port = (self._worker.admin, 0) if self._worker else host_port(self._settings.admin_listen)
        pages, texts, recent = None, {}, self._observed.recent
        if self._worker is None:
            pages = OperatorPage(
                self.registry, self._clock, unready=self._why_unready, dependencies=self._depends_on, recent=recent
            )
            await stack.enter_async_context(repeated(pages.sample, SAMPLE_SECONDS))
        else:
            # With workers the supervisor has the page, and asks them.
            texts["/recent"] = worker_answers(recent)
        if self._settings.admin_debug:
            texts["/debug"] = debug_report
        try:
            self.admin_port = await stack.enter_async_context(
                admin_server(
                    host,
                    port,
                    registry=self.registry,
                    unready=self._why_unready,
                    unhealthy=self._why_unhealthy,
                    dependencies=self._depends_on,
                    pages=pages,
                    texts=texts,
                    hosts=self._settings.admin_hosts,
                    listen=self._settings.listen,
                )
            )
        except OSError as error:
            raise StartError(why_not("admin_listen", self._settings.admin_listen)) from error

    def _why_unready(self) -> str | None:
        return self._unready or self._why_deaf()

    def _depends_on(self) -> dict[str, Dependency]:
        return self._dependencies()

    def _why_deaf(self) -> str | None:
        return None if self._listener is not None and self._listener.listening else NOT_LISTENING

    async def _why_unhealthy(self) -> str | None:
        return self._why_deaf()

    async def lost(self) -> None:
        """Wait until the gRPC server ends unasked."""
        assert self._listener is not None  # noqa: S101 - the gateway has started
        await self._listener.lost.wait()

    async def _grpc(
        self,
        stack: AsyncExitStack,
        handlers: Handlers,
        all_routes: list[Route[Any]],
        tls: grpc.ServerCredentials | None,
        watching: Watching,
    ) -> None:
        health = Health()
        self._listener = listener = Listener(self._observed.rpc)
        server = self._server(listener, handlers, all_routes, health)
        for watchdog in (self._streams.check, self._connections.check):
            await stack.enter_async_context(repeated(watchdog, WATCHDOG_SECONDS))
        address = self._settings.listen if self._worker is None else self._worker.listen
        try:
            self.port = await listener.start(server, address, tls)
        except RuntimeError as error:
            raise StartError(why_not("listen", self._settings.listen)) from error
        self._connections.listens_on(self.port)
        await health.serving()
        stack.push_async_callback(self._drain, listener, handlers, health, watching)

    def _server(
        self, listener: Listener, handlers: Handlers, all_routes: list[Route[Any]], health: Health
    ) -> grpc.aio.Server:
        """The server, with its handlers and without a port."""
        server = grpc_server(
            self._guards(handlers),
            shares_port=self._worker is not None,
            connection_age=self._settings.limits.connection_age_seconds,
            longest_stream=self._settings.watch.max_stream_seconds,
            most_streams=MOST_STREAMS_OF_EDGE if self._settings.edge.listen else MOST_STREAMS,
            on_unknown=listener.on_unknown,
            on_end=listener.on_end,
        )
        register(server, handlers, all_routes, self._streams)
        health.register(server, self._streams)
        if self._settings.reflection:
            enable_reflection(server, self._streams)
        return server

    def _guards(self, handlers: Handlers) -> list[grpc.aio.ServerInterceptor]:
        """Authentication of reflection, not a route of ours. Only if needed: interceptors cost every call."""
        if not self._settings.reflection or handlers.authentication is None:
            return []
        from docpreview_gateway.rpc.reflection import ReflectionGuard  # noqa: PLC0415

        return [ReflectionGuard(handlers.authentication, handlers.certificate_of)]

    async def _drain_edge(self) -> None:
        # With workers the supervisor does it.
        if self._worker is None:
            await drain_edge(self._settings.edge)

    async def _drain(self, listener: Listener, handlers: Handlers, health: Health, watching: Watching) -> None:
        """Fail readiness, wait until load balancers notice, end the watches, let calls finish, stop."""
        drain = self._settings.drain
        self._unready = "stopping"
        try:
            await health.leaving()
            await asyncio.gather(self._drain_edge(), asyncio.sleep(drain.delay_seconds))
            watching.drain()
            await listener.stop(drain.grace_seconds)
        finally:
            # Also when a second signal has cancelled the drain: the server ends with the gateway.
            await listener.stop(None)
            await handlers.drained(1.0)
