"""The one wrapper around every handler, over real sockets."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import Page, PreviewJob
from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest, WatchPreviewJobResponse
from docpreview_gateway.model.errors import GatewayError, UpstreamError
from docpreview_gateway.rpc.handlers import MAX_SEND_BYTES, Handlers
from tests.fakes.telemetry import FakeTelemetry
from tests.unit.rpc.conftest import REQUEST, error_info, rich, switchboard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview.v1.preview_job_service_pb2 import WatchPreviewJobRequest
    from docpreview_gateway.model.call import Call

SECRET = "canary-4f9d2"
MALFORMED = [b"\xff", b"\x0a\xff\xff\xff\xff\xff", b"\x0a\x03abc\x0a\x02\xff\xfe", b"\x07", bytes(range(256))]


async def answer(request: GetPreviewJobRequest, _call: Call) -> PreviewJob:
    return PreviewJob(job_id=request.job_id)


async def three(request: WatchPreviewJobRequest, _call: Call) -> AsyncIterator[WatchPreviewJobResponse]:
    for number in range(3):
        yield WatchPreviewJobResponse(job=PreviewJob(job_id=request.job_id, job_level=number))


async def error_of(call: Any) -> grpc.aio.AioRpcError:
    """The error with which a unary call or a stream ends."""

    async def ended() -> None:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ended()
    return caught.value


def failing(error: Exception, *, stream: bool) -> Any:
    async def unary(_request: object, _call: Call) -> PreviewJob:
        raise error

    async def streaming(_request: object, _call: Call) -> AsyncIterator[WatchPreviewJobResponse]:
        raise error
        yield WatchPreviewJobResponse()

    return streaming if stream else unary


def hanging(entered: asyncio.Event, left: asyncio.Event, *, stream: bool) -> Any:
    """A use-case that never ends by itself, and says so when it is made to."""

    async def unary(_request: object, _call: Call) -> PreviewJob:
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            left.set()
            raise
        raise AssertionError

    async def streaming(_request: object, call: Call) -> AsyncIterator[WatchPreviewJobResponse]:
        yield WatchPreviewJobResponse()
        await unary(_request, call)

    return streaming if stream else unary


class TestAnswers:
    async def test_a_unary_call_returns_the_use_cases_message(self) -> None:
        """The use-case's message, as bytes."""
        async with switchboard(answer) as board:
            assert PreviewJob.FromString(await board.get()).job_id == "d1"

    async def test_a_stream_returns_the_use_cases_messages_in_order(self) -> None:
        """Its messages, in order."""
        async with switchboard(three) as board:
            found = [WatchPreviewJobResponse.FromString(raw).job.job_level async for raw in board.watch()]
        assert found == [0, 1, 2]

    async def test_a_request_of_no_bytes_is_a_message_with_nothing_set(self) -> None:
        """A request of no bytes is a valid message with nothing set."""
        async with switchboard(answer) as board:
            assert PreviewJob.FromString(await board.get(b"")).job_id == ""

    async def test_message_with_fields_of_a_newer_contract(self) -> None:
        """Unknown fields are let through."""
        async with switchboard(answer) as board:
            assert PreviewJob.FromString(await board.get(REQUEST + b"\xf8\xff\x01\x01")).job_id == "d1"


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
class TestErrors:
    @pytest.mark.parametrize("raw", MALFORMED)
    async def test_a_malformed_message_is_invalid_argument_and_runs_no_use_case(self, raw: bytes, stream: bool) -> None:  # noqa: FBT001
        """INVALID_ARGUMENT in words of ours; the use-case is not asked."""
        async with switchboard(failing(ValueError(), stream=stream)) as board:
            error = await error_of(board.watch(raw) if stream else board.get(raw))
        name = "Watch" if stream else "Get"
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == f"the request is not a valid docpreview.v1.{name}PreviewJobRequest message"
        assert error_info(error).reason == "MALFORMED_MESSAGE"

    async def test_error_of_the_use_case(self, stream: bool) -> None:  # noqa: FBT001
        """Its status, and beside it the ids by which it can be found."""
        known = UpstreamError(r.ERROR_REASON_JOB_NOT_FOUND, "no job d1")
        async with switchboard(failing(known, stream=stream)) as board:
            metadata = (("x-request-id", "mine-1"),)
            error = await error_of(board.watch(metadata=metadata) if stream else board.get(metadata=metadata))
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no job d1")
        assert error_info(error).metadata["request_id"] == "mine-1"
        assert dict(error.trailing_metadata())["x-request-id"] == "mine-1"
        assert board.telemetry.ended == [("WatchPreviewJob" if stream else "GetPreviewJob", "NOT_FOUND")]

    async def test_a_bug_is_internal_with_its_request_id_and_nothing_else(self, stream: bool) -> None:  # noqa: FBT001
        """INTERNAL with the request id and nothing else; the log has the rest."""
        bug = RuntimeError(f"password={SECRET}")
        bug.add_note(SECRET)
        with structlog.testing.capture_logs() as logged:
            async with switchboard(failing(bug, stream=stream)) as board:
                error = await error_of(board.watch() if stream else board.get())
        request_id = error_info(error).metadata["request_id"]
        assert error.code() == grpc.StatusCode.INTERNAL
        assert error.details() == f"internal error; its request id is {request_id}"
        everything = f"{error!r} {error.initial_metadata()} {error.trailing_metadata()} {rich(error)}"
        assert SECRET not in everything
        assert "RuntimeError" not in everything
        (entry,) = logged
        assert (entry["log_level"], entry["request_id"], entry["exc_info"]) == ("error", request_id, bug)

    async def test_code_that_the_contract_does_not_know(self, stream: bool) -> None:  # noqa: FBT001
        """A reply of the wrong kind is a bug like any other."""

        async def unary(_request: object, _call: Call) -> str:
            return SECRET

        async def streaming(_request: object, _call: Call) -> AsyncIterator[str]:
            yield SECRET

        with structlog.testing.capture_logs():
            async with switchboard(streaming if stream else unary) as board:
                error = await error_of(board.watch() if stream else board.get())
        assert error_info(error).reason == "INTERNAL"

    async def test_reply_that_no_client_would_take(self, stream: bool) -> None:  # noqa: FBT001
        """REPLY_TOO_LARGE with advice, instead of an error that the client's library makes up."""
        huge = PreviewJob()
        huge.result.pages.append(Page(url="x" * MAX_SEND_BYTES))

        async def unary(_request: object, _call: Call) -> PreviewJob:
            return huge

        async def streaming(_request: object, _call: Call) -> AsyncIterator[WatchPreviewJobResponse]:
            yield WatchPreviewJobResponse(job=huge)

        async with switchboard(streaming if stream else unary) as board:
            error = await error_of(board.watch() if stream else board.get())
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error_info(error).reason == "REPLY_TOO_LARGE"
        assert "page_url_ttl" in str(error.details())


