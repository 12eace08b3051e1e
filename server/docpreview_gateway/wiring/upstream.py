"""The way to the cloud: its client, and the middleware around it from the inside out."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.client import CloudClient
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.cloud_objects import CloudObjects
from docpreview_gateway.upstream.memory_cache import LruMemoryCache
from docpreview_gateway.upstream.middleware.cached import Cached
from docpreview_gateway.upstream.middleware.coalesced import Coalesced
from docpreview_gateway.upstream.middleware.concurrency_limited import (
    HostLimiterRules,
    HostLimiters,
    concurrency_limited,
)
from docpreview_gateway.upstream.middleware.observed import UNANSWERED_SECONDS
from docpreview_gateway.upstream.middleware.rate_limited import RateLimited
from docpreview_gateway.upstream.middleware.retrying import Retrying
from docpreview_gateway.upstream.middleware.shared_reads import SharedReads
from docpreview_gateway.upstream.policies.retry_policy import RetryBudget
from docpreview_gateway.wiring.system_clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.limits.ports import RateCounter
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.telemetry.prometheus_upstream import PrometheusUpstream
    from docpreview_gateway.upstream.httpx_transport import HttpxTransport
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.upstream.ports import CredentialsSource, JobFeed, SharedCache, Transport
    from docpreview_gateway.wiring.callbacks import Callbacks
    from docpreview_gateway.wiring.observability import Observability
    from docpreview_gateway.wiring.shared_state import SharedParts


class CloudParts(NamedTuple):
    """The cloud's job API, the feed of other replicas' reads, and the object store.

    `host_problem` says why calls for the bucket of a name fail now; empty: they do not, as far as calls have shown.
    `called_back` tells the other replicas of a bucket, a job and its queue of which a callback has come.
    """

    jobs: Cached
    feed: JobFeed | None
    objects: CloudObjects
    host_problem: Callable[[str], str]
    called_back: Callable[[str, str, str], None]


@asynccontextmanager
async def cloud_parts(  # noqa: PLR0913 - what the parts are made from
    settings: Settings,
    credentials: CredentialsSource,
    times: CloudTimes,
    *,
    rates: RateCounter,
    observed: Observability,
    callbacks: Callbacks | None = None,
    job_ended: Callable[[PreviewJob], None] | None = None,
) -> AsyncIterator[CloudParts]:
    """The parts, connected at their first use. Leaving closes the connections.

    Creates ask the cloud to call `callbacks`, whose trust learns what callbacks have told other replicas; None: for
    parts that create and watch nothing. `job_ended` gets the jobs of which this process sees the end.
    """
    # Caches go by our clock: they hold answers for a second, and the cloud's clock is known to a second only.
    clock, telemetry, timeout = SystemClock(), observed.upstream, settings.upstream.timeout_seconds
    async with AsyncExitStack() as stack:
        endpoint = settings.upstream.endpoint
        transport = await stack.enter_async_context(http_transport(settings, str(endpoint) if endpoint else None))
        policy = settings.retry.policy()
        budget = RetryBudget(policy.share, policy.floor)
        slack, url = settings.ledger.fence_slack_seconds, _no_url if callbacks is None else callbacks.url
        connect = partial(CloudClient, telemetry=telemetry, timeout_seconds=timeout, fence_slack=slack, budget=budget)
        client = connect(transport, credentials, times, callback_url=url)
        limiters = HostLimiters(rules=_rules(settings), telemetry=telemetry, jitter=random.random)
        job_read = None if callbacks is None else callbacks.read
        attempts = concurrency_limited(observed.attempts(client, job_ended, job_read), limiters)
        if (account := settings.limits.account) is not None:
            attempts = RateLimited(attempts, rates, rate=account.rate(), telemetry=observed.limits)
        calls: Upstream = Retrying(
            attempts, policy=policy, budget=budget, times=times, telemetry=telemetry, jitter=random.random
        )
        shared = await _shared(settings, stack, observed)
        reads = None
        if shared is not None:
            freshness = settings.cache.freshness()
            calls = reads = SharedReads(
                calls, shared.single_flight, freshness=freshness, clock=clock, telemetry=telemetry
            )
        # With shared state the answer may come from another replica and need no permit here.
        shed_if_late = limiters.shed_if_late if shared is None else None
        # Longer than two attempts, so that callers share the timeout of an attempt, not this one.
        coalesced = Coalesced(calls, telemetry, longest=2 * timeout + 1, shed_if_late=shed_if_late)
        cached = _cached(settings, coalesced, None if shared is None else shared.single_flight, clock, telemetry)
        if shared is not None:
            learn = _to_nobody if callbacks is None else callbacks.trust.called_back_elsewhere
            await stack.enter_async_context(shared.listening(cached.forget_lists, learn))
        objects = CloudObjects(transport, credentials, CloudTimes(clock), host_limiters=limiters, telemetry=telemetry)
        came = _to_nobody if shared is None else shared.single_flight.called_back
        yield CloudParts(cached, reads, objects, limiters.problem, came)


def _to_nobody(_bucket: str, _job_id: str, _queue_id: str) -> None:
    """Nobody is there to be told of a callback."""


def _no_url(_bucket: Bucket) -> str:
    return ""


def http_transport(settings: Settings, base_url: str | None) -> AbstractAsyncContextManager[Transport]:
    """The HTTP client of the settings. It connects to `base_url` (None: the request's host)."""
    upstream = settings.upstream
    make: type[BuiltinTransport | HttpxTransport] = BuiltinTransport
    if upstream.http_client == "httpx":
        # Imported only when it is chosen.
        from docpreview_gateway.upstream.httpx_transport import HttpxTransport as make  # noqa: N813, PLC0415
    return make(
        base_url=base_url,
        connect_seconds=upstream.connect_timeout_seconds,
        read_seconds=upstream.timeout_seconds,
        proxy=upstream.through(),
    )


def _cached(
    settings: Settings,
    coalesced: Coalesced,
    shared: SharedCache | None,
    clock: SystemClock,
    telemetry: PrometheusUpstream,
) -> Cached:
    memory = LruMemoryCache(settings.cache.max_bytes)
    telemetry.measure_cache(lambda: memory.size)
    return Cached(
        coalesced,
        memory,
        shared,
        freshness=settings.cache.freshness(),
        clock=clock,
        telemetry=telemetry,
        check_admission=coalesced.check_admission,
    )


def _rules(settings: Settings) -> HostLimiterRules:
    return HostLimiterRules(
        settings.breaker.rules(),
        settings.concurrency.bounds(),
        # Below the timeout of an attempt, so that an attempt without a reply always counts.
        timeout_after=min(UNANSWERED_SECONDS, 0.9 * settings.upstream.timeout_seconds),
    )


async def _shared(settings: Settings, stack: AsyncExitStack, observed: Observability) -> SharedParts | None:
    """The shared cache and single-flight. They connect at their first use, so a start needs no server."""
    state = settings.shared_state
    if state.url is None:
        return None
    # Imported only with shared state: redis takes 20 MiB and half a second.
    from docpreview_gateway.wiring.shared_state import shared_parts  # noqa: PLC0415

    parts = shared_parts(
        state.url.get_secret_value(), state.namespace or "", observed.upstream, seconds=state.timeout_seconds
    )
    return await stack.enter_async_context(parts)
