"""Settings of the edge: an Envoy before the gateway, which `docpreview-gateway edge-config` configures."""

from __future__ import annotations

import ipaddress
from pathlib import Path  # noqa: TC003 - pydantic looks it up
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, model_validator

from docpreview_gateway.settings.access import is_loopback
from docpreview_gateway.settings.limits import Section, Tuning
from docpreview_gateway.settings.sections import Address, host_port

if TYPE_CHECKING:
    from collections.abc import Iterator


def _numeric(value: str) -> str:
    """Envoy binds to numbers only, and nobody could ask for a port that it takes by chance."""
    host, port = host_port(value)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError("must have the form IP:port, such as 0.0.0.0:50051; Envoy takes no host name") from None
    if port == 0:
        raise ValueError("must name a port; 0 is none that callers know")
    return value


NumericAddress = Annotated[Address, AfterValidator(_numeric)]


class EdgeSettings(Section):
    """The addresses and limits of the Envoy before the gateway. Without `listen` there is none."""

    listen: NumericAddress | None = Field(
        None,
        description="address where callers reach the Envoy before the gateway (`docpreview-gateway edge-config`). "
        "Envoy then shows the certificate of `tls`; the gateway's own `listen` must be on loopback, without TLS, and "
        "client certificates are optional. See [envoy/README.md](envoy/README.md)",
    )
    metrics_listen: NumericAddress = Field(
        "127.0.0.1:9465", description="address of Envoy's `/stats/prometheus` and `/ready`"
    )
    admin_listen: NumericAddress = Field(
        "127.0.0.1:9901",
        description="address of Envoy's own admin interface, on loopback; the gateway tells it to drain",
    )
    folder: Path | None = Field(
        None,
        description="the folder of `edge-config`, where the gateway may write: after each change of a certificate it "
        "writes the files that name them again. Otherwise Envoy, once it has refused a pair that is then taken back, "
        "ignores later certificates and authorities",
    )
    origins: tuple[str, ...] = Field(
        (),
        description="origins of web pages whose scripts may call (CORS), each in full: `https://app.example`",
    )
    max_connections: Tuning[int] = Field(
        1000, ge=1, le=1_000_000, description="maximum number of connections of callers; Envoy refuses further ones"
    )
    max_streams: Tuning[int] = Field(
        100, ge=1, le=100_000, description="maximum number of concurrent calls on one connection of a caller"
    )
    max_heap_bytes: Tuning[int] = Field(
        268_435_456,
        ge=33_554_432,
        le=1_099_511_627_776,
        description="memory of Envoy's heap; near it Envoy ends the calls that hold most, and then refuses new ones",
    )

    def addresses(self) -> dict[str, str]:
        """The addresses of Envoy, by their settings; empty without one."""
        if self.listen is None:
            return {}
        return {
            "edge.listen": self.listen,
            "edge.metrics_listen": self.metrics_listen,
            "edge.admin_listen": self.admin_listen,
        }

    @model_validator(mode="after")
    def _private_admin(self) -> EdgeSettings:
        if not is_loopback(self.admin_listen):
            raise ValueError("admin_listen must be on loopback: whoever reaches it controls Envoy")
        return self


def edge_mistakes(listen: str, edge: EdgeSettings) -> Iterator[str]:
    """Problems: others than Envoy could reach the gateway, which believes the certificates that Envoy names."""
    if edge.listen is None:
        return
    if not is_loopback(listen):
        yield (
            f"listen: {listen} is not on loopback, and the gateway behind edge.listen believes what it hears there "
            "about client certificates; use 127.0.0.1:50050"
        )