class TestErrorsInTheMiddle:
    async def test_stream_that_breaks(self) -> None:
        """What came before the error has been delivered."""

        async def breaking(_request: object, _call: Call) -> AsyncIterator[WatchPreviewJobResponse]:
            yield WatchPreviewJobResponse()
            raise GatewayError(r.ERROR_REASON_SHUTTING_DOWN, "stopping", retry_after=1.0)

        async with switchboard(breaking) as board:
            stream = board.watch()
            assert await stream.read() == b""
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            error = caught.value
        assert error_info(error).reason == "SHUTTING_DOWN"
        assert (board.telemetry.sent, board.telemetry.ended) == (
            ["WatchPreviewJob"],
            [("WatchPreviewJob", "UNAVAILABLE")],
        )

    async def test_a_reply_of_exactly_the_limit_arrives(self) -> None:
        """A reply of exactly the limit arrives with a client's default settings."""
        job = PreviewJob()
        job.user_data = "x" * (MAX_SEND_BYTES - 5)
        job.user_data = "x" * (MAX_SEND_BYTES - 5 - (job.ByteSize() - MAX_SEND_BYTES))
        assert job.ByteSize() == MAX_SEND_BYTES

        async def unary(_request: object, _call: Call) -> PreviewJob:
            return job

        async with switchboard(unary) as board:
            assert len(await board.get()) == MAX_SEND_BYTES

    async def test_request_that_is_too_large(self) -> None:
        """It is refused before any of our code sees it."""
        async with switchboard(answer) as board:
            error = await error_of(board.get(REQUEST + b"\x12\x80\x80\x80\x01" + b"x" * 2**21))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert board.telemetry.started == []


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
class TestDeadlines:
    async def test_call_without_one(self, stream: bool) -> None:  # noqa: FBT001
        """The gateway's own limit ends it."""
        entered, left = asyncio.Event(), asyncio.Event()
        async with switchboard(hanging(entered, left, stream=stream), longest=0.1) as board:
            error = await error_of(board.watch() if stream else board.get())
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert error_info(error).reason == "DEADLINE_EXCEEDED"
        assert left.is_set()

    async def test_later_one_than_the_limit(self, stream: bool) -> None:  # noqa: FBT001
        """The limit counts."""
        entered, left = asyncio.Event(), asyncio.Event()
        async with switchboard(hanging(entered, left, stream=stream), longest=0.1) as board:
            error = await error_of(board.watch(timeout=3600) if stream else board.get(timeout=3600))
        assert error_info(error).reason == "DEADLINE_EXCEEDED"

    async def test_one_that_passes(self, stream: bool) -> None:  # noqa: FBT001
        """The use-case is stopped too, not only the caller's wait."""
        entered, left = asyncio.Event(), asyncio.Event()
        async with switchboard(hanging(entered, left, stream=stream)) as board:
            error = await error_of(board.watch(timeout=0.2) if stream else board.get(timeout=0.2))
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            async with asyncio.timeout(5):
                await left.wait()
                await board.handlers.drained(5)
        ((_, code),) = board.telemetry.ended
        assert code in {"DEADLINE_EXCEEDED", "CANCELLED"}


