"""Whether the address that the cloud calls back leads to this deployment, as far as this machine can tell.

The request goes the way of the cloud's: to the public address, through whatever stands before the gateway. What answers
has to prove that it has the deployment's secret: a web server that answers 200 to everything proves nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from docpreview_gateway.callbacks.tokens import CallbackTokens
from docpreview_gateway.doctor.diagnosis import Finding, NetworkError
from docpreview_gateway.doctor.network import SystemNetwork
from docpreview_gateway.storage.key_file import OWN_NAME, KeyFileError, read_secrets
from docpreview_gateway.upstream import causes

if TYPE_CHECKING:
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.settings.loading import Settings

SECONDS = 10.0
_MOST_BYTES = 4096
FIREWALL = (
    "the cloud publishes no addresses from which it calls back: a firewall has to let POST to this address pass from "
    "everywhere, and nothing else"
)


async def callback_findings(settings: Settings, clock: Clock) -> list[Finding]:
    """Findings on `callbacks.public_url`; none without it."""
    url = settings.callbacks.public_url
    if url is None:
        return []
    base = str(url).rstrip("/")
    try:
        async with asyncio.timeout(SECONDS):
            addresses = await SystemNetwork({}).addresses((urlsplit(base).hostname or "").strip("[]"))
    except (NetworkError, TimeoutError) as error:
        remedy = "correct callbacks.public_url, or publish the name: the cloud asks the DNS of the internet"
        return [Finding("callbacks", base, str(error) or "no answer in time", remedy)]
    return [*_reachable(base, addresses), await _answered(settings, base, clock)]


def _reachable(base: str, addresses: list[str]) -> list[Finding]:
    private = [each for each in addresses if not ipaddress.ip_address(each).is_global]
    if not private:
        return []
    what = f"resolves to {', '.join(private)} here, which the cloud cannot reach"
    remedy = "name a public address in callbacks.public_url; no matter where only this network's DNS says so"
    return [Finding("callbacks", base, what, remedy, is_warning=True)]


async def _answered(settings: Settings, base: str, clock: Clock) -> Finding:
    path = settings.ledger.key_file or settings.state_dir / OWN_NAME
    try:
        tokens = CallbackTokens(read_secrets(path), settings.shared_state.namespace or "")
    except KeyFileError:
        what = "nothing was asked, because the secret that tokens are made of cannot be read"
        return Finding("callbacks", base, what, "start the gateway once, and check again", is_warning=True)
    nonce = secrets.token_hex(16)
    try:
        reply = await _post(f"{base}/{tokens.probe(clock.now())}", nonce)
    except aiohttp.ClientConnectorCertificateError as error:
        remedy = "use a certificate of a public authority for its host name, with the chain, or http://"
        return Finding("callbacks", base, causes.of_connecting(error.certificate_error), remedy)
    except (aiohttp.ClientError, TimeoutError) as error:
        remedy = f"start the gateway, and lead this address to callbacks.listen; {FIREWALL}"
        return Finding("callbacks", base, f"no answer: {_of_silence(error)}", remedy)
    what, remedy = _of_reply(reply, is_proof=tokens.is_proof(nonce, reply.body))
    return Finding("callbacks", base, what, remedy)


def _of_silence(error: Exception) -> str:
    """Why there was no answer, without the words of a library."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, aiohttp.ClientConnectorError):
        return causes.of_connecting(error.os_error)
    if isinstance(error, aiohttp.ClientResponseError):
        return "what answers there is no HTTP"
    return "the connection broke"


def _of_reply(reply: _Reply, *, is_proof: bool) -> tuple[str, str]:
    """What a reply says, and what to do."""
    if HTTPStatus.MULTIPLE_CHOICES <= reply.status < HTTPStatus.BAD_REQUEST:
        remedy = "write the address that it redirects to into callbacks.public_url: the cloud may follow none"
        return f"answers with a redirect ({reply.status})", remedy
    if reply.status != HTTPStatus.OK:
        remedy = f"lead this address to callbacks.listen of this gateway, with its path, by POST; {FIREWALL}"
        return f"answers with status {reply.status}", remedy
    if not is_proof:
        remedy = (
            "lead it to callbacks.listen of this deployment; all of its replicas have one ledger.key_file and "
            "one shared_state.namespace"
        )
        return "something else answers, or a gateway with another secret", remedy
    return f"leads to this deployment, from this machine; {FIREWALL}", ""


class _Reply(NamedTuple):
    status: int
    body: str


async def _post(url: str, nonce: str) -> _Reply:
    """What answers. Nothing is followed, and no proxy is used, since the cloud uses none."""
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(url, data=nonce, allow_redirects=False) as reply,
    ):
        body = await reply.content.read(_MOST_BYTES)
        return _Reply(reply.status, body.decode(errors="replace"))
