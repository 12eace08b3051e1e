"""Tags of objects in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call


class FakeTags:
    """`ObjectTags` in memory; tests set `value` and `failure`."""

    def __init__(self) -> None:
        self.value = '"v1"'
        self.failure: Exception | None = None
        self.asked: list[Call] = []
        self.gate: asyncio.Event | None = None

    async def tag(self, bucket: Bucket, key: str, call: Call) -> str:
        assert bucket.name
        assert key
        self.asked.append(call)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return self.value
