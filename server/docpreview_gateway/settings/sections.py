"""The sections of the settings, and the forms of their values."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated, Literal

from pydantic import AfterValidator, AnyHttpUrl, Field, SecretStr, UrlConstraints, model_validator

from docpreview_gateway.model.buckets import BUCKET, REGION
from docpreview_gateway.settings.limits import CallerLimitSettings, RateWords, Section
from docpreview_gateway.storage import redis_urls


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ValueError("must have the form host:port, such as 127.0.0.1:50051; port 0 takes a free one")
    return value


def host_port(address: str) -> tuple[str, int]:
    """The parts of `host:port`, the host without the brackets of IPv6."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _redis_url(value: SecretStr) -> SecretStr:
    """No message quotes the URL or a part of it: whatever is wrong with it, it may hold a password."""
    redis_urls.parse(value.get_secret_value())
    return value


def _endpoint(value: AnyHttpUrl) -> AnyHttpUrl:
    if value.username or value.password or value.query or value.fragment or (value.path or "/") != "/":
        raise ValueError("must be scheme, host and port only, such as http://127.0.0.1:8089")
    return value


def _matching(pattern: re.Pattern[str], description: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(description)
        return value

    return AfterValidator(check)


BucketName = Annotated[str, _matching(BUCKET, "must have the form <name>-<appid>, such as documents-1250000000")]
Region = Annotated[str, _matching(REGION, "must be a region in the cloud's spelling, such as ap-chongqing")]
QueueId = Annotated[str, _matching(re.compile("[A-Za-z0-9]{0,64}"), "must be at most 64 letters and digits")]
Address = Annotated[str, AfterValidator(_address)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
Endpoint = Annotated[AnyHttpUrl, UrlConstraints(allowed_schemes=["http", "https"]), AfterValidator(_endpoint)]


class BucketSettings(Section):
    """A bucket that callers may use. What is not listed does not exist."""

    name: BucketName = Field(description="`<name>-<appid>`. A bucket that is not listed does not exist for callers")
    region: Region = Field(description="the cloud's spelling, such as `ap-chongqing`")
    credentials: str = Field(description="name of the credential set that signs for this bucket")
    default_queue_id: QueueId = Field(
        "", description="queue of creates that name none; without it the cloud takes the bucket's default queue"
    )


class CredentialSettings(Section):
    """A key pair of the cloud, here or in a file; `token` belongs to temporary keys."""

    secret_id: str = Field("", description="key id")
    secret_key: SecretStr = Field(SecretStr(""), description="secret key")
    token: SecretStr = Field(SecretStr(""), description="session token of temporary keys")
    file: Path | None = Field(
        None, description="instead of the three above: YAML or JSON file that has them, re-read when it changes"
    )

    @model_validator(mode="after")
    def _one_source(self) -> CredentialSettings:
        here = bool(self.secret_id), bool(self.secret_key.get_secret_value())
        if self.file is not None and (any(here) or self.token.get_secret_value()):
            raise ValueError("has a file and keys beside it; take one of them away")
        if self.file is None and not all(here):
            raise ValueError("needs secret_id and secret_key, or a file that has them")
        return self


class UpstreamSettings(Section):
    """How the cloud is reached."""

    endpoint: Endpoint | None = Field(
        None,
        description="where to connect instead, such as `http://127.0.0.1:8089`; Host and signature stay "
        "the bucket's. None: the bucket's own host, by https",
    )
    timeout_seconds: float = Field(10.0, gt=0, le=60, description="of one attempt, from connecting to the last byte")
    connect_timeout_seconds: float = Field(
        3.0, gt=0, le=60, description="of connecting, waiting for a free connection included"
    )
    object_url_base: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#]+$",
        description="base of signed page addresses; `{host}` stands for the bucket's object host. "
        "None: `https://{host}`",
    )


class RetrySettings(Section):
    """Attempts at the cloud that are made again; times in seconds."""

    max_retries: int = Field(
        2,
        ge=0,
        le=5,
        description="attempts of a call that are made again; 0: none. Reads after transient failures; creates only "
        "after what certainly was not admitted (no connection, throttling)",
    )
    base_seconds: float = Field(
        0.1,
        gt=0,
        le=10,
        description="longest wait before the first retry, doubled for each further one; the wait is drawn at random "
        "below that, and a longer `Retry-After` of the cloud wins",
    )
    cap_seconds: float = Field(2.0, gt=0, le=60, description="longest of these waits")
    budget_share: float = Field(
        0.1, ge=0, le=1, description="share of the calls of 10 s that may be retries, by process"
    )
    budget_floor: int = Field(
        10, ge=0, le=10_000, description="retries in 10 s that are allowed however few calls there are"
    )


class BreakerSettings(Section):
    """When a bucket's host is given a rest; times in seconds."""

    min_calls: int = Field(
        20,
        ge=0,
        le=100_000,
        description="calls to a bucket's host in the window, below which failures tell nothing; 0: the breaker never "
        "opens",
    )
    failure_share: float = Field(
        0.5, gt=0, le=1, description="share of them that must have failed for the breaker to open"
    )
    window_seconds: float = Field(10.0, ge=0.1, le=300, description="in which calls are counted")
    open_seconds: float = Field(
        5.0,
        ge=0.1,
        le=300,
        description="for which calls then fail at once (`UPSTREAM_BREAKER_OPEN`), until one call tries again; up to a"
        " fifth less, at random",
    )


class ConcurrencySettings(Section):
    """Calls at once to a bucket's host; the number adapts itself to what the host can do."""

    initial: int = Field(
        32,
        ge=1,
        le=100,
        description="calls at once to a bucket's host, at start; then the number follows what the host can do",
    )
    lowest: int = Field(4, ge=1, le=100, description="below which throttling and time-outs do not bring it")
    highest: int = Field(100, ge=1, le=100, description="above which success does not bring it")
    max_queue: int = Field(
        1000,
        ge=0,
        le=100_000,
        description="calls that may wait for their turn; who would not be served in time is refused at once "
        "(`OVERLOADED`)",
    )


class LimitSettings(Section):
    """What one process takes on, and what callers may use up."""

    max_calls: int = Field(
        2000,
        ge=1,
        le=1_000_000,
        description="calls at once, without waits and watches; more are refused with `OVERLOADED`",
    )
    anonymous: CallerLimitSettings = Field(
        CallerLimitSettings(),
        description="what callers without a name may use up together; its keys follow. [limits.md](limits.md) says "
        "how limits combine",
    )
    account: RateWords | None = Field(
        None, description="`{per_second: 50, burst: 50}`: calls to the job API, over all buckets of an account"
    )
    without_store: Literal["local", "refuse"] = Field(
        "local",
        description="while the shared store is down: `local`: each replica counts calls and pages for itself; "
        "`refuse`: callers with limits get `LIMITER_UNAVAILABLE`",
    )
    connection_age_seconds: float = Field(
        120.0,
        ge=1,
        le=86400,
        description="after which a caller's connection is renewed, give or take a tenth, so that callers spread over "
        "the replicas there are. See [below](#restarts-that-lose-no-call)",
    )


class WatchSettings(Section):
    """Pollers and streams; all times in seconds."""

    heartbeat_seconds: float = Field(15.0, ge=0.1, le=300, description="between the messages of an idle watch")
    max_stream_seconds: float = Field(300.0, ge=1, le=3600, description="then watchers are told to watch again")
    max_watches: int = Field(
        10_000, ge=1, le=1_000_000, description="waits and watches at once; more are refused with `OVERLOADED`"
    )
    poll_floor_seconds: float = Field(0.5, ge=0.05, le=60, description="shortest time between polls of a job")
    poll_cap_seconds: float = Field(10.0, ge=0.05, le=300, description="longest time between polls of a job")


class CacheSettings(Section):
    """What is answered again without asking the cloud; ages in seconds. Ended jobs are kept for their month."""

    max_bytes: int = Field(64 * 1024 * 1024, ge=0, le=2**40, description="size of the cache in memory, by process")
    active_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        description="how long a job that may still change is answered again; jobs that have ended are kept for their "
        "month",
    )
    missing_seconds: float = Field(2.0, ge=0, le=60, description='how long "no such job" is answered again')
    list_seconds: float = Field(
        1.0, ge=0, le=60, description="how long a list is answered again; a create drops the lists of its bucket"
    )
    stale_seconds: float = Field(
        300.0,
        ge=0,
        le=86400,
        description="how much older a job may be when the cloud fails (`x-cache: stale`); 0: then the call fails too",
    )