async def test_deadline_that_the_use_case_sees() -> None:
    """The nearer of the caller's and the gateway's."""
    seen: list[float] = []

    async def look(_request: object, call: Call) -> PreviewJob:
        seen.append(call.deadline - asyncio.get_running_loop().time())
        return PreviewJob()

    async with switchboard(look, longest=20) as board:
        for timeout in (None, 5, 3600):
            await board.get(timeout=timeout)
    assert [round(left) for left in seen] == [20, 5, 20]


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_caller_that_cancels(stream: bool) -> None:  # noqa: FBT001
    """The use-case is cancelled, and told as CANCELLED."""
    entered, left = asyncio.Event(), asyncio.Event()
    async with switchboard(hanging(entered, left, stream=stream)) as board:
        call: Any = board.watch() if stream else board.get()
        if stream:
            await call.read()
        async with asyncio.timeout(5):
            await entered.wait()
            call.cancel()
            await left.wait()
            await board.handlers.drained(5)
        assert board.telemetry.ended == [("WatchPreviewJob" if stream else "GetPreviewJob", "CANCELLED")]


async def test_caller_that_cancels_while_it_does_not_read() -> None:
    """A stream that is stuck because nobody reads ends like any other: the use-case is left, and told as CANCELLED."""
    left = asyncio.Event()

    async def flood(_request: object, _call: Call) -> AsyncIterator[WatchPreviewJobResponse]:
        try:
            while True:
                yield WatchPreviewJobResponse(job=PreviewJob(user_data="x" * 100_000))
        finally:
            left.set()

    async with switchboard(flood) as board:
        call = board.watch()
        await call.read()
        async with asyncio.timeout(5):
            while (sent := len(board.telemetry.sent)) == 0 or await _grows(board.telemetry, sent):
                pass
        call.cancel()
        async with asyncio.timeout(5):
            await left.wait()
            await board.handlers.drained(5)
        assert board.telemetry.ended == [("WatchPreviewJob", "CANCELLED")]


async def _grows(telemetry: FakeTelemetry, sent: int) -> bool:
    await asyncio.sleep(0.1)
    return len(telemetry.sent) > sent


class TestMetadata:
    @pytest.mark.parametrize("given", ["a", "A.b_c-1", "x" * 64])
    async def test_request_id_of_the_caller(self, given: str) -> None:
        """It is taken over and sent back."""
        async with switchboard(answer) as board:
            call = board.get(metadata=(("x-request-id", given),))
            await call
            assert dict(await call.trailing_metadata())["x-request-id"] == given

    @pytest.mark.parametrize("given", [None, "", "x" * 65, "has space", "semi;colon", 'quo"te', "a/b"])
    async def test_request_id_that_is_none(self, given: str | None) -> None:
        """What is missing or could upset a log is replaced by an id of ours."""
        metadata = () if given is None else (("x-request-id", given),)
        async with switchboard(answer) as board:
            call = board.get(metadata=metadata)
            await call
            assert re.fullmatch("[0-9a-f]{16}", str(dict(await call.trailing_metadata())["x-request-id"]))

    async def test_first_usable_request_id(self) -> None:
        """Of several the first good one counts."""
        async with switchboard(answer) as board:
            call = board.get(metadata=(("x-request-id", "b a d"), ("other", "x"), ("x-request-id", "good")))
            await call
            assert dict(await call.trailing_metadata())["x-request-id"] == "good"

    async def test_what_the_call_learned(self) -> None:
        """The cloud's request id and how the cache helped; nothing where nothing is known."""

        async def learn(_request: object, call: Call) -> PreviewJob:
            call.response.upstream_request_id = "cloud-1"
            call.response.cache = "miss"
            return PreviewJob()

        async with switchboard(learn) as board:
            call = board.get()
            await call
            found = dict(await call.trailing_metadata())
            assert (found["x-upstream-request-id"], found["x-cache"]) == ("cloud-1", "miss")
        async with switchboard(answer) as board:
            call = board.get()
            await call
            assert {"x-upstream-request-id", "x-cache"}.isdisjoint(dict(await call.trailing_metadata()))

    async def test_a_stream_sends_its_request_id_before_its_messages(self) -> None:
        """The request id comes at once, the rest with the end."""
        async with switchboard(three) as board:
            call = board.watch(metadata=(("x-request-id", "mine"),))
            assert dict(await call.initial_metadata())["x-request-id"] == "mine"
            assert len([raw async for raw in call]) == 3
            assert dict(await call.trailing_metadata())["x-request-id"] == "mine"


