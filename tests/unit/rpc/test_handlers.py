"""The wrapper around every handler, over real sockets."""

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
from docpreview_gateway.model.call import MAX_REPLY_BYTES
from docpreview_gateway.model.errors import GatewayError, UpstreamError, UpstreamFacts
from docpreview_gateway.rpc.handlers import Bounds, Handlers
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
    """A use-case that runs until it is cancelled, and records that."""

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
        """As bytes."""
        async with switchboard(answer) as board:
            assert PreviewJob.FromString(await board.get()).job_id == "d1"

    async def test_a_stream_returns_the_use_cases_messages_in_order(self) -> None:
        """All of them."""
        async with switchboard(three) as board:
            found = [WatchPreviewJobResponse.FromString(raw).job.job_level async for raw in board.watch()]
        assert found == [0, 1, 2]

    async def test_a_request_of_no_bytes_is_a_message_with_nothing_set(self) -> None:
        """It is valid protobuf."""
        async with switchboard(answer) as board:
            assert PreviewJob.FromString(await board.get(b"")).job_id == ""

    async def test_unknown_fields_of_a_request_are_accepted(self) -> None:
        """A client may have a newer contract."""
        async with switchboard(answer) as board:
            assert PreviewJob.FromString(await board.get(REQUEST + b"\xf8\xff\x01\x01")).job_id == "d1"


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
class TestErrors:
    @pytest.mark.parametrize("raw", MALFORMED)
    async def test_a_malformed_message_is_invalid_argument_and_runs_no_use_case(self, raw: bytes, stream: bool) -> None:  # noqa: FBT001
        """With the gateway's own message."""
        async with switchboard(failing(ValueError(), stream=stream)) as board:
            error = await error_of(board.watch(raw) if stream else board.get(raw))
        name = "Watch" if stream else "Get"
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == f"the request is not a valid docpreview.v1.{name}PreviewJobRequest message"
        assert error_info(error).reason == "MALFORMED_MESSAGE"

    async def test_an_error_of_the_use_case_has_its_status_and_ids(self, stream: bool) -> None:  # noqa: FBT001
        """The ids by which the call is found in logs."""
        known = UpstreamError(r.ERROR_REASON_JOB_NOT_FOUND, "no job d1")
        async with switchboard(failing(known, stream=stream)) as board:
            metadata = (("x-request-id", "mine-1"),)
            error = await error_of(board.watch(metadata=metadata) if stream else board.get(metadata=metadata))
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no job d1")
        assert error_info(error).metadata["request_id"] == "mine-1"
        assert dict(error.trailing_metadata())["x-request-id"] == "mine-1"
        assert board.telemetry.ended == [("WatchPreviewJob" if stream else "GetPreviewJob", "NOT_FOUND")]

    async def test_a_bug_is_internal_with_its_request_id_and_nothing_else(self, stream: bool) -> None:  # noqa: FBT001
        """The log has the rest."""
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

    async def test_a_reply_of_the_wrong_type_is_internal(self, stream: bool) -> None:  # noqa: FBT001
        """It is a bug like any other."""

        async def unary(_request: object, _call: Call) -> str:
            return SECRET

        async def streaming(_request: object, _call: Call) -> AsyncIterator[str]:
            yield SECRET

        with structlog.testing.capture_logs():
            async with switchboard(streaming if stream else unary) as board:
                error = await error_of(board.watch() if stream else board.get())
        assert error_info(error).reason == "INTERNAL"

    async def test_a_reply_over_the_size_limit_is_reply_too_large(self, stream: bool) -> None:  # noqa: FBT001
        """With advice, instead of an error of the client's library."""
        huge = PreviewJob()
        huge.result.pages.append(Page(url="x" * MAX_REPLY_BYTES))

        async def unary(_request: object, _call: Call) -> PreviewJob:
            return huge

        async def streaming(_request: object, _call: Call) -> AsyncIterator[WatchPreviewJobResponse]:
            yield WatchPreviewJobResponse(job=huge)

        async with switchboard(streaming if stream else unary) as board:
            error = await error_of(board.watch() if stream else board.get())
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error_info(error).reason == "REPLY_TOO_LARGE"
        assert "page_url_ttl" in str(error.details())


