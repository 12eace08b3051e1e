"""The port that takes callbacks: its limits, and that no answer shows them."""

from __future__ import annotations

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


async def test_a_body_that_is_too_large_is_no_callback() -> None:
    taken = Taken()
    async with taken.port() as vendor:
        answer = await vendor.post("right", content=CALLBACK + b" " * MAX_BODY_BYTES)
    assert answer.status_code == 200
    assert taken.counted == ["malformed"]
    assert taken.jobs == []
