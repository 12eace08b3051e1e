"""The checks of `docpreview-gateway doctor`, assembled from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from docpreview_gateway.doctor.diagnosis import Finding
from docpreview_gateway.doctor.examination import Diagnostics
from docpreview_gateway.doctor.network import SystemNetwork
from docpreview_gateway.doctor.store_checks import store_findings
from docpreview_gateway.storage.key_file import KeyFileError, read_secrets
from docpreview_gateway.telemetry.prometheus_access import PrometheusAccess
from docpreview_gateway.upstream.aiohttp_transport import AiohttpTransport
from docpreview_gateway.wiring.access import Access
from docpreview_gateway.wiring.reloading import InvalidFileError
from docpreview_gateway.wiring.system_clock import SystemClock

if TYPE_CHECKING:
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.settings.loading import Settings

HTTPS = 443


async def run_checks(settings: Settings) -> list[Finding]:
    """The findings of all checks. No check creates a job."""
    clock = SystemClock()
    access = Access(settings, clock, PrometheusAccess(CollectorRegistry()))
    try:
        credentials = access.cloud_credentials()
        access.authenticator()
        access.server_credentials()
        if settings.ledger.key_file is not None:
            read_secrets(settings.ledger.key_file)
    except (InvalidFileError, KeyFileError) as error:
        return [Finding("files", "configuration", str(error), "correct the file; nothing else was checked")]
    buckets = [found.bucket() for found in settings.buckets]
    hosts = _hosts(settings, buckets)
    upstream = settings.upstream
    transport = AiohttpTransport(
        base_url=str(upstream.endpoint) if upstream.endpoint else None,
        connect_seconds=upstream.connect_timeout_seconds,
        read_seconds=upstream.timeout_seconds,
    )
    network = SystemNetwork({host: port for host, port in hosts.items() if port is not None})
    async with transport:
        return [
            Finding("files", "configuration", "all files that it names are valid"),
            *await store_findings(settings),
            *await Diagnostics(network, transport, credentials, clock).findings(hosts, buckets),
        ]


def _hosts(settings: Settings, buckets: list[Bucket]) -> dict[str, int | None]:
    """The hosts that the gateway connects to, with their TLS port, None without TLS."""
    if settings.upstream.endpoint is not None:
        url = urlsplit(str(settings.upstream.endpoint))
        return {url.hostname or "": (url.port or HTTPS) if url.scheme == "https" else None}
    return dict.fromkeys((bucket.ci_host for bucket in buckets), HTTPS)