class TestSizesAndBrokenStreams:
    async def test_messages_before_an_error_are_delivered(self) -> None:
        """The error ends the stream."""

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
        """With a client's default settings."""
        job = PreviewJob()
        job.user_data = "x" * (MAX_REPLY_BYTES - 5)
        job.user_data = "x" * (MAX_REPLY_BYTES - 5 - (job.ByteSize() - MAX_REPLY_BYTES))
        assert job.ByteSize() == MAX_REPLY_BYTES

        async def unary(_request: object, _call: Call) -> PreviewJob:
            return job

        async with switchboard(unary) as board:
            assert len(await board.get()) == MAX_REPLY_BYTES

    async def test_a_request_over_the_size_limit_is_rejected_by_grpc(self) -> None:
        """No use-case runs."""
        async with switchboard(answer) as board:
            error = await error_of(board.get(REQUEST + b"\x12\x80\x80\x80\x01" + b"x" * 2**21))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert board.telemetry.started == []


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
class TestDeadlines:
    async def test_a_call_without_a_deadline_ends_at_the_gateways_limit(self, stream: bool) -> None:  # noqa: FBT001
        """DEADLINE_EXCEEDED."""
        entered, left = asyncio.Event(), asyncio.Event()
        async with switchboard(hanging(entered, left, stream=stream), longest=0.1) as board:
            error = await error_of(board.watch() if stream else board.get())
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert error_info(error).reason == "DEADLINE_EXCEEDED"
        assert left.is_set()

    async def test_a_deadline_after_the_gateways_limit_ends_at_the_limit(self, stream: bool) -> None:  # noqa: FBT001
        """DEADLINE_EXCEEDED."""
        entered, left = asyncio.Event(), asyncio.Event()
        async with switchboard(hanging(entered, left, stream=stream), longest=0.1) as board:
            error = await error_of(board.watch(timeout=3600) if stream else board.get(timeout=3600))
        assert error_info(error).reason == "DEADLINE_EXCEEDED"

    async def test_the_use_case_is_cancelled_at_the_deadline(self, stream: bool) -> None:  # noqa: FBT001
        """It does not run on after the client's error."""
        entered, left = asyncio.Event(), asyncio.Event()
        async with switchboard(hanging(entered, left, stream=stream)) as board:
            error = await error_of(board.watch(timeout=0.2) if stream else board.get(timeout=0.2))
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            async with asyncio.timeout(5):
                await left.wait()
                await board.handlers.drained(5)
        ((_, code),) = board.telemetry.ended
        # Of a stream that ends at its caller's deadline nothing was missed.
        assert code in ({"DEADLINE_EXCEEDED", "CANCELLED"} if stream else {"DEADLINE_EXCEEDED"})


async def test_the_use_case_gets_the_earlier_deadline() -> None:
    """Of the caller's and the gateway's."""
    seen: list[float] = []

    async def look(_request: object, call: Call) -> PreviewJob:
        seen.append(call.deadline - asyncio.get_running_loop().time())
        return PreviewJob()

    async with switchboard(look, longest=20) as board:
        for timeout in (None, 5, 3600):
            await board.get(timeout=timeout)
    assert [round(left) for left in seen] == [20, 5, 20]


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_a_cancelled_call_cancels_its_use_case(stream: bool) -> None:  # noqa: FBT001
    """It is recorded as CANCELLED."""
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


def flooding(left: asyncio.Event) -> Any:
    """A use-case that gives more than a stream takes that nobody reads; it sets `left` at its end."""

    async def flood(_request: object, _call: Call) -> AsyncIterator[WatchPreviewJobResponse]:
        try:
            while True:
                yield WatchPreviewJobResponse(job=PreviewJob(user_data="x" * 100_000))
        finally:
            left.set()

    return flood


