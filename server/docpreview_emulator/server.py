"""HTTP server: recording, fault injection, signature check and routing of requests to cloud hosts."""

import asyncio
import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from docpreview_emulator.backend import Backend
from docpreview_emulator.clock import http_date
from docpreview_emulator.cors import cors_headers, preflight
from docpreview_emulator.delivery import DROPPED, answer_without_processing, deliver, faulty_answer
from docpreview_emulator.errors import CloudError, StorageError
from docpreview_emulator.exchange import OBJECT_PREFIX, Answer, Exchange, read_exchange, refusal
from docpreview_emulator.faults import Fault, Kind, Operation
from docpreview_emulator.guard import Guard
from docpreview_emulator.hosts import Service
from docpreview_emulator.recording import (
    MOST_REPLY,
    RequestRecord,
    masked_body,
    masked_headers,
    masked_query,
    masked_text,
)
from docpreview_emulator.routes_control import control_routes
from docpreview_emulator.routes_jobs import MAX_BODY, JobRoutes, operation_of, read_body
from docpreview_emulator.routes_objects import ObjectRoutes
from docpreview_emulator.routes_page import page_routes
from docpreview_emulator.signatures import Policy, Signable, verify

_log = logging.getLogger(__name__)
_TOKEN_HEADERS = {
    Service.CI: ("x-ci-security-token", "x-cos-security-token"),
    Service.COS: ("x-cos-security-token",),
}


