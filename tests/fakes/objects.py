"""The object store in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import UpstreamError, UpstreamFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call, Clock
    from docpreview_gateway.upstream.ports import ObjectFacts


def refusal(code: str, status: int) -> UpstreamError:
    """A refusal of the store."""
    return UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNMAPPED, code, facts=UpstreamFacts(code, status))


class FakeObjects:
    """`ObjectStore` in memory; tests set `found`, what HEAD finds, and `failures` by method."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.found: ObjectFacts | None = None
        self.failures: dict[str, Exception] = {}
        self.begun: list[tuple[str, Mapping[str, str]]] = []
        self.completed: list[tuple[str, Sequence[str], Mapping[str, str]]] = []
        self.aborted: list[str] = []

    async def now(self, _bucket: Bucket, _key: str, _call: Call) -> float:
        self._fail("now")
        return self._clock.now()

    async def head(self, bucket: Bucket, key: str, _call: Call) -> ObjectFacts:
        assert bucket.name
        assert key
        self._fail("head")
        if self.found is None:
            raise UpstreamError(reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND, "no")
        return self.found

    async def initiate(self, _bucket: Bucket, key: str, headers: Mapping[str, str], _call: Call) -> str:
        self._fail("initiate")
        self.begun.append((key, headers))
        return "u1"

    async def complete(
        self, _bucket: Bucket, _key: str, multipart: str, etags: Sequence[str], headers: Mapping[str, str], _call: Call
    ) -> None:
        self._fail("complete")
        self.completed.append((multipart, list(etags), headers))

    async def abort(self, _bucket: Bucket, _key: str, multipart: str, _call: Call) -> None:
        self._fail("abort")
        self.aborted.append(multipart)

    def _fail(self, method: str) -> None:
        if method in self.failures:
            raise self.failures[method]
