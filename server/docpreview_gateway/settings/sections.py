"""The sections of the settings, and the types of their values."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated, Literal

from pydantic import AfterValidator, AnyHttpUrl, Field, SecretStr, UrlConstraints, model_validator

from docpreview_gateway.creates.records import Timing
from docpreview_gateway.jobs.polling import Schedule
from docpreview_gateway.model.buckets import BUCKET, REGION, Bucket
from docpreview_gateway.settings.limits import CallerLimitSettings, RateWords, Section, Tuning
from docpreview_gateway.storage import redis_urls
from docpreview_gateway.upstream.wire.signing import Credentials


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ValueError("must have the form host:port, such as 127.0.0.1:50051; port 0 takes a free one")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("must have an IPv6 address in brackets, such as [::1]:50051")
    if "%" in host:
        raise ValueError("must have an IPv6 address without a zone (%): take [::] for all addresses, or a global one")
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


MOST_CALLBACK_URL = 77
"""Characters of `callbacks.public_url`. A slash and a token follow; the cloud takes 100 (its document 1045/47936)."""


def _callback_url(value: AnyHttpUrl) -> AnyHttpUrl:
    if value.username or value.password or value.query or value.fragment:
        raise ValueError("must be scheme, host, port and path only, such as https://previews.example.com/callback")
    if re.search("%(?![0-9A-Fa-f]{2})", str(value)):
        raise ValueError("has a % without two hexadecimal digits")
    if (length := len(str(value).rstrip("/"))) > MOST_CALLBACK_URL:
        raise ValueError(
            f"has {length} characters, and may have {MOST_CALLBACK_URL}: the cloud takes addresses of 100, and a slash "
            "and a token of 22 are appended. Use a shorter host name or path"
        )
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
HostName = Annotated[
    str,
    _matching(
        re.compile("[a-z0-9-]+([.][a-z0-9-]+)*"),
        "must be a host name in small letters without a port: gateway.example.com",
    ),
]
Namespace = Annotated[
    str, _matching(re.compile("[a-z0-9-]{1,32}"), "must be 1 to 32 small letters, digits and hyphens, such as previews")
]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
Endpoint = Annotated[AnyHttpUrl, UrlConstraints(allowed_schemes=["http", "https"]), AfterValidator(_endpoint)]


CallbackUrl = Annotated[AnyHttpUrl, UrlConstraints(allowed_schemes=["http", "https"]), AfterValidator(_callback_url)]


class BucketSettings(Section):
    """A bucket that callers may use. Unlisted buckets do not exist for them."""

    name: BucketName = Field(
        description="bucket name in the form `<name>-<appid>`; unlisted buckets do not exist for callers"
    )
    region: Region = Field(description="region of the bucket in the cloud's spelling, such as `ap-chongqing`")
    credentials: str = Field(description="name of the credential set for signing requests to this bucket")
    default_queue_id: QueueId = Field(
        "", description="queue of creates without a queue of their own; empty: the bucket's default queue at the cloud"
    )

    exclusive: bool = Field(
        default=False,
        description="whether no other program makes document jobs in this bucket: a job without the gateway's marker "
        "is then matched to its create by document, output and options",
    )

    upload_credentials: str = Field(
        "",
        description="name of the credential set for signing the addresses of uploads; empty: `credentials`, with a "
        "warning of `check-config` where a caller has `uploads`. It may do nothing but put objects and parts: what is "
        "added to an address is not signed. See [security.md](security.md#uploads)",
    )

    def bucket(self) -> Bucket:
        """The bucket."""
        return Bucket(
            self.name,
            self.region,
            self.credentials,
            self.default_queue_id,
            self.exclusive,
            self.upload_credentials,
        )


class CredentialSettings(Section):
    """A key pair of the cloud, inline or in a file; `token` belongs to temporary keys."""

    secret_id: str = Field("", description="key id of the cloud account")
    secret_key: SecretStr = Field(SecretStr(""), description="secret key of the cloud account")
    token: SecretStr = Field(SecretStr(""), description="session token of temporary keys")
    file: Path | None = Field(
        None, description="YAML or JSON file with the three keys above, in place of them; re-read when it changes"
    )

    @model_validator(mode="after")
    def _one_source(self) -> CredentialSettings:
        here = bool(self.secret_id), bool(self.secret_key.get_secret_value())
        if self.file is not None and (any(here) or self.token.get_secret_value()):
            raise ValueError("has a file and keys beside it; take one of them away")
        keys = (self.secret_id, self.secret_key.get_secret_value(), self.token.get_secret_value())
        if not all(key.isascii() and key.isprintable() for key in keys):
            raise ValueError("secret_id, secret_key and token must be printable ASCII characters, without a line break")
        if self.file is None and not all(here):
            raise ValueError("needs secret_id and secret_key, or a file that has them")
        return self

    def credentials(self) -> Credentials:
        """The key pair, unless it is in a file."""
        return Credentials(self.secret_id, self.secret_key.get_secret_value(), self.token.get_secret_value())


class LimitSettings(Section):
    """Limits of one process, and limits of callers."""

    max_calls: Tuning[int] = Field(
        2000,
        ge=1,
        le=1_000_000,
        description="maximum number of concurrent calls of a process, waits and watches not included; further calls "
        "are rejected with `OVERLOADED`",
    )
    anonymous: CallerLimitSettings = Field(
        CallerLimitSettings(),
        description="limits of all callers without a name together; its keys follow. [limits.md](limits.md) explains "
        "how limits combine",
    )
    account: RateWords | None = Field(
        None,
        description="`{per_second: 50, burst: 50}`: rate limit of calls to the job API, over all buckets of a cloud "
        "account",
    )
    without_store: Literal["local", "refuse"] = Field(
        "local",
        description="behaviour while the shared store is down. `local`: each replica counts calls for itself; "
        "`refuse`: calls of callers with rates fail with `LIMITER_UNAVAILABLE`. Pages are never counted by a replica "
        "alone: creates of callers with a budget fail, beyond the `outage_pages` of their budget",
    )
    connection_age_seconds: Tuning[float] = Field(
        120.0,
        ge=1,
        le=86400,
        description="maximum age of a caller's connection, ±10 %; its renewal spreads callers over the "
        "present replicas. See [below](#restarts-that-lose-no-call)",
    )


class CallbackSettings(Section):
    """Completion callbacks: the cloud tells when a job has ended. Both addresses or neither."""

    public_url: CallbackUrl | None = Field(
        None,
        description="address under which the cloud reaches `listen`, such as `https://previews.example.com/callback`, "
        "of at most 77 characters; an unguessable path is appended. See [deploy.md](deploy.md#completion-callbacks)",
    )
    listen: Address | None = Field(
        None,
        description="address of the port that takes callbacks, over plain HTTP; TLS ends before it. It answers "
        "nothing else",
    )
    mode: Literal["job", "queue"] = Field(
        "job",
        description="who names the address to the cloud: `job`: each create; `queue`: the queues, once "
        "`docpreview-gateway callbacks configure` has written it there, so that jobs of other tools are called back "
        "too. See [deploy.md](deploy.md#callbacks-of-queues)",
    )

    @model_validator(mode="after")
    def _both(self) -> CallbackSettings:
        if (self.public_url is None) != (self.listen is None):
            missing = "listen" if self.listen is None else "public_url"
            raise ValueError(
                f"{missing} is missing: the cloud calls public_url and reaches listen; set both, or neither"
            )
        if self.mode == "queue" and self.public_url is None:
            raise ValueError("mode: queues need an address to call; set public_url and listen, or leave mode out")
        return self


class WatchSettings(Section):
    """Pollers and streams; times in seconds."""

    heartbeat_seconds: Tuning[float] = Field(
        15.0, ge=0.1, le=300, description="interval between the messages of an idle watch"
    )
    max_stream_seconds: Tuning[float] = Field(
        300.0, ge=1, le=3600, description="maximum duration of a watch, after which its client is told to watch again"
    )
    max_watches: Tuning[int] = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="maximum number of concurrent waits and watches of a process, and apart from them of the jobs that "
        "streams of WatchPreviewJobs follow; further ones are rejected with `OVERLOADED`",
    )
    poll_floor_seconds: Tuning[float] = Field(
        0.5, ge=0.05, le=60, description="minimum interval between polls of a job"
    )
    poll_cap_seconds: Tuning[float] = Field(
        10.0, ge=0.05, le=300, description="maximum interval between polls of a job"
    )

    def schedule(self) -> Schedule:
        """The intervals of polls."""
        return Schedule(floor=self.poll_floor_seconds, cap=self.poll_cap_seconds)


class CreatesSettings(Section):
    """What is done for each create before it is sent."""

    check_input: bool = Field(
        default=False,
        description="whether the document of a create is looked at first, so that one that is missing, empty, too "
        "large, encrypted without password or not of the kind of its suffix is refused before a job is made and pages "
        "are reserved. Costs a request to the object store for each create, two for documents of more than 64 KiB. "
        "See [contract.md](contract.md#the-look-at-the-document)",
    )


class LedgerSettings(Section):
    """The records of creates, in the state directory or in shared state; times in seconds."""

    key_file: Path | None = Field(
        None,
        description="file with the deployment's secret for creates, the same for all replicas: a line of at least 32 "
        "random bytes, in base64 or as they are, and below it older ones until `retention_seconds` after their "
        "replacement. Required with shared state; without, `ledger.key` in `state_dir` is generated",
    )
    on_loss: Literal["rebuild", "refuse", "accept"] = Field(
        "rebuild",
        description="behaviour after a loss of records, such as an emptied Redis. `rebuild`: creates that need a "
        "record are refused until the records are read back from the cloud's job lists, or for `retention_seconds` "
        "where jobs do not show whose they are; `refuse`: until `docpreview-gateway store accept-loss`; `accept`: "
        "they go on, and a repeated `request_id` may make, and bill, a second job",
    )
    strict: bool = Field(
        default=False,
        description="whether creates with `request_id` are refused while Redis may evict keys (`maxmemory-policy` "
        "other than `noeviction`); otherwise this is a warning",
    )
    retention_seconds: Tuning[float] = Field(
        86400.0,
        ge=3600,
        le=25 * 86400,
        description="retention of a `request_id`, at least an hour, and at most 25 days, because the cloud forgets "
        "jobs after a month",
    )
    fence_slack_seconds: Tuning[float] = Field(
        60.0,
        ge=0,
        le=3600,
        description="tolerated difference between the cloud's clock and the gateway's. Beyond it an unknown create "
        "stays unknown, and creates with `request_id` fail with `CLOCK_SKEW` once the cloud has rejected the "
        "gateway's time",
    )
    visibility_seconds: Tuning[float] = Field(
        60.0,
        ge=0,
        le=600,
        description="maximum delay between a create and the new job's appearance in the cloud's lists",
    )
    signature_seconds: Tuning[float] = Field(
        45.0,
        ge=5,
        le=600,
        description="validity of the signature of a create at the cloud; with a shorter one unknown creates are "
        "reconciled sooner",
    )

    def timing(self) -> Timing:
        """The times of recorded creates."""
        return Timing(
            signature=self.signature_seconds,
            fence_slack=self.fence_slack_seconds,
            visibility=self.visibility_seconds,
            keep=self.retention_seconds,
        )


class SharedStateSettings(Section):
    """A Redis or Valkey server for state that replicas share; times in seconds. Without it nothing is shared."""

    namespace: Namespace | None = Field(
        None,
        description="name of the deployment: 1 to 32 small letters, digits and hyphens, the same for all its replicas "
        "and for no other deployment. It is in the key of everything that is shared, and in the markers of jobs. "
        "Required with `url` or `ledger_url`",
    )

    url: RedisUrl | None = Field(
        None,
        description="address of a Redis or Valkey server, its Sentinels or a cluster for the state that replicas "
        "share: cache, limits, reads, and the ledger, which is then not in `state_dir`. See "
        "[below](#state-that-replicas-share)",
    )
    ledger_url: RedisUrl | None = Field(
        None, description="address of a separate server for the ledger. None: the server of `shared_state.url`"
    )
    timeout_seconds: Tuning[float] = Field(
        0.05,
        ge=0.005,
        le=5,
        description="timeout of all shared-state commands of one read, connecting included; the read then goes on "
        "without them",
    )
    ledger_timeout_seconds: Tuning[float] = Field(
        1.0,
        ge=0.05,
        le=10,
        description="timeout of one call of the shared ledger; the create then fails and nothing is sent",
    )


class DrainSettings(Section):
    """Shutdown after SIGTERM; times in seconds."""

    delay_seconds: float = Field(
        5.0, ge=0, le=600, description="time after SIGTERM in which the gateway is not ready but still serves new calls"
    )
    grace_seconds: float = Field(25.0, ge=0, le=600, description="time after that for calls in flight to finish")


class LoggingSettings(Section):
    """Logs, which go to stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="minimum level of log lines")
    format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="format of log lines: `json`, `console`, or `auto` for JSON unless stderr is a terminal; also "
        "`serve --log-format`",
    )
    access: Literal["all", "errors", "off"] = Field(
        "all",
        description="calls with a log line of their own: `all`, `errors` or `off`, independent of `logging.level`; "
        "creates always have one",
    )


class TracingSettings(Section):
    """OpenTelemetry traces; they need the extra `otel`."""

    endpoint: Endpoint | None = Field(
        None,
        description="address of an OTLP collector over HTTP, such as `http://127.0.0.1:4318`; needs the extra `otel`",
    )
    share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="sampling ratio of calls without `traceparent`; with one the caller decides",
    )
