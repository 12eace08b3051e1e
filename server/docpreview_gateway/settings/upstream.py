"""Sections of the settings of the way to the cloud: connection, retries, breaker, concurrency and cache."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator

from docpreview_gateway.settings.limits import Section, Tuning
from docpreview_gateway.settings.sections import Endpoint  # noqa: TC001 - pydantic reads the annotations
from docpreview_gateway.upstream import http_proxy
from docpreview_gateway.upstream.policies.adaptive_limit import LimitBounds
from docpreview_gateway.upstream.policies.freshness import Freshness
from docpreview_gateway.upstream.policies.host_breaker import BreakerRules
from docpreview_gateway.upstream.policies.retry_policy import RetryPolicy


def _proxy(value: SecretStr) -> SecretStr:
    http_proxy.parse(value.get_secret_value())
    return value


ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy)]


class UpstreamSettings(Section):
    """The connection to the cloud."""

    endpoint: Endpoint | None = Field(
        None,
        description="address of another server in place of the cloud, such as the emulator's `http://127.0.0.1:8089`; "
        "Host header and signature stay the bucket's. None: the bucket's own host, by https",
    )
    proxy: ProxyUrl | None = Field(
        None,
        description="address of an egress proxy, `http://[user:password@]host:port`: every connection to the cloud, or "
        "to `endpoint`, is then a tunnel by CONNECT. With a password better as a variable. None: no proxy, whatever "
        "HTTPS_PROXY says. See [deploy.md](deploy.md#behind-an-egress-proxy)",
    )
    timeout_seconds: Tuning[float] = Field(
        10.0, gt=0, le=60, description="timeout of one attempt, from connecting to the last byte"
    )
    connect_timeout_seconds: Tuning[float] = Field(
        3.0,
        gt=0,
        le=60,
        description="timeout of connecting: the wait for a free connection, a proxy's tunnel and TLS included",
    )
    http_client: Tuning[Literal["builtin", "httpx"]] = Field(
        "builtin",
        description="HTTP client of signed requests: `builtin`, or `httpx` to send them through that library's "
        "interface, over the same connections and proxy, at half as much CPU time again: for code of your own in "
        "Python, which gives `HttpxTransport` a transport or hooks, or instruments httpx. By itself it changes "
        "nothing but the cost",
    )
    object_url_base: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#]+$",
        description="base of signed page URLs, with `{host}` for the bucket's object host. None: `https://{host}`",
    )

    def through(self) -> http_proxy.Proxy | None:
        """The proxy, if there is one."""
        return None if self.proxy is None else http_proxy.parse(self.proxy.get_secret_value())

    @field_validator("object_url_base")
    @classmethod
    def _usable_base(cls, value: str | None) -> str | None:
        """A host and a port, with nothing but `{host}` to be replaced."""
        filled = (value or "").replace("{host}", "bucket-1.cos.region.example")
        try:
            parts = urlsplit(filled)
            is_usable = value is None or bool(parts.hostname and (parts.port is None or parts.port > 0))
        except ValueError:
            is_usable = False
        if not is_usable or "{" in filled or "}" in filled:
            raise ValueError(
                "must be an address in which only {host} stands for the bucket's object host, such as https://{host}"
            )
        return value


class RetrySettings(Section):
    """Retries of attempts at the cloud; times in seconds."""

    max_retries: Tuning[int] = Field(
        2,
        ge=0,
        le=5,
        description="maximum number of retries of one call; 0: no retries. Reads are retried after transient "
        "failures, creates only when the cloud has certainly not admitted them (no connection, throttling)",
    )
    base_seconds: Tuning[float] = Field(
        0.1,
        gt=0,
        le=10,
        description="upper bound of the wait before the first retry, doubled for each further one; the wait is random "
        "below it (full jitter), and a longer `Retry-After` of the cloud wins",
    )
    cap_seconds: Tuning[float] = Field(2.0, gt=0, le=60, description="upper bound of all these waits")
    budget_share: Tuning[float] = Field(
        0.1,
        ge=0,
        le=1,
        description="retry budget: maximum share of retries among the calls of the last 10 s, per process",
    )
    budget_floor: Tuning[int] = Field(
        10, ge=0, le=10_000, description="number of retries in 10 s within the budget even when there are few calls"
    )

    def policy(self) -> RetryPolicy:
        """The retry policy of calls to the cloud."""
        return RetryPolicy(
            retries=self.max_retries,
            base=self.base_seconds,
            cap=self.cap_seconds,
            share=self.budget_share,
            floor=self.budget_floor,
        )


class BreakerSettings(Section):
    """The circuit breaker of each bucket's host; times in seconds."""

    min_calls: Tuning[int] = Field(
        20,
        ge=0,
        le=100_000,
        description="minimum number of calls to a bucket's host in the window before the breaker can open; 0: the "
        "breaker never opens",
    )
    failure_share: Tuning[float] = Field(
        0.5, gt=0, le=1, description="share of failures among these calls at which the breaker opens"
    )
    window_seconds: Tuning[float] = Field(
        10.0, ge=0.1, le=300, description="sliding window over which failures are counted"
    )
    open_seconds: Tuning[float] = Field(
        5.0,
        ge=0.1,
        le=300,
        description="time for which an open breaker rejects calls (`UPSTREAM_BREAKER_OPEN`) before one call probes "
        "the host; up to a fifth shorter, at random",
    )

    def rules(self) -> BreakerRules:
        """The rules of each host's circuit breaker."""
        return BreakerRules(self.min_calls, self.failure_share, self.window_seconds, self.open_seconds)


