"""What a user of the client can choose, each with its unit and default. Nothing here does anything."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """An encrypted connection; `Tls()` checks the gateway's certificate against the public authorities.

    Attributes:
        root_certificates: Authorities to trust, as PEM. Default: those that come with gRPC.
        certificate_chain: The client's own certificate, as PEM. Goes with `private_key`.
        private_key: The key of `certificate_chain`, as PEM. Never shown in a repr.
        server_name: The name that the gateway's certificate must have. Default: the host of the target. Needed when
            the target is a forwarded port or an address.
    """

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError when certificate and key do not come together."""
        if (self.certificate_chain is None) != (self.private_key is None):
            raise ValueError("A client certificate needs its private key, and the key its certificate: give both.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a call may take when it names no `timeout` of its own, retries included.

    Attributes:
        unary: Creates and reads. Default 30 seconds.
        wait: `wait`. Default 5 minutes.
        watch: `watch`, over all the streams that it takes. Default 1 hour.
    """

    unary: timedelta = timedelta(seconds=30)
    wait: timedelta = timedelta(minutes=5)
    watch: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When a watch gives a stream up, and when it gives up altogether.

    Attributes:
        idle: A stream on which nothing comes for this long, not even a heartbeat, is dead: another is opened. Keep it
            well above the gateway's heartbeat interval (15 seconds by default). Default 60 seconds.
        unreachable: For how long streams are opened anew while no message comes at all. Default 60 seconds.
    """

    idle: timedelta = timedelta(seconds=60)
    unreachable: timedelta = timedelta(seconds=60)


def _no_metadata() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """The rest, rarely needed.

    Attributes:
        deadlines: Default deadlines per kind of call.
        patience: When a watch reconnects.
        metadata: Asked before every call for metadata to send with it, for example `traceparent` or `x-request-id`.
        user_agent: Put in front of the client's own user agent: name your service here. Default: nothing.
        health_checking: Whether addresses whose health service reports the gateway as not serving are avoided. Switch
            it off where a single address stands for many gateways (a Kubernetes ClusterIP): there is no other address
            to go to. Default True.
    """

    deadlines: Deadlines = field(default_factory=Deadlines)
    patience: Patience = field(default_factory=Patience)
    metadata: Callable[[], Mapping[str, str]] = _no_metadata
    user_agent: str = ""
    health_checking: bool = True
