"""Settings: one YAML file, each key also as a `DOCPREVIEW_` variable, unknown keys refused.

Variables win over the file. Nested keys are joined by `__` (`DOCPREVIEW_UPSTREAM__ENDPOINT`); lists and maps may be
given as JSON. `DOCPREVIEW_CONFIG` names the file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    Field,
    SecretStr,
    UrlConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from docpreview_gateway.core import redis_urls
from docpreview_gateway.core.buckets import BUCKET, REGION
from docpreview_gateway.identity_settings import AuthSettings, PolicySettings, TlsSettings, check_identity
from docpreview_gateway.limit_settings import CallerLimitSettings, RateWords, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "DOCPREVIEW_"
CONFIG_VARIABLE = "DOCPREVIEW_CONFIG"
_QUOTED = re.compile(r"'[^'<]{2,}'|\"[^\"<]{2,}\"")
"""Words of a file in the messages of its parser; names of tokens, such as '<block end>', are no such words."""


class StartError(Exception):
    """The gateway cannot start; the message says why and what to do."""


class ConfigurationError(Exception):
    """The configuration cannot be used; `problems` has a line for each mistake, with its path and without values."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


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

    name: BucketName = Field(description="`<name>-<appid>`")
    region: Region = Field(description="the cloud's spelling, such as ap-chongqing")
    credentials: str = Field(description="name of the credential set that signs for this bucket")
    default_queue_id: QueueId = Field("", description="queue of creates that name none")


class CredentialSettings(Section):
    """A key pair of the cloud, here or in a file; `token` belongs to temporary keys."""

    secret_id: str = ""
    secret_key: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    file: Path | None = Field(None, description="of the same keys as YAML or JSON, re-read when it changes")

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

    endpoint: Endpoint | None = Field(None, description="where to connect instead of the bucket's own host")
    timeout_seconds: float = Field(10.0, gt=0, le=60, description="of one attempt, from connecting to the last byte")
    connect_timeout_seconds: float = Field(3.0, gt=0, le=60, description="of connecting, waiting for a slot included")
    object_url_base: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#]+$",
        description="base of signed page URLs; `{host}` is the bucket's object host",
    )


class RetrySettings(Section):
    """Attempts at the cloud that are made again; times in seconds."""

    max_retries: int = Field(2, ge=0, le=5, description="of one call; 0: none")
    base_seconds: float = Field(0.1, gt=0, le=10, description="longest wait before the first, doubled for each further")
    cap_seconds: float = Field(2.0, gt=0, le=60, description="longest wait, unless the cloud asks for more")
    budget_share: float = Field(0.1, ge=0, le=1, description="of the calls of 10 s that may be retries")
    budget_floor: int = Field(10, ge=0, le=10_000, description="retries in 10 s that may always be")


class BreakerSettings(Section):
    """When a bucket's host is given a rest; times in seconds."""

    min_calls: int = Field(20, ge=0, le=100_000, description="fewer calls tell nothing; 0: the breaker never opens")
    failure_share: float = Field(0.5, gt=0, le=1, description="of the calls that must have failed")
    window_seconds: float = Field(10.0, ge=0.1, le=300, description="in which calls are counted")
    open_seconds: float = Field(5.0, ge=0.1, le=300, description="until one call tries again")


class ConcurrencySettings(Section):
    """Calls at once to a bucket's host; the number adapts itself to what the host can do."""

    initial: int = Field(32, ge=1, le=100, description="at start")
    lowest: int = Field(4, ge=1, le=100, description="at least")
    highest: int = Field(100, ge=1, le=100, description="at most; the process has 100 connections for reads")
    max_queue: int = Field(1000, ge=0, le=100_000, description="calls that may wait for their turn")


class LimitSettings(Section):
    """What one process takes on, and what callers may use up."""

    max_calls: int = Field(2000, ge=1, le=1_000_000, description="calls at once, without waits and watches")
    anonymous: CallerLimitSettings = Field(CallerLimitSettings(), description="of callers without a name, together")
    account: RateWords | None = Field(None, description="calls to the cloud, over all buckets of an account")
    without_store: Literal["local", "refuse"] = Field("local", description="what happens while the store is down")
    connection_age_seconds: float = Field(
        120.0, ge=1, le=86400, description="after which a caller's connection is renewed, give or take a tenth"
    )