class ConcurrencySettings(Section):
    """The adaptive limit of concurrent calls to a bucket's host."""

    initial: Tuning[int] = Field(
        32,
        ge=1,
        le=100,
        description="limit of concurrent calls to a bucket's host at start; it then adapts to what the host can do",
    )
    lowest: Tuning[int] = Field(
        4, ge=1, le=100, description="lower bound of the adaptive limit, whatever the throttling and timeouts"
    )
    highest: Tuning[int] = Field(100, ge=1, le=100, description="upper bound of the adaptive limit")
    max_queue: Tuning[int] = Field(
        1000,
        ge=0,
        le=100_000,
        description="maximum number of calls waiting for a permit; calls that would not get one in time are rejected "
        "immediately (`OVERLOADED`)",
    )

    def bounds(self) -> LimitBounds:
        """The bounds of each host's concurrency limit."""
        return LimitBounds(self.initial, self.lowest, self.highest, self.max_queue)


class CacheSettings(Section):
    """The cache of answers; lifetimes in seconds. Finished jobs stay cached until they are a month old."""

    max_bytes: Tuning[int] = Field(
        64 * 1024 * 1024, ge=0, le=2**40, description="size of the cache in memory, per process"
    )
    active_seconds: Tuning[float] = Field(
        1.0,
        ge=0,
        le=60,
        description="lifetime of cached jobs that may still change; finished jobs stay cached until they are a month "
        "old",
    )
    missing_seconds: Tuning[float] = Field(2.0, ge=0, le=60, description='lifetime of cached "no such job" answers')
    list_seconds: Tuning[float] = Field(
        1.0, ge=0, le=60, description="lifetime of cached lists; a create invalidates the lists of its bucket"
    )
    stale_seconds: Tuning[float] = Field(
        300.0,
        ge=0,
        le=86400,
        description="additional age up to which cached jobs are served when the cloud fails (`x-cache: stale`); 0: "
        "the call fails instead",
    )

    def freshness(self) -> Freshness:
        """The ages up to which cached answers are fresh or usable."""
        return Freshness(
            active=self.active_seconds,
            missing=self.missing_seconds,
            listing=self.list_seconds,
            stale=self.stale_seconds,
        )
