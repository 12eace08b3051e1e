"""Options of the client, each with its unit and default. Pure data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS settings; `Tls()` verifies the gateway's certificate against the public authorities.

    Attributes:
        root_certificates: Authorities to trust, as PEM. Default: gRPC's built-in ones.
        certificate_chain: The client's own certificate, as PEM. Goes with `private_key`.
        private_key: The key of `certificate_chain`, as PEM. Excluded from the repr.
        server_name: The name that the gateway's certificate must have. Default: the host of the target. Needed when
            the target is a forwarded port or an address.
    """

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError when only one of certificate and key is given."""
        if (self.certificate_chain is None) != (self.private_key is None):
            raise ValueError("A client certificate needs its private key, and the key its certificate: give both.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Default timeouts of calls without a `timeout` of their own, retries included.

    Attributes:
        unary: Creates and reads. Default 30 seconds.
        wait: `wait`. Default 5 minutes.
        watch: `watch` and `watch_many`, over all their streams. Default 1 hour.
        transfer: `upload` and `download`, with all parts and pages. Default 1 hour.
    """

    unary: timedelta = timedelta(seconds=30)
    wait: timedelta = timedelta(minutes=5)
    watch: timedelta = timedelta(hours=1)
    transfer: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Timeouts after which a watch replaces a stream, and after which it fails.

    Attributes:
        idle: A stream without any message for this long, not even a heartbeat, is dead and is replaced. Keep it
            well above the gateway's heartbeat interval (15 seconds by default). Default 60 seconds.
        unreachable: How long streams are reopened without receiving any message. Default 60 seconds.
    """

    idle: timedelta = timedelta(seconds=60)
    unreachable: timedelta = timedelta(seconds=60)


def _no_metadata() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Further options of the client.

    Attributes:
        deadlines: Default deadlines per kind of call.
        patience: When a watch reconnects.
        metadata: Called before every call; returns its metadata, for example `traceparent` or `x-request-id`.
        user_agent: Prefix of the client's own user agent, such as the name of your service. Default: empty.
        health_checking: Whether addresses are avoided whose health service reports NOT_SERVING. Calls wait while
            that is so of all of them. Default True.
        request_ids: Whether creates without a `request_id` get one, and so are repeated until their deadline where that
            can help. Without it they are made once. Default True.
        interceptors: gRPC's interceptors of every call, for example for traces or metrics.
    """

    deadlines: Deadlines = field(default_factory=Deadlines)
    patience: Patience = field(default_factory=Patience)
    metadata: Callable[[], Mapping[str, str]] = _no_metadata
    user_agent: str = ""
    health_checking: bool = True
    request_ids: bool = True
    interceptors: Sequence[grpc.aio.ClientInterceptor] = ()