class TestTelemetry:
    async def test_a_unary_call_is_counted_once_with_its_code(self) -> None:
        """Started once, ended with its code, which says that a message was sent."""
        async with switchboard(answer) as board:
            await board.get()
            await board.handlers.drained(5)
        assert (board.telemetry.started, board.telemetry.ended) == (["GetPreviewJob"], [("GetPreviewJob", "OK")])

    async def test_every_message_of_a_stream_is_counted(self) -> None:
        """Every message counts."""
        async with switchboard(three) as board:
            assert len([raw async for raw in board.watch()]) == 3
            await board.handlers.drained(5)
        found = (board.telemetry.started, board.telemetry.sent, board.telemetry.ended)
        assert found == (["WatchPreviewJob"], ["WatchPreviewJob"] * 3, [("WatchPreviewJob", "OK")])


class TestAtOnce:
    async def test_answer_at_hand(self) -> None:
        """It is sent, and the use-case that may wait is not asked."""

        def fast_path(request: GetPreviewJobRequest, call: Call) -> bytes:
            call.response.cache = "hit"
            return PreviewJob(job_id=f"kept {request.job_id}").SerializeToString()

        async with switchboard(failing(ValueError(), stream=False), fast_path=fast_path) as board:
            call = board.get()
            assert PreviewJob.FromString(await call).job_id == "kept d1"
            assert ("x-cache", "hit") in tuple(await call.trailing_metadata())

    async def test_nothing_at_hand(self) -> None:
        """The use-case is asked."""
        async with switchboard(answer, fast_path=lambda _request, _call: None) as board:
            assert PreviewJob.FromString(await board.get()).job_id == "d1"

    async def test_an_error_at_once_is_returned_like_any_other(self) -> None:
        """It is told like any other."""

        def fast_path(_request: GetPreviewJobRequest, _call: Call) -> bytes:
            raise GatewayError(r.ERROR_REASON_JOB_NOT_FOUND, "no job d1")

        async with switchboard(answer, fast_path=fast_path) as board:
            assert error_info(await error_of(board.get())).reason == "JOB_NOT_FOUND"


class TestDrained:
    async def test_a_drain_without_running_calls_ends_at_once(self) -> None:
        """At once."""
        await Handlers(FakeTelemetry()).drained(60)

    async def test_handler_that_is_aborted_by_the_stop(self) -> None:
        """Handlers that the server's stop cancels are waited for while they clean up."""
        entered, cleaned = asyncio.Event(), asyncio.Event()

        async def slow_to_leave(_request: object, _call: Call) -> PreviewJob:
            entered.set()
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.1)
                cleaned.set()
            return PreviewJob()

        async with switchboard(slow_to_leave) as board:
            call = asyncio.ensure_future(error_of(board.get()))
            await entered.wait()
            await board.server.stop(0)
            await board.handlers.drained(5)
            assert cleaned.is_set()
            assert (await call).code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

    async def test_handler_that_does_not_leave(self) -> None:
        """Waiting has an end."""
        entered, left = asyncio.Event(), asyncio.Event()
        async with switchboard(hanging(entered, left, stream=False)) as board:
            call = asyncio.ensure_future(error_of(board.get()))
            await entered.wait()
            await board.handlers.drained(0.01)
            assert not left.is_set()
            call.cancel()
