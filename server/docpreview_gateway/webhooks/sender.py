"""Sends events by HTTP POST, by aiohttp, and reports only what came of it: no body of an answer is read."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, NamedTuple

import aiohttp

from docpreview_gateway.model.webhooks import SecretsError, signature_headers
from docpreview_gateway.upstream import causes
from docpreview_gateway.webhooks.events import CONTENT_TYPE
from docpreview_gateway.webhooks.secret_files import read_secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.model.webhooks import WebhookTarget

TIMEOUT_SECONDS = 15.0

AGENT = "docpreview-gateway"

Outcome = Literal["delivered", "gone", "refused", "unreachable", "timeout", "secret", "unknown"]
"""What came of an attempt.

`refused` is any other status than 2xx and 410, redirects included; `secret`: the file of the secrets is unusable;
`unknown`: the policy has no such target.
"""


class Answer(NamedTuple):
    """What came of an attempt, and the status or why there was none in words for the log, without addresses."""

    outcome: Outcome
    detail: str = ""


class Sender:
    """The port `EventSender`."""

    def __init__(self, session: aiohttp.ClientSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    async def send(self, target: WebhookTarget, event_id: str, body: bytes) -> Answer:
        """POST a signed event, once, within 15 s. Redirects are not followed, proxies not used."""
        try:
            # Read each time, in a thread: a replaced secret counts at once, and none stays in memory.
            found = await asyncio.to_thread(read_secrets, target.secret_file)
        except SecretsError as error:
            return Answer("secret", str(error))
        headers = signature_headers(event_id, int(self._clock.now()), body, found)
        headers |= {"content-type": CONTENT_TYPE, "user-agent": AGENT}
        try:
            async with self._session.post(target.url, data=body, headers=headers, allow_redirects=False) as reply:
                return Answer(_outcome(reply.status), f"status {reply.status}")
        except TimeoutError:
            return Answer("timeout", "no answer in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a name that cannot be encoded
            return Answer("unreachable", why_not(error))


_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ServerDisconnectedError, "the connection was closed before an answer"),
    (aiohttp.ClientResponseError, "the answer is not HTTP"),
    (ValueError, "name is none of a host"),
)


def why_not(error: Exception) -> str:
    """Why an attempt had no answer, in words without addresses."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return causes.of_connecting(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorDNSError) and not isinstance(error.os_error, socket.gaierror):
        return "name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        return causes.of_connecting(error.os_error)
    return next((words for kind, words in _WORDS if isinstance(error, kind)), None) or causes.of_connecting(error)


def _outcome(status: int) -> Outcome:
    if status == HTTPStatus.GONE:
        return "gone"
    return "delivered" if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES else "refused"


@asynccontextmanager
async def sender(clock: Clock) -> AsyncIterator[Sender]:
    """A sender. Each event has a connection of its own: one that is kept may be closed just as it is used again."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    jar = aiohttp.DummyCookieJar()
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, trust_env=False, cookie_jar=jar, auto_decompress=False
    ) as session:
        yield Sender(session, clock)
