"""Envoy's configuration as the edge before a gateway, from the gateway's own settings.

`files` is pure: settings in, contents of files out. What each limit is for stands beside it; the measurements are those
of docs/envoy/README.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import yaml
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2

from docpreview_gateway.model.contract import SERVICES
from docpreview_gateway.settings.sections import host_port
from docpreview_gateway.wiring.edge_callers import (
    AUTHORITIES,
    CERTIFICATE,
    DESCRIPTORS,
    authorities,
    callers,
    certificate,
)
from docpreview_gateway.wiring.envoy import (
    BUFFER_BYTES,
    CONNECTION_MANAGER,
    ROUTER,
    TYPE,
    Config,
    address,
    typed,
)

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.descriptor import FileDescriptor

    from docpreview_gateway.settings.edge import EdgeSettings
    from docpreview_gateway.settings.loading import Settings

BOOTSTRAP = "envoy.yaml"
_HEAP = "envoy.resource_monitors.fixed_heap"
_CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"

GATEWAY_CONNECTIONS = 1000
"""Connections that a process of the gateway accepts (rpc/server.py)."""

STREAMS, STREAMS_OF_SEVERAL = 100, 20
"""Calls on one connection to the gateway; few with several processes, so that each gets connections."""


class EdgeError(Exception):
    """The settings describe no edge. The message says what to set."""


def files(settings: Settings, folder: Path) -> dict[str, bytes]:
    """Name to content of every file that belongs into `folder`: BOOTSTRAP, and those that it names.

    EdgeError when the settings have no `edge.listen`, or the gateway's port is not known.
    """
    if settings.edge.listen is None:
        raise EdgeError("edge.listen: is not set; give the address where callers reach Envoy, such as 0.0.0.0:50051")
    if host_port(settings.listen)[1] == 0:
        raise EdgeError("listen: must name a port, which Envoy connects to; 0 takes a free one")
    tls = settings.tls
    if tls.certificate is not None and tls.key is not None and tls.key.parent != tls.certificate.parent:
        raise EdgeError("tls.key: must be in the folder of tls.certificate, which Envoy watches for new ones of both")
    return {BOOTSTRAP: _text(_bootstrap(settings, folder)), DESCRIPTORS: _descriptors()} | secrets(settings)


def secrets(settings: Settings, spelling: int = 0) -> dict[str, bytes]:
    """Those of the files that name certificate and authorities. Their paths have the same meaning in every spelling."""
    tls, made = settings.tls, {}
    if tls.certificate is not None and tls.key is not None:
        made[CERTIFICATE] = _text({"resources": [certificate(tls.certificate, tls.key, spelling)]})
    if tls.client_ca is not None:
        made[AUTHORITIES] = _text({"resources": [authorities(tls.client_ca, spelling)]})
    return made


def arguments(settings: Settings, folder: Path) -> tuple[str, ...]:
    """Arguments of the command `envoy`. Its listeners close when the gateway has ended its `drain.delay_seconds`."""
    drain = max(1, math.ceil(settings.drain.delay_seconds))
    return ("-c", str(folder / BOOTSTRAP), "--disable-hot-restart", "--drain-time-s", str(drain))


def _text(config: Config) -> bytes:
    head = "# Made by `docpreview-gateway edge-config` from the gateway's settings; a change here is lost.\n"
    return (head + yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=116)).encode()


def _bootstrap(settings: Settings, folder: Path) -> Config:
    edge = settings.edge
    return {
        # Envoy takes watched files only with a name of its own.
        "node": {"id": "edge", "cluster": "docpreview"},
        "admin": {"address": address(edge.admin_listen)},
        "overload_manager": _overload(edge),
        "static_resources": {
            "listeners": [callers(settings, folder), _metrics(settings)],
            "clusters": [
                _gateway(settings, "gateway", _most_calls(settings)),
                # Watches of health cost no right and have no end: one for each connection.
                _gateway(settings, "health", edge.max_connections),
                {
                    "name": "admin",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": _endpoint("admin", edge.admin_listen),
                },
            ],
        },
    }


def _overload(edge: EdgeSettings) -> Config:
    """What happens at the bounds of connections and memory: the calls that hold most of it end first."""
    return {
        "refresh_interval": "0.25s",
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 16},
        "resource_monitors": [
            typed(
                _CONNECTIONS,
                "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=edge.max_connections,
            ),
            typed(
                _HEAP,
                "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                max_heap_size_bytes=edge.max_heap_bytes,
            ),
        ],
        "actions": [
            # As the gateway without an edge: connections without a call make room for new ones, before all are taken.
            _action("reduce_timeouts", _CONNECTIONS, scaled={"scaling_threshold": 0.75, "saturation_threshold": 0.9})
            | {"typed_config": _shorter()},
            _action("shrink_heap", threshold={"value": 0.7}),
            _action("reset_high_memory_stream", scaled={"scaling_threshold": 0.75, "saturation_threshold": 0.9}),
            _action("stop_accepting_requests", threshold={"value": 0.95}),
        ],
    }


def _action(name: str, resource: str = _HEAP, **trigger: Config) -> Config:
    return {"name": f"envoy.overload_actions.{name}", "triggers": [{"name": resource, **trigger}]}


def _shorter() -> Config:
    """How long, at last, a connection may be without a call, and a handshake may take."""
    timers = [
        {"timer": name, "min_timeout": "2s"} for name in ("HTTP_DOWNSTREAM_CONNECTION_IDLE", "TRANSPORT_SOCKET_CONNECT")
    ]
    return {"@type": f"{TYPE}config.overload.v3.ScaleTimersOverloadActionConfig", "timer_scale_factors": timers}


def _metrics(settings: Settings) -> Config:
    """The listener of Prometheus and probes: two pages of the admin interface, also while all connections are taken."""
    routes = [
        {"match": {"path": path}, "route": {"cluster": "admin", "timeout": "5s"}}
        for path in ("/stats/prometheus", "/ready")
    ]
    manager: Config = {
        "stat_prefix": "metrics",
        "codec_type": "HTTP1",
        "common_http_protocol_options": {"idle_timeout": "60s"},
        "request_headers_timeout": "5s",
        "request_timeout": "5s",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "admin",
                    "domains": ["*"],
                    "routes": [*routes, {"match": {"prefix": "/"}, "direct_response": {"status": 404}}],
                }
            ]
        },
        "http_filters": [typed(*ROUTER)],
    }
    limit = typed(
        "envoy.filters.network.connection_limit",
        "extensions.filters.network.connection_limit.v3.ConnectionLimit",
        stat_prefix="metrics",
        max_connections=50,
    )
    return {
        "name": "metrics",
        "address": address(settings.edge.metrics_listen),
        "ignore_global_conn_limit": True,
        "filter_chains": [{"filters": [limit, typed(*CONNECTION_MANAGER, **manager)]}],
    }


def _gateway(settings: Settings, name: str, most: int) -> Config:
    """The cluster of this one gateway. Its own limits answer with reasons, so those here lie above them."""
    thresholds = {
        "max_connections": GATEWAY_CONNECTIONS * settings.workers,
        "max_pending_requests": most,
        "max_requests": most,
        "max_retries": 0,
    }
    options = {
        "@type": f"{TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {
                "max_concurrent_streams": STREAMS if settings.workers == 1 else STREAMS_OF_SEVERAL,
                # The gateway takes a ping every 20 s.
                "connection_keepalive": {"interval": "30s", "timeout": "10s"},
            }
        },
    }
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "3s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "circuit_breakers": {"thresholds": [thresholds]},
        "load_assignment": _endpoint(name, settings.listen),
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def _most_calls(settings: Settings) -> int:
    return settings.workers * (settings.limits.max_calls + settings.watch.max_watches + GATEWAY_CONNECTIONS)


def _endpoint(cluster: str, place: str) -> Config:
    endpoint = {"endpoint": {"address": address(place)}}
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [endpoint]}]}


def _descriptors() -> bytes:
    """The contract and the types of error details, as a FileDescriptorSet."""
    wanted = [*(service.file for service in SERVICES), status_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR]
    found: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for dependency in file.dependencies:
            add(dependency)
        found.setdefault(file.name, file)

    for file in wanted:
        add(file)
    made = descriptor_pb2.FileDescriptorSet()
    for file in found.values():
        file.CopyToProto(made.file.add())
    return made.SerializeToString(deterministic=True)