async def test_a_cancelled_stream_that_is_not_read_cancels_its_use_case() -> None:
    """It is recorded as CANCELLED."""
    left = asyncio.Event()

    async with switchboard(flooding(left)) as board:
        call = board.watch()
        await call.read()
        async with asyncio.timeout(5):
            await _stuck(board.telemetry)
        call.cancel()
        async with asyncio.timeout(5):
            await left.wait()
            await board.handlers.drained(5)
        assert board.telemetry.ended == [("WatchPreviewJob", "CANCELLED")]


async def test_a_stream_that_is_not_read_ends_at_its_limit_here_though_no_status_gets_through() -> None:
    """Its use-case is cancelled, and it gives back what it took; its caller may stay as long as it likes."""
    left = asyncio.Event()

    with structlog.testing.capture_logs() as logged:
        async with switchboard(flooding(left), longest=0.5, bounds=Bounds(waits=1)) as board:
            call = board.watch()
            await call.read()
            async with asyncio.timeout(10):
                await left.wait()
                await board.handlers.drained(5)
            assert board.handlers.free[True] == 1
            assert board.telemetry.ended == [("WatchPreviewJob", "CANCELLED")]
            call.cancel()
    assert logged == []


async def _stuck(telemetry: FakeTelemetry) -> None:
    """Returns when messages were sent, and no more get through."""
    sent = 0
    while not sent or len(telemetry.sent) > sent:
        sent = len(telemetry.sent)
        await asyncio.sleep(0.1)


class TestMetadata:
    @pytest.mark.parametrize("given", ["a", "A.b_c-1", "x" * 64])
    async def test_a_valid_request_id_is_sent_back(self, given: str) -> None:
        """The call has the caller's id."""
        async with switchboard(answer) as board:
            call = board.get(metadata=(("x-request-id", given),))
            await call
            assert dict(await call.trailing_metadata())["x-request-id"] == given

    @pytest.mark.parametrize("given", [None, "", "x" * 65, "has space", "semi;colon", 'quo"te', "a/b"])
    async def test_a_missing_or_invalid_request_id_is_replaced(self, given: str | None) -> None:
        """An arbitrary text could break a log line."""
        metadata = () if given is None else (("x-request-id", given),)
        async with switchboard(answer) as board:
            call = board.get(metadata=metadata)
            await call
            assert re.fullmatch("[0-9a-f]{16}", str(dict(await call.trailing_metadata())["x-request-id"]))

    async def test_ids_of_calls_tell_nothing_of_other_calls(self) -> None:
        """Neither their number nor their process: no id has more in common with the next one than chance gives."""
        async with switchboard(answer) as board:
            ids = []
            for _ in range(20):
                await (call := board.get())
                ids.append(str(dict(await call.trailing_metadata())["x-request-id"]))
        assert len(set(ids)) == 20
        assert len({each[:8] for each in ids}) == len({each[8:] for each in ids}) == 20
        assert ids not in (sorted(ids), sorted(ids, reverse=True))

    async def test_the_first_valid_request_id_counts(self) -> None:
        """Invalid ones before it are skipped."""
        async with switchboard(answer) as board:
            call = board.get(metadata=(("x-request-id", "b a d"), ("other", "x"), ("x-request-id", "good")))
            await call
            assert dict(await call.trailing_metadata())["x-request-id"] == "good"

    async def test_response_information_is_sent_as_metadata(self) -> None:
        """The cloud's request id and the cache outcome, where known."""

        async def learn(_request: object, call: Call) -> PreviewJob:
            call.response.upstream_request_id = "cloud-1"
            call.response.cache = "miss"
            call.response.disclosed = True
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

    @pytest.mark.parametrize("fails", [False, True])
    async def test_response_information_that_is_not_disclosed_stays_in_the_telemetry(self, *, fails: bool) -> None:
        """In replies and in errors."""

        async def learn(_request: object, call: Call) -> PreviewJob:
            call.response.upstream_request_id = "cloud-1"
            call.response.cache = "miss"
            if fails:
                facts = UpstreamFacts(request_id="cloud-1")
                raise UpstreamError(r.ERROR_REASON_UPSTREAM_INTERNAL, "broken", facts=facts)
            return PreviewJob()

        async with switchboard(learn) as board:
            call = board.get()
            await call.code()
            found = dict(await call.trailing_metadata())
            await board.handlers.drained(5)
            response = board.telemetry.calls[-1].response
        assert {"x-upstream-request-id", "x-cache"}.isdisjoint(found)
        assert "cloud-1" not in repr(found)
        assert (response.cache, response.upstream_request_id) == ("miss", "cloud-1")

    async def test_a_stream_sends_its_request_id_before_its_messages(self) -> None:
        """The rest comes with the trailers."""
        async with switchboard(three) as board:
            call = board.watch(metadata=(("x-request-id", "mine"),))
            assert dict(await call.initial_metadata())["x-request-id"] == "mine"
            assert len([raw async for raw in call]) == 3
            assert dict(await call.trailing_metadata())["x-request-id"] == "mine"


