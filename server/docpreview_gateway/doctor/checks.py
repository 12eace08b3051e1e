"""The checks of `docpreview-gateway doctor`, assembled from the settings."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from docpreview_gateway.doctor.callback_checks import callback_findings
from docpreview_gateway.doctor.emulator_check import emulator_findings
from docpreview_gateway.doctor.examination import Diagnostics
from docpreview_gateway.doctor.issuer_checks import issuer_findings
from docpreview_gateway.doctor.local_checks import local_findings
from docpreview_gateway.doctor.network import SystemNetwork
from docpreview_gateway.doctor.object_checks import page_finding, upload_finding
from docpreview_gateway.doctor.queue_callbacks import QueueCallbacks, queue_addresses, queue_findings
from docpreview_gateway.doctor.store_checks import store_findings
from docpreview_gateway.doctor.webhook_checks import webhook_findings
from docpreview_gateway.storage.key_file import KeyFileError
from docpreview_gateway.telemetry.prometheus_access import PrometheusAccess
from docpreview_gateway.upstream.cloud_queues import CloudQueues
from docpreview_gateway.wiring.access import Access
from docpreview_gateway.wiring.reloading import InvalidFileError
from docpreview_gateway.wiring.system_clock import SystemClock
from docpreview_gateway.wiring.upstream import http_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.doctor.diagnosis import Finding
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.upstream.ports import CredentialsSource

HTTPS = 443


async def run_checks(settings: Settings, *, send_events: bool = False, config: Path | None = None) -> list[Finding]:
    """The findings of all checks. No check creates a job. A problem of one part does not stop the others.

    With `send_events` each target of webhooks gets a test event. `config` is --config of the command, for those that
    the findings name.
    """
    clock = SystemClock()
    found = [
        *local_findings(settings, clock.now()),
        *await issuer_findings(settings),
        *await _redis(settings, clock),
        *await store_findings(settings),
        *await callback_findings(settings, clock),
        *await webhook_findings(settings, clock, send=send_events),
    ]
    try:
        credentials = cloud_credentials(settings, clock)
    except InvalidFileError:
        return found  # a finding of the files, and nothing can be signed
    return [*found, *await _cloud(settings, credentials, clock, config)]


def cloud_credentials(settings: Settings, clock: Clock) -> CredentialsSource:
    """The key pairs for the cloud. InvalidFileError."""
    return Access(settings, clock, PrometheusAccess(CollectorRegistry())).cloud_credentials()


async def _redis(settings: Settings, clock: Clock) -> list[Finding]:
    state = settings.shared_state
    urls = [("url", state.url), ("ledger_url", state.ledger_url)]
    named = [(name, url.get_secret_value()) for name, url in urls if url is not None]
    if not named:
        return []
    from docpreview_gateway.doctor.redis_checks import redis_findings  # noqa: PLC0415 - redis takes 20 MiB

    namespace = state.namespace or ""
    found: list[Finding] = []
    for name, url in named:
        found += await redis_findings(name, url, namespace, has_channels=name == "url", clock=clock)
    return found


async def _cloud(
    settings: Settings, credentials: CredentialsSource, clock: Clock, config: Path | None
) -> list[Finding]:
    buckets = [found.bucket() for found in settings.buckets]
    hosts = _hosts(settings, buckets)
    endpoint, proxy = _endpoint(settings), settings.upstream.through()
    network = SystemNetwork({host: port for host, port in hosts.items() if port is not None}, proxy)
    async with http_transport(settings, endpoint) as cloud:
        examination = Diagnostics(network, cloud, credentials, clock, endpoint=endpoint, proxy=proxy)
        found = await examination.findings(hosts, buckets)
        if any(each.check == "clock" and not each.ok for each in found):
            return found  # every signature is refused for the time, whatever it is of
        # Where the keys are refused, so are addresses that they sign, which say nothing more.
        refused = {each.subject for each in found if each.check == "signature" and not each.ok}
        for bucket in buckets:
            if bucket.name not in refused:
                found.append(await _pages(settings, bucket, credentials, clock))
            if (uploads := await upload_finding(bucket, cloud, credentials, clock.now(), endpoint)) is not None:
                found.append(uploads)
        answering = [bucket for bucket in buckets if bucket.name not in refused]
        found += await _queues(settings, CloudQueues(cloud, credentials, clock), answering, config)
        return [*found, *(await emulator_findings(cloud, endpoint) if endpoint else [])]


async def _queues(settings: Settings, cloud: CloudQueues, buckets: list[Bucket], config: Path | None) -> list[Finding]:
    """Findings on what queues tell, where they have to tell this deployment."""
    if settings.callbacks.public_url is None or settings.callbacks.mode != "queue":
        return []
    try:
        addresses = queue_addresses(settings)
    except KeyFileError:
        return []  # a finding on callbacks.public_url
    return await queue_findings(QueueCallbacks(cloud, addresses, _endpoint(settings)), buckets, config)


@asynccontextmanager
async def queue_callbacks(settings: Settings) -> AsyncIterator[QueueCallbacks]:
    """What looks at the queues of the cloud and writes them. InvalidFileError, KeyFileError."""
    clock = SystemClock()
    credentials, endpoint = cloud_credentials(settings, clock), _endpoint(settings)
    async with http_transport(settings, endpoint) as cloud:
        yield QueueCallbacks(CloudQueues(cloud, credentials, clock), queue_addresses(settings), endpoint)


def _endpoint(settings: Settings) -> str | None:
    return str(settings.upstream.endpoint) if settings.upstream.endpoint else None


async def _pages(settings: Settings, bucket: Bucket, credentials: CredentialsSource, clock: Clock) -> Finding:
    base = settings.upstream.object_url_base
    address = (base or "https://{host}").rstrip("/").replace("{host}", bucket.object_host)
    async with http_transport(settings, address) as direct:
        return await page_finding(bucket, direct, credentials, clock.now(), base)


def _hosts(settings: Settings, buckets: list[Bucket]) -> dict[str, int | None]:
    """The hosts that the gateway connects to, with their TLS port, None without TLS."""
    if settings.upstream.endpoint is not None:
        url = urlsplit(str(settings.upstream.endpoint))
        return {url.hostname or "": (url.port or HTTPS) if url.scheme == "https" else None}
    return dict.fromkeys((bucket.ci_host for bucket in buckets), HTTPS)