def application(backend: Backend, guard: Guard | None) -> web.Application:
    """The web application: cloud hosts go to the cloud's routes, any other host sees the page and `/_emulator/`.

    Without a guard, as in tunnels, and for clients that take the emulator for a proxy there are cloud hosts only.
    """
    cloud_handler = _CloudHandler(backend)

    @web.middleware
    async def by_host(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "CONNECT":
            return _no_tunnel()
        exchange = read_exchange(request)
        try:
            if exchange is not None:
                return await cloud_handler.serve(exchange)
            is_proxied = not request.raw_path.startswith(("/", "*"))
            refused = _no_cloud() if guard is None or is_proxied else guard.refusal(request)
            return refused or await handler(request)
        except ConnectionResetError:
            _log.info("%s %s%s: client disconnected", request.method, request.host, request.path)
            return web.Response()

    app = web.Application(middlewares=[by_host], client_max_size=MAX_BODY)
    if guard is not None:
        app.add_routes(control_routes(backend))
        app.add_routes(page_routes(backend))
    return app


def http_log() -> logging.Logger:
    """A log for the HTTP server that says of a request that cannot be read nothing but that: it may have secrets."""
    log = logging.getLogger(f"{__name__}.http")
    log.addFilter(_without_bytes)
    return log


def _without_bytes(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.levelno, record.levelname, record.exc_info = logging.INFO, "INFO", None
        record.msg, record.args = "a request that is no HTTP: %s", (type(error).__name__,)
    return True


def _no_cloud() -> web.Response:
    text = (
        "This is not a host of the cloud, and the emulator is a proxy to nothing else. Name other hosts in NO_PROXY.\n"
    )
    return web.Response(status=403, text=text)


def _no_tunnel() -> web.Response:
    text = "CONNECT is answered as the first request of a connection without TLS: name the proxy as http://.\n"
    response = web.Response(status=501, text=text)
    response.force_close()
    return response


class _CloudHandler:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._jobs = JobRoutes(backend)
        self._objects = ObjectRoutes(backend)

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer one request to a cloud host."""
        record = self._record(exchange)
        answer, fault = await self._answer(exchange, record)
        record.job_id, record.error_code = answer.job_id, answer.error_code
        record.fault = None if fault is None else fault.kind
        if fault is None or fault.kind not in DROPPED:
            record.status = answer.status
            record.reply = _reply(answer)
        said = f"{record.status} {record.fault or record.error_code or ''}".rstrip()
        _log.info("%s %s%s: %s", exchange.method, exchange.host, exchange.path, said)
        return await deliver(exchange.source, answer, self._headers(exchange, answer), fault)

    def _record(self, exchange: Exchange) -> RequestRecord:
        record = RequestRecord(
            time=self._backend.clock.now(),
            operation=_operation(exchange),
            method=exchange.method,
            host=exchange.host,
            path=exchange.path,
            query=masked_query(exchange.query),
            headers=masked_headers(exchange.headers),
        )
        self._backend.recorder.add(record)
        return record

    async def _delay(self, operation: Operation) -> Fault | None:
        """Wait for the latencies of this request; return its other fault, if any."""
        faults = self._backend.faults.take(operation)
        await asyncio.sleep(sum(fault.seconds for fault in faults if fault.kind is Kind.LATENCY))
        return next((fault for fault in faults if fault.kind is not Kind.LATENCY), None)

    async def _answer(self, exchange: Exchange, record: RequestRecord) -> tuple[Answer, Fault | None]:
        fault, body = None, b""
        try:
            # Read before any delay: a slow cloud carries out a request even if its client has disconnected.
            if exchange.cloud.service is Service.CI:
                body = await read_body(exchange.source)
                record.body = masked_body(body)
            fault = await self._delay(_operation(exchange))
            answer = answer_without_processing(exchange, fault)
            if answer is not None:
                return answer, fault
            answer = await self._carry_out(exchange, record, body)
        except CloudError as error:
            answer = refusal(exchange, error)
        except StorageError as error:
            _log.error("%s %s: %s", exchange.method, exchange.path, error)
            answer = refusal(exchange, CloudError(500, "InternalError", str(error)))
        return faulty_answer(exchange, answer, fault), fault

    async def _carry_out(self, exchange: Exchange, record: RequestRecord, body: bytes) -> Answer:
        is_object = exchange.cloud.service is Service.COS
        if is_object and exchange.method == "OPTIONS":
            return preflight(exchange, self._backend.settings.cors_origins)
        self._verify(exchange, record)
        return await self._objects.answer(exchange) if is_object else self._jobs.answer(exchange, body)

    def _verify(self, exchange: Exchange, record: RequestRecord) -> None:
        authorization = exchange.header("authorization")
        signed = Signable(exchange.method, exchange.path, exchange.params, exchange.headers, authorization)
        backend, token_headers = self._backend, _TOKEN_HEADERS[exchange.cloud.service]
        now, tolerance = backend.clock.now(), backend.settings.skew_tolerance
        try:
            verify(signed, Policy(backend.credentials, now, tolerance, token_headers))
        except CloudError as error:
            record.signature = f"{error.code}: {error.message}"
            raise
        record.signature = "signature valid"

    def _headers(self, exchange: Exchange, answer: Answer) -> dict[str, str]:
        service = exchange.cloud.service
        origins = self._backend.settings.cors_origins if service is Service.COS else ()
        return {
            "Server": f"tencent-{service.value}",
            f"x-{service.value}-request-id": exchange.request_id,
            "Date": http_date(self._backend.clock.now()),
            "Content-Type": answer.content_type,
            **cors_headers(exchange, origins),
            **answer.headers,
            **_confinement(exchange, answer),
        }


def _confinement(exchange: Exchange, answer: Answer) -> dict[str, str]:
    """Headers that keep scripts in objects away from the emulator's page, which browsers open at the same address."""
    if not exchange.source.raw_path.startswith(OBJECT_PREFIX):
        return {}
    # Browsers show no PDF in a sandbox; it has no access to the page anyway.
    sandbox = {} if answer.content_type == "application/pdf" else {"Content-Security-Policy": "sandbox"}
    return {"X-Content-Type-Options": "nosniff", **sandbox}


def _reply(answer: Answer) -> str:
    """The text of an answer, unless it is an object."""
    return "" if answer.is_object else masked_text(answer.body[:MOST_REPLY].decode(errors="replace"))


def _operation(exchange: Exchange) -> Operation:
    return Operation.OBJECT if exchange.cloud.service is Service.COS else operation_of(exchange)
