"""Checks of the object store: the addresses of pages as callers open them, and the keys that sign uploads.

Each asks for an object that does not exist. Nothing is written.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.doctor import diagnosis
from docpreview_gateway.doctor.diagnosis import PROXY, Finding
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.upstream.ports import ProxyError, TransportError
from docpreview_gateway.upstream.wire import origin, refusals
from docpreview_gateway.upstream.wire.requests import read_object
from docpreview_gateway.upstream.wire.signing import Window, presign

if TYPE_CHECKING:
    from docpreview.v1.error_reason_pb2 import ErrorReason
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.upstream.ports import CredentialsSource, Transport
    from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest

KEY = "docpreview-doctor/there-is-no-such-object"
TIMEOUT_SECONDS = 10.0

_KEYS = "check secret_id, secret_key and token of credentials.{name}; temporary keys may have expired"
_BASE = (
    "correct upstream.object_url_base: it must lead to the bucket's object host, with path and query unchanged; "
    "without it addresses begin with https:// and that host"
)
_DIRECT = "let this machine reach that address, or set upstream.object_url_base to where callers reach the object store"


class _Answer:
    """What answered: the object store with one of the contract's reasons, or something else (`reason` is None)."""

    def __init__(self, reason: ErrorReason.ValueType | None, text: str, *, by_proxy: bool = False) -> None:
        self.reason, self.text = reason, text
        self.by_proxy = by_proxy
        """The proxy on the way gave no connection."""


class _AsCallers:
    """A transport as a browser: the host is that of the address."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def send(self, request: HttpRequest) -> HttpReply:
        headers = {name: value for name, value in request.headers.items() if name != "host"}
        return await self._transport.send(replace(request, headers=headers))


async def page_finding(
    bucket: Bucket, direct: Transport, credentials: CredentialsSource, now: float, base: str | None
) -> Finding:
    """Whether a signed address of a page opens at the object store. `direct` connects to what the address names."""
    where = f"{bucket.name} by {(base or 'https://{host}').rstrip('/')}"
    way = _DIRECT if base is None else _BASE
    found = await _ask(_AsCallers(direct), bucket, credentials, bucket.credentials, now)
    if found.reason is None:
        what = f"addresses of pages do not open at the object store: {found.text}"
        return Finding("pages", where, what, PROXY if found.by_proxy else way)
    if found.reason == r.ERROR_REASON_OBJECT_NOT_FOUND:
        return Finding("pages", where, "the object store accepts signed addresses of pages")
    if found.reason == r.ERROR_REASON_UPSTREAM_ACCESS_DENIED:
        what = f"the object store knows the key, which may not read {KEY}"
        todo = f"allow credentials.{bucket.credentials} to GetObject where results are, if it may not yet"
        return Finding("pages", where, what, todo, is_warning=True)
    if found.reason == r.ERROR_REASON_UPSTREAM_CREDENTIALS:
        keys = _KEYS.format(name=bucket.credentials)
        todo = keys if base is None else f"{_BASE}; or {keys}"
        return Finding("pages", where, f"addresses of pages are refused: {found.text}", todo)
    todo = _of(found.reason, bucket.credentials, None)
    return Finding("pages", where, f"addresses of pages are refused: {found.text}", todo)


async def upload_finding(
    bucket: Bucket, transport: Transport, credentials: CredentialsSource, now: float, endpoint: str | None
) -> Finding | None:
    """Whether the object store knows the key that signs uploads, and whether it may do more. None: there is none."""
    name = bucket.upload_credentials
    if not name:
        return None
    found = await _ask(transport, bucket, credentials, name, now)
    where = f"{bucket.name} with credentials.{name}"
    if found.reason == r.ERROR_REASON_UPSTREAM_ACCESS_DENIED:
        what = "the object store knows the key, which may not read objects; whether it may put them, an upload shows"
        return Finding("uploads", where, what)
    if found.reason == r.ERROR_REASON_OBJECT_NOT_FOUND:
        what = "the object store accepts the key, which may do more than put objects: it may read them"
        todo = "allow it nothing but PutObject and UploadPart: whoever has an address of an upload may try the rest"
        return Finding("uploads", where, what, todo, is_warning=True)
    if found.reason is None:
        return Finding("uploads", where, found.text, PROXY if found.by_proxy else diagnosis.on_the_way(endpoint))
    return Finding("uploads", where, f"the key is refused: {found.text}", _of(found.reason, name, endpoint))


def _of(reason: ErrorReason.ValueType, name: str, endpoint: str | None) -> str:
    check, remedy = diagnosis.remedy_of(reason, endpoint)
    return _KEYS.format(name=name) if check == "signature" else remedy


async def _ask(transport: Transport, bucket: Bucket, credentials: CredentialsSource, name: str, now: float) -> _Answer:
    request = presign(read_object(bucket, KEY), credentials.credentials(name), Window.around(now))
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reply = await transport.send(request)
    except (TransportError, TimeoutError) as error:
        return _Answer(None, diagnosis.of_silence(error), by_proxy=isinstance(error, ProxyError))
    except GatewayError as error:
        return _Answer(None, error.message)
    return _read(reply)


def _read(reply: HttpReply) -> _Answer:
    error = refusals.read(reply)
    # A network of caches on the way may take the store's headers away: its code in the body will do.
    if not origin.is_from_cos(reply) and error.facts.code not in refusals.BY_CODE:
        return _Answer(None, f"something else answered in its place (HTTP {reply.status})")
    if refusals.accepted(reply):
        return _Answer(None, f"it answers with an object that cannot be there (HTTP {reply.status})")
    return _Answer(error.reason, error.message)
