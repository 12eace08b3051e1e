"""Channels to the gateway: their arguments, their service config, and the targets that may be given a token.

A client has one channel for its calls, for its whole life, since channels are expensive and balance load by themselves;
and others for its watches and waits (`stream_connections`).
"""

import ipaddress
import json
import re
from importlib import metadata
from typing import Any, Final

import grpc

from docpreview_client.options import ClientOptions, Tls

_JOBS: Final = "docpreview.v1.PreviewJobService"
_QUEUES: Final = "docpreview.v1.PreviewQueueService"
_USAGE: Final = "docpreview.v1.UsageService"
_UPLOADS: Final = "docpreview.v1.UploadService"
# Calls that cost nothing to repeat. CreatePreviewJob is not among them and never may be: every create is billed. Those
# with a `request_id` are repeated above gRPC, which cannot tell the two kinds apart (`repeating`).
_REPEATABLE: Final = (
    (_JOBS, "GetPreviewJob"),
    (_JOBS, "BatchGetPreviewJobs"),
    (_JOBS, "ListPreviewJobs"),
    (_JOBS, "WaitPreviewJob"),
    (_JOBS, "WatchPreviewJob"),
    (_JOBS, "WatchPreviewJobs"),
    (_QUEUES, "ListPreviewQueues"),
    (_USAGE, "GetUsage"),
    (_UPLOADS, "CreateUpload"),
    (_UPLOADS, "CompleteUpload"),
    (_UPLOADS, "AbortUpload"),
)
# CANCELLED: a stopping server cancels calls that it has not yet begun, https://github.com/grpc/grpc/issues/41785
_RETRY_POLICY: Final = {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}
_LOCAL_SCHEMES: Final = ("unix:", "unix-abstract:")
_URL: Final = re.compile(r"(https?)://(?:[^@/]*@)?([^/?#]*)", re.IGNORECASE)
_RESOLVER: Final = re.compile(r"^(dns:(///)?|ipv4:|ipv6:)")


def service_config(*, health_checking: bool) -> dict[str, Any]:
    """The service config: balance over all addresses, retry what may be repeated, avoid unhealthy addresses."""
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{"service": service, "method": method} for service, method in _REPEATABLE],
                "retryPolicy": _RETRY_POLICY,
            },
        ],
        # At most one retry for ten successes in the long run, so that retries cannot keep a struggling gateway down.
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }
    if health_checking:
        config["healthCheckConfig"] = {"serviceName": _JOBS}
    return config


def open_channel(
    target: str, *, tls: Tls | None, options: ClientOptions, for_streams: bool = False
) -> grpc.aio.Channel:
    """Opens a channel that belongs to the running event loop. It connects when the first call is made.

    One `for_streams` has connections of its own: other channels of a process share theirs, and a connection carries a
    hundred streams. It disconnects after a minute without any.
    """
    arguments = _arguments(target, options)
    if for_streams:
        arguments += [("grpc.use_local_subchannel_pool", 1), ("grpc.client_idle_timeout_ms", 60_000)]
    interceptors = list(options.interceptors)
    if tls is None:
        return grpc.aio.insecure_channel(target, options=arguments, interceptors=interceptors)
    if tls.server_name:
        arguments.append(("grpc.ssl_target_name_override", tls.server_name))
    credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
    return grpc.aio.secure_channel(target, credentials, options=arguments, interceptors=interceptors)


def refuse_url(target: str) -> None:
    """Raises ValueError for an address as of the web, which gRPC would take for the name of a host."""
    if found := _URL.match(target):
        encrypted = ", and give tls" if found[1].lower() == "https" else ""
        raise ValueError(f"A target is no URL: write dns:///{found[2] or 'host:port'} instead{encrypted}.")


def is_loopback(target: str) -> bool:
    """Whether every address of `target` is on this machine."""
    if target.startswith(_LOCAL_SCHEMES):
        return True
    return all(_is_loopback_host(address) for address in _RESOLVER.sub("", target).split(","))


def _is_loopback_host(address: str) -> bool:
    host = re.sub(r":\d+$", "", address) if address.startswith("[") or address.count(":") == 1 else address
    host = host.removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _arguments(target: str, options: ClientOptions) -> list[tuple[str, Any]]:
    return [
        ("grpc.service_config", json.dumps(service_config(health_checking=options.health_checking))),
        ("grpc.primary_user_agent", f"{options.user_agent} docpreview-client/{_version()}".strip()),
        # The gateway accepts a ping every 20 s; a shorter interval is answered with GOAWAY "too_many_pings".
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # gRPC would let two minutes pass before it looks again for a gateway that was away, and at least a second,
        # in which the other replicas may be restarted too.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 10_000),
        ("grpc.dns_min_time_between_resolutions_ms", 10_000),
        ("grpc.max_receive_message_length", 4 * 1024 * 1024),
        # Errors that name many fields are longer than the 8 KiB that gRPC takes by default.
        ("grpc.max_metadata_size", 32 * 1024),
        ("grpc.absolute_max_metadata_size", 32 * 1024),
        # Calls to this machine must not go through a proxy from the environment.
        ("grpc.enable_http_proxy", 0 if is_loopback(target) else 1),
    ]


def _version() -> str:
    try:
        return metadata.version("docpreview-client")
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        return "unknown"