class WatchSettings(Section):
    """Pollers and streams; all times in seconds."""

    heartbeat_seconds: float = Field(15.0, ge=0.1, le=300)
    max_stream_seconds: float = Field(300.0, ge=1, le=3600, description="then watchers are told to watch again")
    max_watches: int = Field(10_000, ge=1, le=1_000_000, description="waits and watches at once, by process")
    poll_floor_seconds: float = Field(0.5, ge=0.05, le=60, description="shortest time between polls of a job")
    poll_cap_seconds: float = Field(10.0, ge=0.05, le=300, description="longest time between polls of a job")


class CacheSettings(Section):
    """What is answered again without asking the cloud; ages in seconds. Ended jobs are kept for their month."""

    max_bytes: int = Field(64 * 1024 * 1024, ge=0, le=2**40, description="in memory, by process")
    active_seconds: float = Field(1.0, ge=0, le=60, description="age of jobs that may still change")
    missing_seconds: float = Field(2.0, ge=0, le=60, description="age of answers that there is no such job")
    list_seconds: float = Field(1.0, ge=0, le=60, description="age of lists")
    stale_seconds: float = Field(
        300.0, ge=0, le=86400, description="how much older a job may be when the cloud fails; 0: then it is an error"
    )


class LedgerSettings(Section):
    """The record of creates with `request_id`, kept in the state directory; times in seconds."""

    keep_seconds: float = Field(86400.0, ge=3600, le=30 * 86400, description="how long a request_id is remembered")
    fence_slack_seconds: float = Field(
        60.0, ge=0, le=3600, description="how far the cloud's clock may differ from ours"
    )
    visibility_seconds: float = Field(15.0, ge=0, le=600, description="how long lists may lack a new job")
    signature_seconds: float = Field(45.0, ge=5, le=600, description="how long a sent create may be accepted")
    lease_seconds: float = Field(30.0, ge=1, le=600, description="how long a create's owner may be silent")


class SharedStateSettings(Section):
    """A Redis or Valkey server for what replicas share; times in seconds. Without it each keeps to itself."""

    url: RedisUrl | None = Field(None, description="of the cache and, unless it has its own, of the ledger")
    ledger_url: RedisUrl | None = Field(None, description="of the ledger; a server that never evicts")
    timeout_seconds: float = Field(0.05, ge=0.005, le=5, description="of one call of the cache")
    ledger_timeout_seconds: float = Field(1.0, ge=0.05, le=10, description="of one call of the ledger")


class DrainSettings(Section):
    """What happens at SIGTERM."""

    delay_seconds: float = Field(5.0, ge=0, le=600, description="not ready, but still serving")
    grace_seconds: float = Field(25.0, ge=0, le=600, description="for calls that run, after the delay")


