"""Delivery of answers, and the faults that change or drop them."""

import asyncio
from collections.abc import Mapping

from aiohttp import web

from docpreview_emulator.documents import list_response
from docpreview_emulator.errors import CloudError
from docpreview_emulator.exchange import Answer, Exchange, refusal
from docpreview_emulator.faults import Fault, Kind

OK = 200
_DRIPS = 10
_GARBAGE = b"<html><head><title>502 Bad Gateway</title><body><h1>nginx</h1><hr>"
DROPPED = {Kind.DROP_BEFORE, Kind.DROP_AFTER}


def answer_without_processing(exchange: Exchange, fault: Fault | None) -> Answer | None:
    """The answer of a fault that prevents the request from being carried out, or None when it is carried out."""
    if fault is None or fault.accepted:
        return None
    if fault.kind is Kind.DROP_BEFORE:
        return Answer()
    return _error(exchange, fault) if fault.kind in {Kind.THROTTLE, Kind.ERROR} else None


def faulty_answer(exchange: Exchange, answer: Answer, fault: Fault | None) -> Answer:
    """The answer to a request that was carried out, changed by its fault."""
    if fault is not None and fault.kind is Kind.EMPTY_PAGE and answer.status == OK:
        # Another text of the same position, so that a client can tell that it gets on.
        return Answer(body=list_response((), "0" + (exchange.param("nextToken") or "")))
    if fault is not None and fault.kind is Kind.GARBAGE:
        return Answer(200, _GARBAGE, job_id=answer.job_id)
    if fault is not None and fault.accepted and fault.kind in {Kind.THROTTLE, Kind.ERROR}:
        changed = _error(exchange, fault)
        changed.job_id = answer.job_id
        return changed
    return answer


def _error(exchange: Exchange, fault: Fault) -> Answer:
    answer = refusal(exchange, CloudError(fault.status, fault.code, fault.message))
    if fault.retry_after is not None:
        answer.headers["Retry-After"] = f"{fault.retry_after:g}"
    return answer


async def deliver(
    request: web.Request, answer: Answer, headers: Mapping[str, str], fault: Fault | None
) -> web.StreamResponse:
    """Send the answer; a dropping fault closes the connection instead, before it or in its middle."""
    if fault is not None and fault.kind in DROPPED:
        _abort(request)
        return web.Response()
    if fault is not None and fault.kind in {Kind.TRUNCATE, Kind.DRIP}:
        return await _piecewise(request, answer, headers, fault)
    return web.Response(status=answer.status, body=answer.body, headers=headers)


async def _piecewise(
    request: web.Request, answer: Answer, headers: Mapping[str, str], fault: Fault
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=headers)
    if "Content-Length" not in response.headers:  # an answer to HEAD has that of the object
        response.content_length = len(answer.body)
    await response.prepare(request)
    if fault.kind is Kind.TRUNCATE:
        await response.write(answer.body[: len(answer.body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response
    size = max(len(answer.body) // _DRIPS, 1)
    for start in range(0, len(answer.body), size):
        await asyncio.sleep(fault.seconds / _DRIPS)
        await response.write(answer.body[start : start + size])
    await response.write_eof()
    return response


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
