"""A request to the cloud's hosts, decoded, and its answer."""

import base64
import secrets
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from docpreview_emulator.documents import error_document
from docpreview_emulator.errors import CloudError
from docpreview_emulator.hosts import CloudHost, Service, read_host

OBJECT_PREFIX = "/_emulator/objects/"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request; path, parameters and headers are decoded. `source` streams an object's bytes."""

    method: str
    cloud: CloudHost
    host: str
    path: str
    query: str
    params: list[tuple[str, str]]
    headers: list[tuple[str, str]]
    source: web.Request
    request_id: str

    def header(self, name: str) -> str | None:
        """A header by its lower-case name."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def param(self, name: str) -> str | None:
        """A query parameter; names are case-sensitive."""
        return next((value for key, value in self.params if key == name), None)


def read_exchange(request: web.Request) -> Exchange | None:
    """The decoded request to the cloud, or None when its host is not one of the cloud's.

    Three forms name a cloud host: the `Host` header (the connection goes to the emulator's address), a request in
    proxy form (`GET http://host/path`), and the path `/_emulator/objects/<host>/<key>` that browsers can open.
    """
    target, _, query = request.raw_path.partition("?")
    host = request.headers.get("Host", "")
    if target.startswith(("http://", "https://")):
        host, _, path = target.split("://", 1)[1].partition("/")
        target = "/" + path
    elif target.startswith(OBJECT_PREFIX):
        host, _, path = target.removeprefix(OBJECT_PREFIX).partition("/")
        target = "/" + path
    cloud = read_host(host)
    if cloud is None:
        return None
    headers = [(name, host if name.lower() == "host" else value) for name, value in request.headers.items()]
    path, params = unquote(target, errors="surrogateescape"), parse_qsl(query, keep_blank_values=True)
    return Exchange(request.method, cloud, host, path, query, params, headers, request, new_request_id())


def new_request_id() -> str:
    """An id that looks like the cloud's."""
    return base64.b64encode(secrets.token_hex(14).encode()).decode()


@dataclass(slots=True)
class Answer:
    """An HTTP answer. `job_id` and `is_object` (its body is one) are for the record of requests only."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/xml"
    headers: dict[str, str] = field(default_factory=dict)
    error_code: str | None = None
    job_id: str | None = None
    is_object: bool = False


def refusal(exchange: Exchange, error: CloudError) -> Answer:
    """The cloud's `Error` document, in the form of the request's host."""
    resource = f"{exchange.host}{exchange.path}" if exchange.cloud.service is Service.COS else None
    body = error_document(error.code, error.message, exchange.request_id, resource)
    return Answer(error.status, body, error_code=error.code)