class TestTelemetry:
    async def test_a_unary_call_is_counted_once_with_its_code(self) -> None:
        """One start, one end; its one message is not counted apart."""
        async with switchboard(answer) as board:
            await board.get()
            await board.handlers.drained(5)
        assert (board.telemetry.started, board.telemetry.ended) == (["GetPreviewJob"], [("GetPreviewJob", "OK")])

    async def test_every_message_of_a_stream_is_counted(self) -> None:
        """Between start and end."""
        async with switchboard(three) as board:
            assert len([raw async for raw in board.watch()]) == 3
            await board.handlers.drained(5)
        found = (board.telemetry.started, board.telemetry.sent, board.telemetry.ended)
        assert found == (["WatchPreviewJob"], ["WatchPreviewJob"] * 3, [("WatchPreviewJob", "OK")])


class TestFastPath:
    async def test_a_fast_path_reply_is_sent_without_the_use_case(self) -> None:
        """With its response information."""

        def fast_path(request: GetPreviewJobRequest, call: Call) -> bytes:
            call.response.cache = "hit"
            call.response.disclosed = True
            return PreviewJob(job_id=f"cached {request.job_id}").SerializeToString()

        async with switchboard(failing(ValueError(), stream=False), fast_path=fast_path) as board:
            call = board.get()
            assert PreviewJob.FromString(await call).job_id == "cached d1"
            assert ("x-cache", "hit") in tuple(await call.trailing_metadata())

    async def test_without_a_fast_path_reply_the_use_case_runs(self) -> None:
        """The fast path returned None."""
        async with switchboard(answer, fast_path=lambda _request, _call: None) as board:
            assert PreviewJob.FromString(await board.get()).job_id == "d1"

    async def test_an_error_of_the_fast_path_is_returned_like_any_other(self) -> None:
        """With its reason."""

        def fast_path(_request: GetPreviewJobRequest, _call: Call) -> bytes:
            raise GatewayError(r.ERROR_REASON_JOB_NOT_FOUND, "no job d1")

        async with switchboard(answer, fast_path=fast_path) as board:
            assert error_info(await error_of(board.get())).reason == "JOB_NOT_FOUND"


class TestDrained:
    async def test_a_drain_without_running_calls_ends_immediately(self) -> None:
        """It does not wait for its timeout."""
        await Handlers(FakeTelemetry()).drained(60)

    async def test_a_drain_waits_for_handlers_that_the_stop_aborted(self) -> None:
        """While they clean up."""
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

    async def test_a_drain_ends_at_its_timeout(self) -> None:
        """A handler may still run."""
        entered, left = asyncio.Event(), asyncio.Event()
        async with switchboard(hanging(entered, left, stream=False)) as board:
            call = asyncio.ensure_future(error_of(board.get()))
            await entered.wait()
            await board.handlers.drained(0.01)
            assert not left.is_set()
            call.cancel()
