"""What the settings say, in the words of those who go by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.creates.records import Timing
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.upstream.middleware.concurrency_limited import HostLimiterRules
from docpreview_gateway.upstream.policies.adaptive_limit import LimitBounds
from docpreview_gateway.upstream.policies.freshness import Freshness
from docpreview_gateway.upstream.policies.host_breaker import BreakerRules
from docpreview_gateway.upstream.policies.retry_policy import RetryPolicy

if TYPE_CHECKING:
    from docpreview_gateway.settings.loading import Settings

UPSTREAM_TIMEOUT_AFTER_SECONDS = 1.0
"""A call that its caller gave up after so long without an answer tells of the cloud, not of the caller."""


def timing(settings: Settings) -> Timing:
    """Of creates with request_id."""
    found = settings.ledger
    return Timing(
        signature=found.signature_seconds,
        fence_slack=found.fence_slack_seconds,
        visibility=found.visibility_seconds,
        lease=found.lease_seconds,
        keep=found.keep_seconds,
    )


def retry_policy(settings: Settings) -> RetryPolicy:
    """Of attempts that are made again."""
    found = settings.retry
    return RetryPolicy(
        retries=found.max_retries,
        base=found.base_seconds,
        cap=found.cap_seconds,
        share=found.budget_share,
        floor=found.budget_floor,
    )


def host_limiter_rules(settings: Settings) -> HostLimiterRules:
    """Of the ways to the buckets' hosts."""
    breaker, concurrency = settings.breaker, settings.concurrency
    return HostLimiterRules(
        BreakerRules(breaker.min_calls, breaker.failure_share, breaker.window_seconds, breaker.open_seconds),
        LimitBounds(concurrency.initial, concurrency.lowest, concurrency.highest, concurrency.max_queue),
        # An attempt that takes all its time is the cloud's failure, however short that is.
        hopeless=min(UPSTREAM_TIMEOUT_AFTER_SECONDS, 0.9 * settings.upstream.timeout_seconds),
    )


def freshness(settings: Settings) -> Freshness:
    """Of kept answers."""
    cache = settings.cache
    return Freshness(
        active=cache.active_seconds,
        missing=cache.missing_seconds,
        listing=cache.list_seconds,
        stale=cache.stale_seconds,
    )


def buckets(settings: Settings) -> list[Bucket]:
    """That exist for callers."""
    return [
        Bucket(bucket.name, bucket.region, bucket.credentials, bucket.default_queue_id) for bucket in settings.buckets
    ]