class LedgerSettings(Section):
    """The record of creates with `request_id`, kept in the state directory; times in seconds."""

    keep_seconds: float = Field(
        86400.0, ge=3600, le=30 * 86400, description="how long a `request_id` is remembered, at least an hour"
    )
    fence_slack_seconds: float = Field(
        60.0,
        ge=0,
        le=3600,
        description="how far the cloud's clock may differ from ours. Beyond it an unknown create stays unknown, and "
        "creates with `request_id` are refused (`CLOCK_SKEW`) once the cloud has refused our time",
    )
    visibility_seconds: float = Field(15.0, ge=0, le=600, description="how long the cloud's lists may lack a new job")
    signature_seconds: float = Field(
        45.0,
        ge=5,
        le=600,
        description="how long the cloud may accept a sent create; shorter clears up unknown creates sooner",
    )
    lease_seconds: float = Field(
        30.0,
        ge=1,
        le=600,
        description="how long the process that works on a create may be silent before another goes on with it",
    )


class SharedStateSettings(Section):
    """A Redis or Valkey server for what replicas share; times in seconds. Without it each keeps to itself."""

    url: RedisUrl | None = Field(
        None,
        description="address of a Redis or Valkey server, of its Sentinels or of a cluster, for what replicas share: "
        "the cache, limits, reads, and the ledger, which then is not in `state_dir`. See [below](#state-"
        "that-replicas-share)",
    )
    ledger_url: RedisUrl | None = Field(
        None, description="a server of the ledger's own. None: that of `shared_state.url`"
    )
    timeout_seconds: float = Field(
        0.05,
        ge=0.005,
        le=5,
        description="of all that one read asks of shared state, connecting included; later it goes on without",
    )
    ledger_timeout_seconds: float = Field(
        1.0, ge=0.05, le=10, description="of one call of the shared ledger; later the create fails and nothing is sent"
    )


class DrainSettings(Section):
    """What happens at SIGTERM."""

    delay_seconds: float = Field(5.0, ge=0, le=600, description="at SIGTERM: not ready, but still serving")
    grace_seconds: float = Field(25.0, ge=0, le=600, description="then: for calls that run")


class LoggingSettings(Section):
    """Logs go to stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="the least grave of what is logged")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`json`, `console`, or `auto`: json unless stderr is a terminal"
    )
    access: Literal["all", "errors", "off"] = Field(
        "all",
        description="which calls have a line: `all`, `errors` or `off`; creates always have one. `logging.level` does"
        " not matter here",
    )


class TracingSettings(Section):
    """OpenTelemetry; needs the extra `otel`."""

    endpoint: Endpoint | None = Field(
        None,
        description='an OTLP collector over HTTP, such as `http://127.0.0.1:4318`; needs `pip install "docpreview-'
        'gateway[otel]"`',
    )
    share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of the calls without `traceparent` that are recorded; with one the caller decides",
    )
