"""The edge's listener of callers: TLS, the limits of a connection, and the paths that reach the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc_health.v1 import health

from docpreview_gateway.model.call import MAX_REPLY_BYTES
from docpreview_gateway.model.contract import SERVICE_NAMES, SERVICES
from docpreview_gateway.model.policy import REFLECTION
from docpreview_gateway.model.validation import MAX_WAIT_SECONDS
from docpreview_gateway.rpc.server import MAX_RECEIVE_BYTES
from docpreview_gateway.rpc.services import LONGEST_UNARY
from docpreview_gateway.wiring.envoy import (
    BUFFER_BYTES,
    CONNECTION_MANAGER,
    ROUTER,
    TYPE,
    Config,
    address,
    seconds,
    typed,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from docpreview_gateway.settings.loading import Settings

DESCRIPTORS, CERTIFICATE, AUTHORITIES = "docpreview.binpb", "certificate.yaml", "authorities.yaml"
"""Files that the listener names."""

_BUFFER = "envoy.filters.http.buffer"
_FRAMING_BYTES = 1024
"""For what stands around a message; the gateway itself refuses one that is a little too large."""

_STATUSES = {400: 3, 404: 12, 408: 4, 413: 8, 431: 8, 503: 14}
"""The code of gRPC of each HTTP status that Envoy answers itself."""

MARGIN_SECONDS = 30.0
"""By which Envoy's limits of time exceed the gateway's own, which give better answers."""


def callers(settings: Settings, folder: Path) -> Config:
    """The listener of callers."""
    chain: Config = {"filters": [typed(*CONNECTION_MANAGER, **_connections(settings, folder))]}
    if settings.tls.certificate is not None:
        chain |= {
            "transport_socket": _tls(settings, folder),
            "transport_socket_connect_timeout": "10s",
        }
    return {
        "name": "callers",
        "address": address(str(settings.edge.listen)),
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [chain],
    }


def _connections(settings: Settings, folder: Path) -> Config:
    """What a connection of a caller may do."""
    filters = [
        typed("envoy.filters.http.grpc_web", "extensions.filters.http.grpc_web.v3.GrpcWeb"),
        typed(
            "envoy.filters.http.grpc_json_transcoder",
            "extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
            **_json(folder),
        ),
        # Whole requests only: those that never end take no place in the gateway, which cannot end them.
        typed(
            _BUFFER, "extensions.filters.http.buffer.v3.Buffer", max_request_bytes=MAX_RECEIVE_BYTES + _FRAMING_BYTES
        ),
        typed(*ROUTER, suppress_envoy_headers=True),
    ]
    if settings.edge.origins:
        filters.insert(0, typed("envoy.filters.http.cors", "extensions.filters.http.cors.v3.Cors"))
    return {
        "stat_prefix": "callers",
        "codec_type": "AUTO",
        "use_remote_address": True,
        "server_header_transformation": "PASS_THROUGH",
        # Only what Envoy itself has seen of a caller's certificate reaches the gateway.
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"cert": True},
        "common_http_protocol_options": {
            "idle_timeout": "300s",
            "max_headers_count": 300,
            "headers_with_underscores_action": "DROP_HEADER",
            # As the gateway without an edge: callers move to new replicas, and away from those that stop.
            "max_connection_duration": seconds(settings.limits.connection_age_seconds),
        },
        "max_request_headers_kb": 16,
        "request_headers_timeout": "10s",
        "request_timeout": "10s",
        "stream_idle_timeout": seconds(_longest_silence(settings)),
        "drain_timeout": "1s",
        "http2_protocol_options": {
            "max_concurrent_streams": settings.edge.max_streams,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1_048_576,
            "connection_keepalive": {"interval": "60s", "timeout": "20s"},
        },
        "local_reply_config": local_replies(),
        "route_config": _routes(settings),
        "http_filters": filters,
    }


def local_replies() -> Config:
    """Envoy's own refusals as `google.rpc.Status` in JSON, as the gateway's are; callers of gRPC get trailers."""
    return {"mappers": [_local_reply(code, status) for status, code in _STATUSES.items()] + [_local_reply(2)]}


def _local_reply(code: int, status: int | None = None) -> Config:
    other = {
        "name": "content-type",
        "string_match": {"prefix": "application/grpc"},
        "invert_match": True,
        "treat_missing_header_as_empty": True,
    }
    # JSON that has begun to be transcoded looks like gRPC but for the path that it had.
    transcoded = {"name": "x-envoy-original-path", "present_match": True}
    found: Config = {"or_filter": {"filters": [{"header_filter": {"header": each}} for each in (other, transcoded)]}}
    if status is not None:
        value = {"default_value": status, "runtime_key": "edge.status"}
        same = {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}
        found = {"and_filter": {"filters": [found, same]}}
    return {"filter": found, "body_format_override": {"json_format": {"code": code, "message": "%LOCAL_REPLY_BODY%"}}}


def _json(folder: Path) -> Config:
    return {
        "proto_descriptor": str(folder / DESCRIPTORS),
        "services": list(SERVICE_NAMES),
        "auto_mapping": True,
        "convert_grpc_status": True,
        "max_request_body_size": MAX_RECEIVE_BYTES,
        "max_response_body_size": MAX_REPLY_BYTES,
        "print_options": {"preserve_proto_field_names": True, "stream_newline_delimited": True},
        # Unknown methods go on to the routes: refused here, before its message has come, a call would be reset, which
        # some clients take for a broken answer.
    }


def _routes(settings: Settings) -> Config:
    """The exact paths of the contract, of health, and of reflection if it is on; no retries: they would bill twice."""
    methods = [f"/{service.full_name}/{method.name}" for service in SERVICES for method in service.methods]
    tools = [f"/grpc.reflection.{version}.{REFLECTION}/{REFLECTION}Info" for version in ("v1", "v1alpha")]
    routes = [
        *(_route(settings, "gateway", path) for path in methods),
        *(_route(settings, "health", f"/{health.SERVICE_NAME}/{name}", grpc={}) for name in ("Check", "Watch")),
        *(_stream(settings, path) for path in tools if settings.reflection),
        *(_preflight(origin) for origin in settings.edge.origins),
        # Callers of gRPC get UNIMPLEMENTED.
        {
            "match": {"prefix": "/"},
            "direct_response": {"status": 404, "body": {"inline_string": "no such method; call with POST"}},
        },
    ]
    host: Config = {"name": "gateway", "domains": ["*"], "routes": routes}
    if settings.edge.origins:
        host["typed_per_filter_config"] = {"envoy.filters.http.cors": _cors(settings.edge.origins)}
    return {"virtual_hosts": [host]}


def _route(settings: Settings, cluster: str, path: str, **match: Config) -> Config:
    # The path alone would let any bytes pass behind a question mark.
    exact = [{"name": name, "string_match": {"exact": value}} for name, value in ((":path", path), (":method", "POST"))]
    return {
        "match": {"path": path, "headers": exact, **match},
        "route": {
            "cluster": cluster,
            # A caller's own text does not name the host.
            "host_rewrite_literal": "gateway",
            # The gateway ends calls at their deadlines, with reasons.
            "timeout": "0s",
            "max_stream_duration": {"max_stream_duration": seconds(_longest_call(settings))},
        },
    }


def _preflight(origin: str) -> Config:
    """The question of a browser, which the filter of CORS answers; it looks at routes to a cluster only."""
    asked: list[Config] = [
        {"name": name, "string_match": {"exact": value}} for name, value in ((":method", "OPTIONS"), ("origin", origin))
    ]
    asked.append({"name": "access-control-request-method", "present_match": True})
    return {"match": {"prefix": "/", "headers": asked}, "route": {"cluster": "gateway"}}


def _stream(settings: Settings, path: str) -> Config:
    """A route whose requests are answered before they end."""
    whole = {"@type": f"{TYPE}extensions.filters.http.buffer.v3.BufferPerRoute", "disabled": True}
    return _route(settings, "gateway", path, grpc={}) | {"typed_per_filter_config": {_BUFFER: whole}}


def _cors(origins: Iterable[str]) -> Config:
    return {
        "@type": f"{TYPE}extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": origin} for origin in origins],
        "allow_methods": "POST",
        "allow_headers": "authorization,content-type,grpc-timeout,x-grpc-web,x-request-id,x-user-agent",
        "expose_headers": "grpc-message,grpc-status,grpc-status-details-bin,x-request-id",
        "max_age": "86400",
    }


def _tls(settings: Settings, folder: Path) -> Config:
    """TLS with files that are read again when their folder changes; those named here directly never would be."""
    common: Config = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [_watched("certificate", folder / CERTIFICATE)],
    }
    if settings.tls.client_ca is not None:
        common["validation_context_sds_secret_config"] = _watched("authorities", folder / AUTHORITIES)
    return typed(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context=common,
        require_client_certificate=False,
    )


def _watched(name: str, path: Path) -> Config:
    return {
        "name": name,
        "sds_config": {"resource_api_version": "V3", "path_config_source": {"path": str(path)}},
    }


def certificate(chain: Path, key: Path, spelling: int = 0) -> Config:
    """The secret of the server's certificate."""
    return _secret(
        "certificate",
        tls_certificate={
            "certificate_chain": {"filename": _spelt(chain, spelling)},
            "private_key": {"filename": str(key)},
            "watched_directory": {"path": str(chain.parent)},
        },
    )


def authorities(path: Path, spelling: int = 0) -> Config:
    """The secret of the authorities of client certificates."""
    trusted = {"filename": _spelt(path, spelling)}
    return _secret(
        "authorities",
        validation_context={"trusted_ca": trusted, "watched_directory": {"path": str(path.parent)}},
    )


def _spelt(path: Path, spelling: int) -> str:
    return str(path) if spelling == 0 else f"{path.parent}{'/.' * spelling}/{path.name}"


def _secret(name: str, **kind: Config) -> Config:
    return {"@type": f"{TYPE}extensions.transport_sockets.tls.v3.Secret", "name": name, **kind}


def _longest_call(settings: Settings) -> float:
    return max(LONGEST_UNARY, MAX_WAIT_SECONDS, settings.watch.max_stream_seconds) + MARGIN_SECONDS


def _longest_silence(settings: Settings) -> float:
    """A wait says nothing until it ends, a watch has its heartbeat."""
    return max(LONGEST_UNARY, MAX_WAIT_SECONDS, settings.watch.heartbeat_seconds) + MARGIN_SECONDS
