"""The log of calls, and the audit log of creates and uploads.

Lines are JSON objects. Lines of calls are buffered for a tenth of a second and written together: written one by one
they would cost more than all other telemetry of a call. Lines of audits are written at once. In a terminal both look
like other log lines.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import orjson
import structlog

from docpreview_gateway.model.errors import SERVER_ERROR_CODES, echo

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.model.call import Call, Clock, Method
    from docpreview_gateway.uploads.ports import UploadFacts

FLUSH_SECONDS = 0.1
MOST_LINES = 1000
"""Most lines in the buffer."""


class CallLog:
    """The log of ended calls, and the ports `AuditLog` and `UploadLog`.

    `calls` selects which calls have a line; creates and uploads whose request was read always have one. With
    `as_json` False structlog formats the lines. Lines hold the caller's name in the configuration and ids, never an
    object's key, a token or a signed address.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        calls: Literal["all", "errors", "off"] = "all",
        as_json: bool = True,
        stream: Callable[[], BinaryIO] = lambda: sys.stderr.buffer,
    ) -> None:
        self._clock = clock
        self._calls = calls
        self._as_json = as_json
        self._stream = stream
        self._ended: list[tuple[float, Method, Call, str, float]] = []

    def call_ended(self, method: Method, call: Call, code: str, seconds: float) -> None:
        """Log a call: caller, method, status, reason, duration, ids; the rule of the policy that refused it."""
        if self._calls == "off" or (self._calls == "errors" and code == "OK"):
            return
        ended = (self._clock.now(), method, call, code, seconds)
        if not self._as_json:
            _show(_entry(*ended))
            return
        if not self._ended:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        self._ended.append(ended)
        if len(self._ended) >= MOST_LINES:
            self.flush()

    def create_ended(self, request: CreatePreviewJobRequest, call: Call, outcome: str, job_id: str) -> None:
        """Log a create as an audit line, before anything else may happen."""
        entry: dict[str, object] = {
            "timestamp": _moment(self._clock.now()),
            "level": "info",
            "event": "create",
            "caller": call.caller.name,
            "bucket": echo(request.bucket),
            "input_object_sha256": _digest(request.input_object),
            "output_bucket": echo(request.output.bucket or request.bucket),
            "idempotency_key_sha256": _digest(request.request_id),
            "outcome": outcome,
            "job_id": job_id,
            "cache": call.response.cache,
            "upstream_request_id": call.response.upstream_request_id,
            "request_id": call.request_id,
        }
        self._audit(entry, call)

    def upload_ended(
        self, stage: Literal["create", "complete", "abort"], call: Call, outcome: str, facts: UploadFacts
    ) -> None:
        """Log a call about an upload as an audit line. `input_object_sha256` is that of the creates of its object."""
        entry: dict[str, object] = {
            "timestamp": _moment(self._clock.now()),
            "level": "info",
            "event": "upload",
            "stage": stage,
            "caller": call.caller.name,
            "bucket": echo(facts.bucket),
            "input_object_sha256": _digest(facts.object),
            "upload_id": facts.upload_id,
            "content_length": facts.content_length,
            "outcome": outcome,
            "upstream_request_id": call.response.upstream_request_id,
            "request_id": call.request_id,
        }
        self._audit(entry, call)

    def _audit(self, entry: dict[str, object], call: Call) -> None:
        if call.response.rule:
            entry["rule"] = call.response.rule
        if self._as_json:
            self.flush()
            self._write(_line(entry))
        else:
            _show(entry)

    def flush(self) -> None:
        """Write the buffered lines."""
        ended, self._ended = self._ended, []
        if ended:
            self._write(b"".join(_line(_entry(*each)) for each in ended))

    def _write(self, lines: bytes) -> None:
        """Errors of the stream lose the lines: logs never stop the gateway."""
        with suppress(OSError, ValueError):
            stream = self._stream()
            stream.write(lines)
            stream.flush()


def _entry(now: float, method: Method, call: Call, code: str, seconds: float) -> dict[str, object]:
    entry: dict[str, object] = {
        "timestamp": _moment(now),
        "level": "warning" if code in SERVER_ERROR_CODES else "info",
        "event": "call",
        "caller": call.caller.name,
        "method": method.name,
        "code": code,
        "reason": call.response.reason,
        "duration_ms": round(1000 * seconds, 3),
        "cache": call.response.cache,
        "upstream_request_id": call.response.upstream_request_id,
        "request_id": call.request_id,
    }
    if call.response.rule:
        entry["rule"] = call.response.rule
    if call.trace is not None:
        entry["trace_id"] = call.trace.trace_id
    return entry


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC)


def _line(entry: dict[str, object]) -> bytes:
    return orjson.dumps(entry, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def _show(entry: dict[str, object]) -> None:
    shown = {key: value for key, value in entry.items() if key not in {"timestamp", "level", "event"} and value}
    structlog.get_logger("docpreview_gateway.calls").log(
        {"info": 20, "warning": 30}[str(entry["level"])], entry["event"], **shown
    )


def _digest(text: str) -> str:
    """A short hash, enough to compare two lines."""
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""
