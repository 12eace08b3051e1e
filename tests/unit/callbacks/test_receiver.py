"""The port that takes callbacks: its limits, and that no answer shows them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import httpx
import pytest

from docpreview_gateway.callbacks.bodies import MAX_BODY_BYTES
from docpreview_gateway.callbacks.receiver import Receiver
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.callers import Rate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.callbacks.hints import Hints

DOCS = Bucket("docs-1250000000", "ap-guangzhou", "main")
CALLBACK = b'{"JobsDetail": [{"JobId": "d1"}]}'
WIDE = Rate(1000, 1000)


class Taken:
    """Hints that are taken and not followed, and what was counted."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.counted: list[str] = []
        self.told: list[str] = []

    def take(self, _bucket: Bucket, job_id: str) -> str:
        self.jobs.append(job_id)
        return "read"

    def callback(self, outcome: str) -> None:
        self.counted.append(outcome)

    @asynccontextmanager
    async def port(self, of_peer: Rate = WIDE, of_all: Rate = WIDE) -> AsyncIterator[httpx.AsyncClient]:
        receiver = Receiver(
            cast("Hints", self),
            self,
            lambda token: DOCS if token == "right" else None,
            lambda _bucket, job_id: self.told.append(job_id),
            of_peer=of_peer,
            of_all=of_all,
        )
        async with (
            receiver.serving("127.0.0.1", 0) as port,
            httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}/cb/") as vendor,
        ):
            yield vendor


async def test_a_callback_is_taken_and_told_to_the_other_workers() -> None:
    taken = Taken()
    async with taken.port() as vendor:
        assert (await vendor.post("right", content=CALLBACK)).status_code == 200
    assert taken.jobs == taken.told == ["d1"]


@pytest.mark.parametrize(("of_peer", "of_all"), [(Rate(0.001, 2), WIDE), (WIDE, Rate(0.001, 2))])
async def test_callbacks_beyond_the_rate_are_answered_alike_and_not_taken(of_peer: Rate, of_all: Rate) -> None:
    """Of one address, and of all together."""
    taken = Taken()
    async with taken.port(of_peer, of_all) as vendor:
        answers = [await vendor.post("right", content=CALLBACK) for _ in range(4)]
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"")}
    assert len(taken.jobs) == 2
    assert taken.counted == ["limited", "limited"]


async def test_strangers_use_up_nothing_of_the_rate() -> None:
    """Behind an Ingress they come from the same address as the cloud."""
    taken = Taken()
    async with taken.port(Rate(0.001, 1), Rate(0.001, 1)) as vendor:
        for _ in range(5):
            await vendor.post("wrong", content=CALLBACK)
        await vendor.post("right", content=CALLBACK)
    assert taken.counted == ["foreign"] * 5
    assert taken.jobs == ["d1"]


@pytest.mark.parametrize("body", [CALLBACK, b"<Response><JobsDetail><JobId>d1</JobId></JobsDetail></Response>"])
async def test_of_a_job_of_thousands_of_pages_the_beginning_is_looked_at(body: bytes) -> None:
    taken = Taken()
    async with taken.port() as vendor:
        answer = await vendor.post("right", content=body[:-2] + b" " * MAX_BODY_BYTES + body[-2:])
    assert (answer.status_code, taken.jobs) == (200, ["d1"])


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"no gzip", {"content-encoding": "gzip"}),
        (b"no zstd", {"content-encoding": "zstd"}),
        (b" " * MAX_BODY_BYTES * 2, {}),
    ],
    ids=["gzip", "zstd", "large"],
)
async def test_a_body_of_another_form_is_answered_as_any_other(content: bytes, headers: dict[str, str]) -> None:
    taken = Taken()
    async with taken.port() as vendor:
        answer = await vendor.post("right", content=content, headers=headers)
    assert (answer.status_code, answer.content, taken.jobs) == (200, b"", [])
    assert taken.counted == ["malformed"]


async def test_a_sender_that_goes_away_in_the_middle_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    taken, arrived = Taken(), asyncio.Event()
    taken.callback = lambda outcome: arrived.set()  # type: ignore[method-assign]  # noqa: ARG005
    async with taken.port() as vendor:
        port = vendor.base_url.port
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /cb/right HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()
        async with asyncio.timeout(5):
            await arrived.wait()
    assert not [record for record in caplog.records if record.exc_info]


async def test_what_is_no_http_is_answered_without_its_words_or_the_names_of_libraries() -> None:
    async with Taken().port() as vendor:
        for request in (b"nonsense secret\r\n\r\n", b"GET /cb/secret HTTP/1.1\r\nHost: h\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", vendor.base_url.port)
            writer.write(request)
            answer = await reader.read()
            writer.close()
            assert b"Server: docpreview-gateway" in answer
            assert not [word for word in (b"secret", b"aiohttp", b"Python") if word in answer]
