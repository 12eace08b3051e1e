"""Bounded commands, against a server that does what the test says."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from docpreview_gateway.storage.redis_client import (
    RedisCallError,
    RedisClient,
    RedisSkippedError,
    Script,
    expect,
    script_command,
)


class FakeServer:
    """Answers commands with `answer`: a value, an error to raise, or (None) nothing at all."""

    def __init__(self) -> None:
        self.answer: object = b"v"
        self.commands: list[tuple[object, ...]] = []

    async def send(self, *command: object) -> object:
        self.commands.append(command)
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def required(server: FakeServer, *, seconds: float = 1.0) -> RedisClient:
    return RedisClient(server.send, name="ledger", seconds=seconds)


def optional(server: FakeServer, *, error_replies_fail: bool = False) -> RedisClient:
    return RedisClient(
        server.send,
        name="shared cache",
        seconds=1.0,
        fallback="continuing without it",
        error_replies_fail=error_replies_fail,
    )


def as_bytes(answer: object) -> bytes:
    return expect(bytes, answer)


async def outcomes(client: RedisClient, count: int) -> list[str]:
    """What each of some commands, one after the other, came to."""
    found = []
    for _ in range(count):
        try:
            found.append((await client.execute("GET", "k", read=as_bytes)).decode())
        except RedisSkippedError:
            found.append("skipped")
        except RedisCallError as error:
            found.append(str(error))
    return found


async def test_an_answer_is_read_and_returned() -> None:
    """The command is sent as it is."""
    server = FakeServer()
    assert await optional(server).execute("GET", "k", read=as_bytes) == b"v"
    assert server.commands == [("GET", "k")]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (NoConnection("Error 111 connecting to there:1."), "Error 111 connecting to there:1."),
        (ResponseError("OOM command not allowed"), "OOM command not allowed"),
        (
            OutOfMemoryError(
                "command not allowed when used memory > 'maxmemory'. script: b94b54df802aecc35120f31eaca2f9ebe989dd0b, "
                "on @user_script:190."
            ),
            "command not allowed when used memory > 'maxmemory'.",
        ),
        (ResponseError("WRONGTYPE of a key script: c35944a5b6f00d4e, on @user_script:3."), "WRONGTYPE of a key"),
        (ResponseError("user_script:1: x script: c35944a5b6f00d4e"), "user_script:1: x"),
        (OSError("broken pipe"), "broken pipe"),
        (TimeoutError(), "no answer in time"),
        (IndexError("of the library"), "unexpected answer"),
        (1, "unexpected answer"),
    ],
)
async def test_every_failure_is_one_kind_of_error_with_a_message(answer: object, message: str) -> None:
    """Also an answer that its reader rejects."""
    server = FakeServer()
    server.answer = answer
    assert await outcomes(required(server), 1) == [message]


async def test_a_command_ends_when_its_time_is_over() -> None:
    """However long the server is silent."""
    server = FakeServer()
    server.answer = None
    async with asyncio.timeout(10):
        assert await outcomes(required(server, seconds=0.01), 1) == ["no answer in time"]


async def test_a_caller_without_time_left_sends_nothing() -> None:
    """What it has spent before counts."""
    server = FakeServer()
    with pytest.raises(RedisSkippedError):
        await required(server).execute("GET", "k", read=as_bytes, spent=1.0)
    assert server.commands == []


async def test_a_caller_that_leaves_is_cancelled_and_counts_as_nothing() -> None:
    """Its leaving says nothing about the server."""
    server = FakeServer()
    client = optional(server)
    server.answer = None
    for _ in range(10):
        task = asyncio.create_task(client.execute("GET", "k", read=as_bytes))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not client.is_failing
    assert len(server.commands) == 10


async def test_commands_to_a_required_server_are_always_sent() -> None:
    """As soon as it is back it is used."""
    server = FakeServer()
    server.answer = NoConnection("gone")
    client = required(server)
    assert await outcomes(client, 10) == ["gone"] * 10
    server.answer = b"v"
    assert await outcomes(client, 1) == ["v"]


async def test_commands_to_an_optional_server_are_skipped_after_three_failures() -> None:
    """Whether the latest one failed can be asked."""
    server = FakeServer()
    server.answer = NoConnection("gone")
    client = optional(server)
    assert not client.is_failing
    assert await outcomes(client, 10) == ["gone"] * 3 + ["skipped"] * 7
    assert (client.is_failing, client.failed_lately) == (True, True)


async def test_a_failure_that_the_command_before_has_shown_does_not_count_again() -> None:
    """Three slow answers open the breaker, not two with what is sent after each of them."""
    server = FakeServer()
    server.answer = NoConnection("gone")
    client = optional(server)
    for _ in range(10):
        with pytest.raises(RedisCallError):
            await client.execute("GET", "k", read=as_bytes, failure_counts=False)
    assert not client.failed_lately
    assert await outcomes(client, 4) == ["gone"] * 3 + ["skipped"]


async def test_the_beginning_and_the_end_of_an_outage_are_logged_once() -> None:
    """The server's address is shown, which is in the library's message."""
    server = FakeServer()
    server.answer = NoConnection("Error 111 connecting to there:1.")
    client = optional(server)
    with structlog.testing.capture_logs() as logged:
        await outcomes(client, 10)
        server.answer = b"v"
        await asyncio.sleep(1.01)
        assert await outcomes(client, 2) == ["v", "v"]
    assert logged == [
        {
            "log_level": "warning",
            "event": "shared cache unavailable, continuing without it",
            "error": "ConnectionError: Error 111 connecting to there:1.",
        },
        {"log_level": "info", "event": "shared cache available again"},
    ]


async def test_error_replies_show_that_the_server_is_up() -> None:
    """It is full, or read-only, or the key holds something else."""
    server = FakeServer()
    server.answer = ResponseError("OOM")
    client = optional(server)
    assert await outcomes(client, 10) == ["OOM"] * 10
    assert not client.is_failing


async def test_error_replies_open_the_breaker_where_no_command_is_of_use_then() -> None:
    """As connections that are lost do."""
    server = FakeServer()
    server.answer = ResponseError("READONLY")
    assert await outcomes(optional(server, error_replies_fail=True), 5) == ["READONLY"] * 3 + ["skipped"] * 2


def test_a_script_is_sent_with_its_text_keys_and_arguments() -> None:
    """Not by its digest: a server that was replaced does not know it."""
    assert script_command("return 1", ["a", "b"], b"x", 2) == ("EVAL", "return 1", 2, "a", "b", b"x", 2)


async def test_a_script_that_runs_often_is_sent_by_its_hash_and_with_its_text_where_the_server_lacks_it() -> None:
    """The hash is that of the server's `SCRIPT LOAD`."""
    script, sent = Script("return 1"), list[tuple[object, ...]]()

    async def send(*command: object) -> object:
        sent.append(command)
        if command[0] == "EVALSHA":
            raise NoScriptError("No matching script. Please use EVAL.")
        return b"v"

    client = RedisClient(send, name="shared cache", seconds=1.0)
    assert await client.run(script, ["a", "b"], b"x", read=as_bytes) == b"v"
    by_hash = ("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 2, "a", "b", b"x")
    assert sent == [by_hash, ("EVAL", "return 1", 2, "a", "b", b"x")]
    server = FakeServer()
    assert await required(server).run(script, ["a", "b"], b"x", read=as_bytes) == b"v"
    assert server.commands == [by_hash]


async def test_an_error_of_a_script_is_no_reason_to_send_it_again() -> None:
    server = FakeServer()
    server.answer = ResponseError("OOM")
    with pytest.raises(RedisCallError, match="OOM"):
        await required(server).run(Script("return 1"), ["a"], read=as_bytes)
    server.answer = NoScriptError("No matching script.")
    with pytest.raises(RedisCallError, match="No matching"):
        await required(server).execute("EVALSHA", "0" * 40, 0, read=as_bytes)
    assert len(server.commands) == 2
