"""Bounds of concurrent calls in a process, and the pushback for gRPC's retries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest, WatchPreviewJobResponse
from docpreview_gateway.limits.call_limits import CallLimits, Counting
from docpreview_gateway.model.callers import Caller, Rate
from docpreview_gateway.model.errors import GatewayError, LimitReached
from docpreview_gateway.rpc.handlers import Bounds
from tests.fakes.telemetry import FakeTelemetry
from tests.unit.rpc.conftest import REQUEST, error_info, switchboard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.model.call import Call

ANSWER = PreviewJob(job_id="d1").SerializeToString()


class Hanging:
    """Use-cases that wait for `go`."""

    def __init__(self, expected: int) -> None:
        self.go = asyncio.Event()
        self.all_there = asyncio.Event()
        self._missing = expected

    async def answer(self, _request: GetPreviewJobRequest, _call: Call) -> PreviewJob:
        await self._hang()
        return PreviewJob(job_id="d1")

    async def watch(self, _request: object, _call: Call) -> AsyncIterator[WatchPreviewJobResponse]:
        await self._hang()
        yield WatchPreviewJobResponse()

    async def _hang(self) -> None:
        self._missing -= 1
        if not self._missing:
            self.all_there.set()
        await self.go.wait()


class RefuseAll:
    """A gate that lets no call pass."""

    async def enter(self, caller: Caller, method: str) -> None:
        raise LimitReached(r.ERROR_REASON_RATE_LIMITED, f"no {method}", subject=f"caller:{caller.name}", retry_after=1)

    def leave(self, caller: Caller) -> None:
        raise AssertionError(f"{caller.name} never entered")


def pushback(error: grpc.aio.AioRpcError) -> str | bytes | None:
    return dict(error.trailing_metadata()).get("grpc-retry-pushback-ms")


async def drained(stream: grpc.aio.UnaryStreamCall[bytes, bytes]) -> list[bytes]:
    return [reply async for reply in stream]


async def test_calls_beyond_the_bound_are_rejected_immediately() -> None:
    """With OVERLOADED and a pushback; calls are accepted again after the others end."""
    hanging = Hanging(2)
    async with switchboard(hanging.answer, bounds=Bounds(calls=2, waits=1)) as board:
        taken = [board.get() for _ in range(2)]
        waiting = [asyncio.ensure_future(call) for call in taken]
        await hanging.all_there.wait()
        begin = asyncio.get_running_loop().time()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await board.get()
        assert asyncio.get_running_loop().time() - begin < 0.5
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert error_info(caught.value).reason == "OVERLOADED"
        assert pushback(caught.value) == "300"
        hanging.go.set()
        assert await asyncio.gather(*waiting) == [ANSWER] * 2
        assert await board.get() == ANSWER


async def test_watches_beyond_their_bound_are_rejected() -> None:
    """Waits and watches have a bound of their own."""
    hanging = Hanging(1)
    async with switchboard(hanging.watch, bounds=Bounds(calls=1, waits=1)) as board:
        first = asyncio.ensure_future(drained(board.watch()))
        await hanging.all_there.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drained(board.watch())
        assert error_info(caught.value).reason == "OVERLOADED"
        hanging.go.set()
        assert len(await first) == 1


async def test_watches_at_their_bound_do_not_block_other_calls() -> None:
    """The two bounds are separate."""
    hanging = Hanging(1)
    async with switchboard(hanging.watch, bounds=Bounds(calls=1, waits=1)) as board:
        first = asyncio.ensure_future(drained(board.watch()))
        await hanging.all_there.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await board.get()
        assert error_info(caught.value).reason == "INTERNAL"  # the use-case is a stream: the call was admitted
        hanging.go.set()
        await first


@pytest.mark.parametrize(("jitter", "expected"), [(0.0, "1600"), (0.5, "2000"), (1.0, "2400")])
@pytest.mark.parametrize("method", ["get", "watch"])
async def test_retry_after_is_sent_as_pushback_with_jitter(method: str, jitter: float, expected: str) -> None:
    """Of a fifth."""

    def use_case(_request: object, _call: Call) -> Any:
        raise GatewayError(r.ERROR_REASON_SHUTTING_DOWN, "again", retry_after=2.0)

    async with switchboard(use_case, jitter=jitter) as board:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (board.get() if method == "get" else drained(board.watch(REQUEST)))
        assert pushback(caught.value) == expected


@pytest.mark.parametrize(("reason", "expected"), [("CREATE_OUTCOME_UNKNOWN", None), ("JOB_NOT_FOUND", "-1")])
async def test_an_error_without_retry_after_has_a_pushback_only_where_no_repetition_helps(
    reason: str, expected: str | None
) -> None:
    """It then stops gRPC's own retries."""

    async def use_case(_request: object, _call: Call) -> PreviewJob:
        raise GatewayError(r.ErrorReason.Value(f"ERROR_REASON_{reason}"), "none")

    async with switchboard(use_case) as board:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await board.get()
        assert pushback(caught.value) == expected


@pytest.mark.parametrize(
    ("reason", "wait"),
    [("RATE_LIMITED", 20.0), ("PAGE_BUDGET_EXHAUSTED", 0.1), ("PAGE_BUDGET_TOO_SMALL", None)],
    ids=["longer than the deadline", "later", "never"],
)
async def test_a_wait_beyond_the_deadline_or_a_limit_of_a_day_stops_grpcs_retries(
    reason: str, wait: float | None
) -> None:
    """By a pushback of -1; RetryInfo still has the wait, if there is one."""

    async def use_case(_request: object, _call: Call) -> PreviewJob:
        value = r.ErrorReason.Value(f"ERROR_REASON_{reason}")
        raise LimitReached(value, "no", subject="caller:a", retry_after=wait)

    async with switchboard(use_case) as board:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await board.get(timeout=5)
        assert pushback(caught.value) == "-1"
        assert error_info(caught.value).reason == reason


async def test_calls_over_a_callers_limits_are_rejected_before_decoding() -> None:
    """Calls that ended free their permits."""
    gate = CallLimits(Counting(), FakeTelemetry())
    caller = Caller("a", rate=Rate(0.001, 3), concurrency=1)
    hanging = Hanging(1)
    async with switchboard(hanging.answer, gate=gate, anonymous=caller) as board:
        first = asyncio.ensure_future(board.get())
        await hanging.all_there.wait()
        reasons = []
        for _ in range(4):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await board.get(b"not a message")
            reasons.append(error_info(caught.value).reason)
            if not hanging.go.is_set():
                hanging.go.set()
                await first
        assert reasons == ["CONCURRENCY_LIMITED", "MALFORMED_MESSAGE", "MALFORMED_MESSAGE", "RATE_LIMITED"]


@pytest.mark.parametrize("method", ["get", "watch"])
async def test_gate_that_was_not_there_at_the_start(method: str) -> None:
    """Whether calls pass a gate is decided once, when the handlers are made, for unary and streaming calls alike."""
    hanging = Hanging(1)
    hanging.go.set()
    async with switchboard(hanging.answer if method == "get" else hanging.watch) as board:
        board.handlers.gate = RefuseAll()
        answers = [await board.get()] if method == "get" else await drained(board.watch())
        assert len(answers) == 1


@pytest.mark.parametrize("method", ["get", "watch"])
async def test_gate_that_lets_nobody_pass(method: str) -> None:
    """It ends unary and streaming calls before their use-case is asked."""
    async with switchboard(Hanging(1).answer if method == "get" else Hanging(1).watch, gate=RefuseAll()) as board:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (board.get() if method == "get" else drained(board.watch()))
        assert error_info(caught.value).reason == "RATE_LIMITED"
