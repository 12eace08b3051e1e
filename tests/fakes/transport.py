"""A transport that answers by a script and records the requests."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

Turn: TypeAlias = HttpReply | Exception | float
"""A reply, an exception to raise, or seconds to wait before the next turn of the script."""


class FakeTransport:
    """A `Transport` that answers by a script, whose last reply is repeated forever."""

    def __init__(self, *script: Turn) -> None:
        self.script: deque[Turn] = deque(script)
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpReply:
        self.requests.append(request)
        while True:
            turn = self.script[0] if len(self.script) == 1 else self.script.popleft()
            if isinstance(turn, float):
                await asyncio.sleep(turn)
                continue
            if isinstance(turn, Exception):
                raise turn
            return turn


def reply(body: str | bytes = b"", *, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpReply:
    """A reply of the cloud, which names itself in a header."""
    return stranger(body, status=status, headers={"server": "tencent-ci", **(headers or {})})


def stranger(body: str | bytes = b"", *, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpReply:
    """A reply of something on the way to the cloud."""
    return HttpReply(status, headers or {}, body.encode() if isinstance(body, str) else body)


def refusal(
    code: str, status: int = 400, *, message: str = "no", headers: Mapping[str, str] | None = None
) -> HttpReply:
    """A reply with the cloud's `Error` document."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>from-body</RequestId></Error>"
    return reply(body, status=status, headers=headers)


def job_reply(job_id: str = "d1", state: str = "Submitted", *, headers: Mapping[str, str] | None = None) -> HttpReply:
    """A reply with one job."""
    return reply(f"<Response>{job_detail(job_id, state)}</Response>", headers=headers)


def job_detail(job_id: str, state: str = "Submitted") -> str:
    """One `JobsDetail`."""
    return (
        f"<JobsDetail><Code>Success</Code><JobId>{job_id}</JobId><State>{state}</State>"
        "<CreationTime>2022-09-14T17:15:43+0800</CreationTime><Tag>DocProcess</Tag></JobsDetail>"
    )
