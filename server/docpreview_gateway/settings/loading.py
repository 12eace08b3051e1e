"""The settings: one YAML file, and environment variables with the prefix `DOCPREVIEW_`. Unknown keys are errors.

Variables win over the file. Nested keys are joined by `__` (`DOCPREVIEW_UPSTREAM__ENDPOINT`); lists and maps may be
given as JSON. `DOCPREVIEW_CONFIG` names the file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from docpreview_gateway.model import strict_yaml
from docpreview_gateway.settings.access import AuthSettings, PolicySettings, TlsSettings, access_mistakes
from docpreview_gateway.settings.addresses import port_mistakes
from docpreview_gateway.settings.edge import EdgeSettings, edge_mistakes
from docpreview_gateway.settings.environment import CONFIG_VARIABLE, PREFIX, malformed_variables, unknown_variables
from docpreview_gateway.settings.limits import usable_path
from docpreview_gateway.settings.problems import problems
from docpreview_gateway.settings.sections import (
    Address,
    BucketSettings,
    CallbackSettings,
    CreatesSettings,
    CredentialSettings,
    DrainSettings,
    HostName,
    LedgerSettings,
    LimitSettings,
    LoggingSettings,
    SharedStateSettings,
    TracingSettings,
    WatchSettings,
)
from docpreview_gateway.settings.upstream import (
    BreakerSettings,
    CacheSettings,
    ConcurrencySettings,
    RetrySettings,
    UpstreamSettings,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


NO_MAP = "the file must be a YAML map of settings"


class StartError(Exception):
    """The gateway cannot start. The message says why and what to do."""


class ConfigurationError(Exception):
    """The configuration is invalid. `problems` has a line for each mistake, with its path and without values."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    listen: Address = Field(
        "127.0.0.1:50051",
        description="address of the gRPC port. Off loopback it needs callers named in `policy.file`, or `auth: "
        "insecure`",
    )
    admin_listen: Address = Field(
        "127.0.0.1:9464",
        description="address of the admin port: the operator page at `/`, `/metrics`, `/healthz` (liveness), "
        "`/readyz` (readiness; 503 with the reason while starting or stopping, or while creates with `request_id` "
        "cannot succeed; `?verbose` names each dependency, `?exclude=NAME` leaves one out)",
    )
    admin_hosts: tuple[HostName, ...] = Field(
        (),
        description="further host names by which the admin port may be asked, such as `gateway.example.com`. IP "
        "addresses, names without a dot, the machine's own name and that of `admin_listen` need no entry",
    )
    admin_debug: bool = Field(
        default=False,
        description="whether the admin port has `/debug`: the stacks of all threads and tasks, to find where a process "
        "hangs",
    )
    reflection: bool = Field(
        default=False,
        description="gRPC server reflection for tools such as grpcurl; with a policy only for callers whose methods "
        "name `ServerReflection`",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="number of processes that share the port, on Linux; also `serve --workers N`. See "
        "[replicas.md](replicas.md#workers)",
    )
    replicas: int = Field(
        1,
        ge=1,
        le=10_000,
        description="number of gateways running beside each other, this one included; more than one need "
        "`shared_state.url`",
    )
    buckets: tuple[BucketSettings, ...]
    credentials: dict[str, CredentialSettings]
    auth: AuthSettings | Literal["insecure"] = Field(
        AuthSettings(),
        description="`insecure`: no authentication of callers although the gateway listens on a network. Otherwise "
        "the keys below",
    )
    policy: PolicySettings = PolicySettings()
    tls: TlsSettings = TlsSettings()
    edge: EdgeSettings = EdgeSettings()
    state_dir: Annotated[Path, AfterValidator(usable_path)] = Field(
        Path("docpreview-state"),
        description="writable directory for state that outlives the process: records of creates and of callers' pages "
        "(SQLite), and the secret for them unless `ledger.key_file` names one",
    )
    upstream: UpstreamSettings = UpstreamSettings()
    retry: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    concurrency: ConcurrencySettings = ConcurrencySettings()
    limits: LimitSettings = LimitSettings()
    cache: CacheSettings = CacheSettings()
    creates: CreatesSettings = CreatesSettings()
    ledger: LedgerSettings = LedgerSettings()
    shared_state: SharedStateSettings = SharedStateSettings()
    watch: WatchSettings = WatchSettings()
    callbacks: CallbackSettings = CallbackSettings()
    drain: DrainSettings = DrainSettings()
    logging: LoggingSettings = LoggingSettings()
    tracing: TracingSettings = TracingSettings()

    @property
    def processes(self) -> int:
        """The number of processes that divide a limit which each of them counts for itself."""
        return self.workers * self.replicas

    @property
    def addresses(self) -> dict[str, str]:
        """The addresses that the gateway itself listens on, by their settings."""
        found = {"listen": self.listen, "admin_listen": self.admin_listen}
        callbacks = self.callbacks.listen
        return found if callbacks is None else {**found, "callbacks.listen": callbacks}

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if mistakes := [*self._mistakes()]:
            raise ValueError("\n".join(mistakes))
        return self

    def _mistakes(self) -> Iterator[str]:
        """Problems: settings that are valid alone, and not together."""
        yield from self._bucket_mistakes()
        yield from edge_mistakes(self.listen, self.edge)
        yield from port_mistakes(self.addresses | self.edge.addresses())
        yield from access_mistakes(self.edge.listen or self.listen, auth=self.auth, policy=self.policy, tls=self.tls)
        if self.watch.poll_cap_seconds < self.watch.poll_floor_seconds:
            yield "watch.poll_cap_seconds: must not be less than watch.poll_floor_seconds"
        if not self.concurrency.lowest <= self.concurrency.initial <= self.concurrency.highest:
            yield "concurrency.initial: must be between concurrency.lowest and concurrency.highest"
        if self.replicas > 1 and self.shared_state.url is None:
            yield (
                f"shared_state.url: missing, and replicas is {self.replicas}; each would have its own cache and "
                "its own ledger of request_ids. Give the redis:// address of a shared server, or set replicas to 1"
            )
        yield from self._shared_records_mistakes()

    def _bucket_mistakes(self) -> Iterator[str]:
        if not self.buckets:
            yield "buckets: name at least one; a bucket that is not listed does not exist for callers"
        names = [bucket.name for bucket in self.buckets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            yield f"buckets: {', '.join(twice)} is listed more than once"
        for bucket in self.buckets:
            for named in filter(None, (bucket.credentials, bucket.upload_credentials)):
                if named not in self.credentials:
                    yield f"buckets: {bucket.name} names credentials that are not there: {named}"

    def _shared_records_mistakes(self) -> Iterator[str]:
        """Problems: replicas would not know their records from those of other deployments, or forged ones."""
        shared = self.shared_state
        if shared.url is None and shared.ledger_url is None:
            return
        if shared.namespace is None:
            yield (
                "shared_state.namespace: missing. Name this deployment, such as previews: 1 to 32 small letters, "
                "digits and hyphens, the same for all replicas, and another one for each deployment that shares the "
                "server or a bucket"
            )
        if self.ledger.key_file is None:
            yield (
                "ledger.key_file: missing, and shared_state is set; replicas need one secret for creates. Write the "
                "output of `openssl rand -base64 32` to a file that all replicas have, and name it here"
            )


def load(path: Path | None) -> Settings:
    """Settings from the file (None: the one that `DOCPREVIEW_CONFIG` names, if any) and the environment.

    ConfigurationError with every mistake.
    """
    if path is None and (named := os.environ.get(CONFIG_VARIABLE)):
        path = Path(named)
    mistakes = [*unknown_variables(os.environ.keys(), Settings)]
    malformed = [*malformed_variables(os.environ, Settings)]
    try:
        found = {} if path is None else _parsed(path)
    except ConfigurationError as error:
        raise ConfigurationError([*mistakes, *malformed, *error.problems]) from None
    if malformed:
        raise ConfigurationError([*mistakes, *malformed])
    try:
        settings = _validated(found)
    except ValidationError as error:
        if path is None and any(wrong["type"] == "missing" for wrong in error.errors(include_input=False)):
            mistakes.append(f"no configuration file is named: give --config gateway.yaml, or set {CONFIG_VARIABLE}")
        mistakes += problems(error, Settings, unknown="unknown setting")
    if mistakes:
        raise ConfigurationError(mistakes)
    return settings


def _validated(found: dict[str, Any]) -> Settings:
    """The settings of the environment, and below them those of a file. ValidationError."""

    class FromFile(Settings):
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
            return init_settings, env_settings, InitSettingsSource(settings_cls, found)

    return FromFile()


def _parsed(path: Path) -> dict[str, Any]:
    """The settings of a file, which is read once: it may be a pipe. ConfigurationError without a quote of it."""
    try:
        found = strict_yaml.parse(path.read_bytes())
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror}"]) from None
    except yaml.YAMLError as error:
        raise ConfigurationError([f"{path}: {strict_yaml.mistake(error) or NO_MAP}"]) from None
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ConfigurationError([f"{path}: {NO_MAP}"])
    return found