class LoggingSettings(Section):
    """Logs go to stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: json unless stderr is a terminal")
    access: Literal["all", "errors", "off"] = Field(
        "all", description="which calls have a line; creates always have one"
    )


class TracingSettings(Section):
    """OpenTelemetry; needs the extra `otel`."""

    endpoint: Endpoint | None = Field(None, description="of an OTLP collector over HTTP; none: no traces")
    share: float = Field(0.01, ge=0, le=1, description="of the calls whose callers do not decide that are recorded")


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    listen: Address = Field("127.0.0.1:50051", description="gRPC")
    admin_listen: Address = Field("127.0.0.1:9464", description="/metrics, /healthz, /readyz over HTTP")
    reflection: bool = Field(default=False, description="serve the contract to tools such as grpcurl")
    workers: int = Field(1, ge=1, le=64, description="processes that share the port (Linux)")
    replicas: int = Field(1, ge=1, le=10_000, description="gateways that run beside each other, this one included")
    buckets: tuple[BucketSettings, ...]
    credentials: dict[str, CredentialSettings]
    auth: AuthSettings | Literal["insecure"] = AuthSettings()
    policy: PolicySettings = PolicySettings()
    tls: TlsSettings = TlsSettings()
    state_dir: Path = Field(Path("docpreview-state"), description="folder for what must outlive the process")
    upstream: UpstreamSettings = UpstreamSettings()
    retry: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    concurrency: ConcurrencySettings = ConcurrencySettings()
    limits: LimitSettings = LimitSettings()
    cache: CacheSettings = CacheSettings()
    ledger: LedgerSettings = LedgerSettings()
    shared_state: SharedStateSettings = SharedStateSettings()
    watch: WatchSettings = WatchSettings()
    drain: DrainSettings = DrainSettings()
    logging: LoggingSettings = LoggingSettings()
    tracing: TracingSettings = TracingSettings()

    @property
    def processes(self) -> int:
        """How many processes divide what none of them counts for all."""
        return self.workers * self.replicas

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if not self.buckets:
            raise ValueError("buckets: name at least one; a bucket that is not listed does not exist for callers")
        names = [bucket.name for bucket in self.buckets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"buckets: {', '.join(twice)} is listed more than once")
        for bucket in self.buckets:
            if bucket.credentials not in self.credentials:
                raise ValueError(f"buckets: {bucket.name} names credentials that are not there: {bucket.credentials}")
        check_identity(self.listen, auth=self.auth, policy=self.policy, tls=self.tls)
        if self.watch.poll_cap_seconds < self.watch.poll_floor_seconds:
            raise ValueError("watch.poll_cap_seconds: must not be less than watch.poll_floor_seconds")
        if not self.concurrency.lowest <= self.concurrency.initial <= self.concurrency.highest:
            raise ValueError("concurrency.initial: must be between concurrency.lowest and concurrency.highest")
        if self.replicas > 1 and self.shared_state.url is None:
            raise ValueError(
                f"shared_state.url: missing, and replicas is {self.replicas}; each would have a cache and a memory of "
                "request_id of its own. Give the redis:// address of a server that they share, or set replicas to 1"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then variables, then the file."""
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, cls.model_config.get("yaml_file"))


def load(path: Path | None) -> Settings:
    """Settings from the file (None: the one that `DOCPREVIEW_CONFIG` names, if any) and the environment.

    ConfigurationError with every mistake.
    """
    if path is None and (named := os.environ.get(CONFIG_VARIABLE)):
        path = Path(named)
    problems = list(_unknown_variables())

    class FromFile(Settings):
        model_config = SettingsConfigDict(yaml_file=_readable(path))

    try:
        settings = FromFile()
    except ValidationError as error:
        problems += [_problem(dict(found)) for found in error.errors(include_input=False, include_url=False)]
    except (SettingsError, yaml.YAMLError, TypeError, ValueError) as error:
        problems.append(_unreadable(error))
    if problems:
        raise ConfigurationError(problems)
    return settings


def _readable(path: Path | None) -> Path | None:
    if path is None:
        return None
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror}"]) from None
    return path


def _problem(found: dict[str, Any]) -> str:
    where = ".".join(map(str, found["loc"]))
    message = str(found["msg"]).removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        message = "unknown setting"
    return f"{where}: {message}" if where else message


def _unreadable(error: Exception) -> str:
    """What is wrong with a file or variable as a whole, without quoting it: it may hold keys."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        problem = _QUOTED.sub("...", error.problem or "")
        return f"line {mark.line + 1}, column {mark.column + 1}: not YAML: {problem}"
    if isinstance(error, SettingsError):
        return str(error)
    return "the file must be a YAML map of settings"


def _unknown_variables() -> Iterator[str]:
    """Variables with our prefix that set nothing: a typing error would otherwise go unnoticed."""
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE:
            path = name.removeprefix(PREFIX).lower().split("__")
            if not _exists(Settings, path):
                yield f"{name}: unknown setting"


def _exists(kind: Any, path: list[str]) -> bool:  # noqa: ANN401 - annotations of any kind
    if not path:
        return True
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(path[0])
        return field is not None and _exists(field.annotation, path[1:])
    if get_origin(kind) is dict:
        return _exists(get_args(kind)[1], path[1:])
    if get_origin(kind) in {Union, UnionType, Annotated}:
        return any(_exists(part, path) for part in get_args(kind))
    return False
