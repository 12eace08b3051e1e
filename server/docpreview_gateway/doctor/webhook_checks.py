"""Whether the targets of outgoing webhooks can be reached, and if asked for, whether they take a signed event.

Without being asked nothing is sent: a receiver may do something for each request.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from docpreview_gateway.doctor.diagnosis import Finding, NetworkError, of_expiry
from docpreview_gateway.doctor.local_checks import secret_mode
from docpreview_gateway.doctor.network import SystemNetwork
from docpreview_gateway.model.webhooks import signature_headers
from docpreview_gateway.upstream import causes
from docpreview_gateway.webhooks.events import CONTENT_TYPE, SOURCE, TEST
from docpreview_gateway.webhooks.secret_files import read_secrets, unusable
from docpreview_gateway.webhooks.sender import AGENT, TIMEOUT_SECONDS, why_not
from docpreview_gateway.wiring.access import load_directory
from docpreview_gateway.wiring.reloading import InvalidFileError

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.model.webhooks import WebhookTarget
    from docpreview_gateway.settings.loading import Settings

SECONDS = 10.0
HTTP, HTTPS = 80, 443


async def webhook_findings(settings: Settings, clock: Clock, *, send: bool) -> list[Finding]:
    """Findings on each target of the policy; with `send` each gets a signed event of the type `TEST`."""
    if settings.policy.file is None:
        return []
    try:
        targets = load_directory(settings).webhooks
    except InvalidFileError:
        return []  # a finding of the files
    found = await asyncio.gather(*(_target(each, clock, send=send) for each in targets.values()))
    return [finding for each in found for finding in each]


async def _target(target: WebhookTarget, clock: Clock, *, send: bool) -> list[Finding]:
    name = f"webhooks.{target.name}"
    if why := unusable(target.secret_file):
        remedy = f"correct {name}.secret_file; until then its events wait, for a day at most"
        return [Finding("webhooks", name, f"its secret cannot be used: {target.secret_file}: {why}", remedy)]
    modes = list(secret_mode("webhooks", f"the secret of {name}", target.secret_file))
    try:
        async with asyncio.timeout(SECONDS):
            end = await _connected(target.url)
    except (NetworkError, TimeoutError) as error:
        remedy = f"correct {name}.url, or let this machine reach it: firewalls, networkPolicy.webhooks of the chart"
        if "certificate" in str(error):
            remedy = "give the receiver a certificate of an authority that this machine trusts, with the chain"
        return [*modes, Finding("webhooks", name, str(error) or "no connection in time", remedy)]
    if send:
        return [*modes, await _sent(name, target, clock)]
    if end is not None and (expiry := of_expiry("webhooks", name, end, clock.now())).remedy:
        return [*modes, expiry]
    what = "accepts connections" if end is None else "accepts connections, and its certificate is trusted"
    return [*modes, Finding("webhooks", name, f"{what}; doctor --webhooks sends it a signed event of the type {TEST}")]


async def _connected(url: str) -> float | None:
    """When the certificate expires, None without TLS. NetworkError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    network = SystemNetwork({host: parts.port or HTTPS} if parts.scheme == "https" else {})
    await network.addresses(host)
    if parts.scheme == "https":
        return await network.certificate_end(host)
    port = parts.port or HTTP
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        raise NetworkError(f"no connection to port {port}: {causes.of_connecting(error)}") from None
    writer.transport.abort()
    return None


async def _sent(name: str, target: WebhookTarget, clock: Clock) -> Finding:
    event, now = f"evt_{secrets.token_hex(16)}", clock.now()
    body = json.dumps(
        {
            "specversion": "1.0",
            "id": event,
            "source": f"{SOURCE}/doctor",
            "type": TEST,
            "time": datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z"),
        }
    ).encode()
    try:
        keys = await asyncio.to_thread(read_secrets, target.secret_file)
        headers = signature_headers(event, int(now), body, keys)
        headers |= {"content-type": CONTENT_TYPE, "user-agent": AGENT}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS), trust_env=False) as session,
            session.post(target.url, data=body, headers=headers, allow_redirects=False) as reply,
        ):
            return Finding("webhooks", name, *_of_status(name, reply.status))
    except TimeoutError:
        remedy = "have the receiver answer before it works on an event: the gateway tries again after that time"
        return Finding("webhooks", name, f"no answer to a signed event in {TIMEOUT_SECONDS:.0f} s", remedy)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        remedy = "look at the receiver's log, and at what is on the way to it"
        return Finding("webhooks", name, f"no answer to a signed event: {why_not(error)}", remedy)


def _of_status(name: str, status: int) -> tuple[str, str]:
    """What an answer to the test event says, and what to do."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return f"takes a signed event (status {status})", ""
    what = f"answers a signed event of the type {TEST} with status {status}"
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return what, f"write the address that it redirects to into {name}.url: redirects are not followed"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return what, f"compare its secret with {name}.secret_file, and its clock with this machine's"
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        return what, f"correct the path of {name}.url: events come by POST"
    return what, "the receiver's log says why; it answers 2xx to types that it does not know (docs/webhooks.md)"
