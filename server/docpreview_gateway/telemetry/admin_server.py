"""The admin port: metrics and health over HTTP, away from the callers' port."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol, TypeAlias
from urllib.parse import urlsplit

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from docpreview_gateway.telemetry.bounded_http import BoundedServer, Handler
from docpreview_gateway.telemetry.readiness import LISTEN, SERVER, readiness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from prometheus_client import CollectorRegistry

    from docpreview_gateway.telemetry.readiness import Dependency

NOT_LISTENING = "the gRPC port is not listening"

STOP_SECONDS = 1.0
"""Grace for requests that run when the port is closed. With the library's own minute a probe could delay every stop."""

_METHODS = ("GET", "HEAD")
_MISDIRECTED = (
    "the admin port does not know itself by this name: ask by its IP address, or add the name to admin_hosts\n"
)


_NOT_FOUND = (
    "nothing is here: there are the operator page at /, /metrics, /healthz, /readyz, "
    "and with the setting admin_debug /debug\n"
)

Text: TypeAlias = "Callable[[Mapping[str, str]], Awaitable[bytes]]"
"""A plain text for the query of a request, made for each request."""


class Pages(Protocol):
    """Pages of HTML, rendered for each request."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Their HTTP headers."""
        ...

    async def html(self, path: str, query: Mapping[str, str]) -> str | None:
        """The page of this path as it is now; None when there is none."""
        ...


@asynccontextmanager
async def admin_server(  # noqa: PLR0913 - what is served, named by wiring
    host: str,
    port: int,
    *,
    registry: CollectorRegistry,
    unready: Callable[[], str | None],
    unhealthy: Callable[[], Awaitable[str | None]] | None = None,
    dependencies: Callable[[], Mapping[str, Dependency]] = dict,
    refresh: Callable[[], Awaitable[None]] | None = None,
    pages: Pages | None = None,
    texts: Mapping[str, Text] | None = None,
    hosts: Sequence[str] = (),
    listen: str = "",
) -> AsyncIterator[int]:
    """A server of `/metrics` in the requested format, `/healthz`, `/readyz`, and what `pages` and `texts` have.

    `host` may be the path of a Unix socket. Yields the port, which differs from `port` when that is 0. OSError when the
    port is taken. `/readyz` is 503 with the reason that `unready` gives, or because of one of `dependencies`, as
    `readiness` says; `/healthz` with the reason of `unhealthy`, without which it says only that the process lives.
    Every answer says that a gateway gave it, and which address the gateway has for gRPC (`listen`).
    `refresh` is awaited before metrics are read. `texts` has plain texts by path, `pages` answers for all other paths.
    A request by a host name is answered if the name has no dot, is the machine's, `host` or in `hosts`: a browser can
    be made to ask for any other name of a stranger's, and to tell him the answer.
    """

    async def metrics(request: web.BaseRequest) -> web.Response:
        if refresh is not None:
            await refresh()
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def healthz(_request: web.BaseRequest) -> web.Response:
        reason = None if unhealthy is None else await unhealthy()
        return web.Response(text="ok\n") if reason is None else web.Response(status=503, text=f"{reason}\n")

    async def readyz(request: web.BaseRequest) -> web.Response:
        exclude, verbose = request.query.getall("exclude", []), "verbose" in request.query
        answer = readiness(unready(), dependencies(), exclude=exclude, verbose=verbose)
        return web.Response(status=answer.status, text=answer.text)

    handlers: dict[str, Handler] = {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}
    is_path = host.startswith("/")
    named = None if is_path else frozenset((host, socket.gethostname(), *hosts))
    runner = web.ServerRunner(
        BoundedServer(_introduced(_routed(handlers, _others(pages, texts or {}), named), listen)),
        shutdown_timeout=STOP_SECONDS,
    )
    await runner.setup()
    try:
        await (web.UnixSite(runner, host) if is_path else web.TCPSite(runner, host, port)).start()
        yield 0 if is_path else runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _others(pages: Pages | None, texts: Mapping[str, Text]) -> Handler:
    """The handler of texts and pages."""

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path in texts:
            text = await texts[request.path](request.query)
            return web.Response(body=text, content_type="text/plain", charset="utf-8")
        html = None if pages is None else await pages.html(request.path, request.query)
        if pages is None or html is None:
            raise web.HTTPNotFound(text=_NOT_FOUND)
        return web.Response(text=html, headers=pages.headers)

    return answer


def _routed(handlers: Mapping[str, Handler], other: Handler, named: frozenset[str] | None) -> Handler:
    """The handler of all requests: by path, for GET and HEAD, and with `named` only those for a host of ours."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if named is not None and not _is_ours(request.headers.get("Host"), named):
            raise web.HTTPMisdirectedRequest(text=_MISDIRECTED)
        if request.method not in _METHODS:
            raise web.HTTPMethodNotAllowed(request.method, _METHODS)
        return await handlers.get(request.path, other)(request)

    return answer


def _introduced(handler: Handler, listen: str) -> Handler:
    """The handler, whose answers say who gave them."""
    headers = {"Server": SERVER, LISTEN: listen}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(headers)
            raise
        response.headers.update(headers)
        return response

    return answer


def _is_ours(header: str | None, named: frozenset[str]) -> bool:
    """Whether a request with this header Host is meant for the admin port. Browsers always send one."""
    if header is None:
        return True
    try:
        name = urlsplit(f"//{header}").hostname or "."
    except ValueError:
        return False
    return "." not in name or name in named or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        _ = ip_address(name)
    except ValueError:
        return False
    return True
