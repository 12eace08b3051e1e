"""Lines for calls and creates."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import Any, Literal

import pytest
import structlog

from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.model.call import Call, Method, ResponseInfo
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.model.trace_context import Trace
from docpreview_gateway.telemetry.call_log import FLUSH_SECONDS, MOST_LINES, CallLog
from docpreview_gateway.uploads.ports import UploadFacts
from tests.fakes.clock import FakeClock

METHOD = Method("docpreview.v1.PreviewJobService", "GetPreviewJob", "unary")
REQUEST = CreatePreviewJobRequest(bucket="docs-1250000000", input_object="secret/plan.pdf", request_id="order-7")
REQUEST.options.password = "CANARY"
REQUEST.output.bucket = "previews-1250000000"


class Stream(io.BytesIO):
    """Remembers what was written, and how often; or is broken."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.writes = 0
        self.error = error
        self.written = asyncio.Event()

    def write(self, data: Any, /) -> int:
        self.writes += 1
        self.written.set()
        if self.error is not None:
            raise self.error
        return super().write(data)

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


def call_log(stream: Stream, calls: Literal["all", "errors", "off"] = "all") -> CallLog:
    return CallLog(FakeClock(1_700_000_000.25), calls=calls, stream=lambda: stream)


async def test_a_refused_call_names_the_rule_of_the_policy() -> None:
    """Other calls have no such field."""
    log = call_log(stream := Stream())
    for rule in ("callers.desk.methods", ""):
        log.call_ended(METHOD, Call("r1", 0, response=ResponseInfo(rule=rule)), "PERMISSION_DENIED", 0.1)
    log.flush()
    assert [entry.get("rule") for entry in stream.entries()] == ["callers.desk.methods", None]


async def test_a_call_is_one_line_with_all_that_an_operator_asks_of_it() -> None:
    """What an operator asks of a call stands in one line."""
    log = call_log(stream := Stream())
    trace = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=False)
    call = Call("r1", 0, Caller("billing"), trace=trace, response=ResponseInfo("miss", "NjU=", reason="INTERNAL"))
    log.call_ended(METHOD, call, "INTERNAL", 0.0123456)
    log.flush()
    assert stream.entries() == [
        {
            "timestamp": "2023-11-14T22:13:20.250000Z",
            "level": "warning",
            "event": "call",
            "caller": "billing",
            "method": "GetPreviewJob",
            "code": "INTERNAL",
            "reason": "INTERNAL",
            "duration_ms": 12.346,
            "cache": "miss",
            "upstream_request_id": "NjU=",
            "request_id": "r1",
            "trace_id": trace.trace_id,
        }
    ]


@pytest.mark.parametrize(("code", "level"), [("OK", "info"), ("NOT_FOUND", "info"), ("UNAVAILABLE", "warning")])
async def test_a_failure_that_may_be_ours_is_a_warning_and_a_callers_is_not(code: str, level: str) -> None:
    """What may be our fault is a warning; what is the caller's is not."""
    log = call_log(stream := Stream())
    log.call_ended(METHOD, Call("r1", 0), code, 0)
    log.flush()
    assert [entry["level"] for entry in stream.entries()] == [level]


@pytest.mark.parametrize(("calls", "codes"), [("all", ["OK", "ABORTED"]), ("errors", ["ABORTED"]), ("off", [])])
async def test_the_setting_selects_the_logged_calls_and_creates_always_are(
    calls: Literal["all", "errors", "off"], codes: list[str]
) -> None:
    """All, those that failed, or none; creates are there in any case."""
    log = call_log(stream := Stream(), calls)
    for code in ("OK", "ABORTED"):
        log.call_ended(METHOD, Call("r1", 0), code, 0)
    log.create_ended(REQUEST, Call("r1", 0), "OK", "d1")
    entries = stream.entries()
    assert [entry["code"] for entry in entries if entry["event"] == "call"] == codes
    assert entries[-1]["event"] == "create"


async def test_lines_are_gathered() -> None:
    """Many lines are one write, soon; too many do not wait."""
    log = call_log(stream := Stream())
    for _ in range(MOST_LINES - 1):
        log.call_ended(METHOD, Call("r1", 0), "OK", 0)
    assert stream.writes == 0
    log.call_ended(METHOD, Call("r1", 0), "OK", 0)
    assert (stream.writes, len(stream.entries())) == (1, MOST_LINES)
    stream.written.clear()
    log.call_ended(METHOD, Call("r1", 0), "OK", 0)
    await asyncio.wait_for(stream.written.wait(), 100 * FLUSH_SECONDS)
    assert len(stream.entries()) == MOST_LINES + 1


async def test_a_create_is_logged_at_once_with_digests_instead_of_names() -> None:
    """Who made which job, written at once; objects and request ids only as digests, passwords not at all."""
    log = call_log(stream := Stream())
    call = Call("r1", 0, Caller("billing"), response=ResponseInfo("hit", "NjU="))
    log.create_ended(REQUEST, call, "OK", "d1")
    (entry,) = stream.entries()
    assert (entry["caller"], entry["bucket"], entry["output_bucket"]) == (
        "billing",
        "docs-1250000000",
        "previews-1250000000",
    )
    assert (entry["outcome"], entry["job_id"], entry["upstream_request_id"], entry["cache"]) == (
        "OK",
        "d1",
        "NjU=",
        "hit",
    )
    assert len(entry["input_object_sha256"]) == len(entry["idempotency_key_sha256"]) == 16
    for secret in (b"plan", b"order-7", b"CANARY"):
        assert secret not in stream.getvalue()


@pytest.mark.parametrize("error", [BlockingIOError(), BrokenPipeError(), ValueError("closed")])
async def test_stream_that_takes_nothing(error: Exception) -> None:
    """Lines are lost; the call is not."""
    log = call_log(stream := Stream(error))
    log.create_ended(REQUEST, Call("r1", 0), "OK", "d1")
    assert stream.writes == 1


async def test_a_line_on_a_terminal_is_readable_and_leaves_out_empty_fields() -> None:
    """Shown as other lines are, without what is empty."""
    out = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.dev.ConsoleRenderer(colors=False)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(out),
    )
    try:
        log = CallLog(FakeClock(0.0), as_json=False)
        log.call_ended(METHOD, Call("r1", 0, Caller("billing")), "OK", 0.002)
    finally:
        structlog.reset_defaults()
    assert "caller=billing" in out.getvalue()
    assert "duration_ms=2.0" in out.getvalue()
    assert "reason" not in out.getvalue()


async def test_an_upload_is_one_line_with_the_digest_that_its_creates_have() -> None:
    """Written at once, without the object's key."""
    log = call_log(stream := Stream())
    call = Call("r1", 0, Caller("shop"), response=ResponseInfo(upstream_request_id="NjU=", rule="callers.shop.uploads"))
    facts = UploadFacts(REQUEST.bucket, REQUEST.input_object, "0f", 7)
    log.upload_ended("complete", call, "NOT_PERMITTED", facts)
    log.create_ended(REQUEST, call, "OK", "d1")
    upload, create = stream.entries()
    assert upload == {
        "timestamp": "2023-11-14T22:13:20.250000Z",
        "level": "info",
        "event": "upload",
        "stage": "complete",
        "caller": "shop",
        "bucket": "docs-1250000000",
        "input_object_sha256": create["input_object_sha256"],
        "upload_id": "0f",
        "content_length": 7,
        "outcome": "NOT_PERMITTED",
        "upstream_request_id": "NjU=",
        "request_id": "r1",
        "rule": "callers.shop.uploads",
    }
    assert b"plan.pdf" not in stream.getvalue()
