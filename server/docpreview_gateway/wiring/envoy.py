"""Pieces of Envoy's configuration."""

from __future__ import annotations

from typing import Any

from docpreview_gateway.settings.sections import host_port

Config = dict[str, Any]

BUFFER_BYTES = 1_153_434
"""1.1 MiB of a connection: the largest request fits in."""

TYPE = "type.googleapis.com/envoy."
CONNECTION_MANAGER = (
    "envoy.filters.network.http_connection_manager",
    "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
)
ROUTER = ("envoy.filters.http.router", "extensions.filters.http.router.v3.Router")


def address(value: str) -> Config:
    """The socket of `host:port`."""
    host, port = host_port(value)
    found: Config = {"address": "127.0.0.1" if host == "localhost" else host, "port_value": port}
    return {"socket_address": found | ({"ipv4_compat": True} if host == "::" else {})}


def seconds(value: float) -> str:
    """A duration."""
    return f"{value:g}s"


def typed(name: str, kind: str, **fields: Any) -> Config:  # noqa: ANN401 - any field of Envoy's messages
    """An extension with its own configuration, of Envoy's message `kind`."""
    return {"name": name, "typed_config": {"@type": f"{TYPE}{kind}", **fields}}
