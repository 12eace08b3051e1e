"""The look at a create's document, before anything is recorded or sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.creates.drafts import Drafts
from docpreview_gateway.creates.inputs import CheckedCreates
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.creates.records import Timing
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call, ResponseInfo
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.model.documents import PIECE_BYTES
from docpreview_gateway.model.errors import GatewayError, UpstreamError, UpstreamFacts
from docpreview_gateway.model.validation import MAX_DOCUMENT_BYTES
from docpreview_gateway.upstream.ports import ObjectPiece
from tests.document_files import encrypted_office
from tests.fakes.recorded import KEYS
from tests.unit.emulator.office_files import slides
from tests.unit.emulator.pdf_files import pdf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview.v1.error_reason_pb2 import ErrorReason
    from docpreview_gateway.creates.records import Record

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
ID = "7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10"


@dataclass
class Scene:
    """`CheckedCreates` over a store of one object, a store of records, and creates that always succeed."""

    data: bytes = b""
    length: int | None = None
    failure: Exception | None = None
    known: set[str] = field(default_factory=set)
    store_fails: bool = False
    hangs: bool = False
    reads: list[tuple[int, int]] = field(default_factory=list)
    created: int = 0
    response: ResponseInfo = field(default_factory=ResponseInfo)

    async def read(self, bucket: Bucket, key: str, piece: tuple[int, int], call: Call) -> ObjectPiece:
        assert (bucket, bool(key), call.request_id) == (BUCKET, True, "r")
        self.reads.append(piece)
        if self.hangs:
            await asyncio.Event().wait()
        call.response.upstream_request_id = "cos-1"
        if self.failure is not None:
            raise self.failure
        first, size = piece
        return ObjectPiece(self.data[first : first + size], len(self.data) if self.length is None else self.length)

    async def find(self, keys: Sequence[str]) -> list[Record | None]:
        if self.store_fails:
            raise StoreError("gone")
        return [object() if key in self.known else None for key in keys]  # type: ignore[misc]

    async def inner(self, _request: CreatePreviewJobRequest, _call: Call) -> PreviewJob:
        self.created += 1
        return PreviewJob(job_id="d1")

    async def create(self, key: str = "in/a.pdf", *, request_id: str = "", password: str = "", source: str = "") -> str:
        checked = CheckedCreates(
            _Inner(self),
            BucketRegistry([BUCKET]),
            self,
            store=self,  # type: ignore[arg-type]
            drafts=Drafts(KEYS, Timing()),
        )
        request = CreatePreviewJobRequest(
            bucket=BUCKET.name,
            input_object=key,
            output=ObjectLocation(object="p/${SheetID}/${Number}.jpg"),
            request_id=request_id,
        )
        if password:
            request.options.password = password
        if source:
            request.options.source_format = source
        call = Call("r", asyncio.get_running_loop().time() + 0.4, Caller("one"), response=self.response)
        return (await checked.create(request, call)).job_id

    async def refused(self, key: str = "in/a.pdf", **how: str) -> tuple[ErrorReason.ValueType, str]:
        with pytest.raises(GatewayError) as caught:
            await self.create(key, **how)
        assert not self.created
        return caught.value.reason, caught.value.message


class _Inner:
    def __init__(self, scene: Scene) -> None:
        self.create = scene.inner


def missing() -> UpstreamError:
    return UpstreamError(r.ERROR_REASON_OBJECT_NOT_FOUND, "no", facts=UpstreamFacts("NoSuchKey", 404))


@pytest.mark.parametrize("failure", [None, missing()])
async def test_a_refused_document_has_the_object_stores_request_id_in_the_log(failure: Exception | None) -> None:
    """It is empty, or it is not there."""
    scene = Scene(b"", failure=failure)
    await scene.refused()
    assert scene.response.upstream_request_id == "cos-1"


async def test_a_good_document_is_read_once_and_created() -> None:
    """Its first 64 KiB."""
    scene = Scene(pdf(1))
    assert await scene.create() == "d1"
    assert scene.reads == [(0, PIECE_BYTES)]


async def test_the_end_is_read_only_of_a_large_document_whose_kind_needs_it() -> None:
    """A PDF; of a text the beginning is enough."""
    large = pdf(1).ljust(3 * PIECE_BYTES, b"\n")
    scene = Scene(large)
    await scene.create()
    assert scene.reads == [(0, PIECE_BYTES), (2 * PIECE_BYTES, PIECE_BYTES)]
    scene = Scene(b"a" * 3 * PIECE_BYTES)
    await scene.create("in/a.txt")
    assert scene.reads == [(0, PIECE_BYTES)]


@pytest.mark.parametrize(
    ("scene", "key", "reason", "told"),
    [
        (Scene(failure=missing()), "in/a.pdf", r.ERROR_REASON_INPUT_OBJECT_NOT_FOUND, "does not exist"),
        (Scene(b""), "in/a.pdf", r.ERROR_REASON_INPUT_OBJECT_EMPTY, "has no bytes"),
        (
            Scene(
                failure=UpstreamError(r.ERROR_REASON_UPSTREAM_UNMAPPED, "no", facts=UpstreamFacts("InvalidRange", 416))
            ),
            "in/a.pdf",
            r.ERROR_REASON_INPUT_OBJECT_EMPTY,
            "has no bytes",
        ),
        (
            Scene(pdf(1), length=MAX_DOCUMENT_BYTES + 1),
            "in/a.pdf",
            r.ERROR_REASON_INPUT_OBJECT_TOO_LARGE,
            "at most 209715200",
        ),
        (Scene(b"a"), "in/a.exe", r.ERROR_REASON_INPUT_FORMAT_UNSUPPORTED, "docx"),
        (Scene(slides(1)), "in/a.pdf", r.ERROR_REASON_INPUT_FORMAT_MISMATCH, "not a whole pdf file"),
        (Scene(encrypted_office()), "in/a.pptx", r.ERROR_REASON_INPUT_ENCRYPTED, "set options.password"),
    ],
)
async def test_each_refusal_has_its_reason_and_comes_before_anything_is_made(
    scene: Scene, key: str, reason: ErrorReason.ValueType, told: str
) -> None:
    """The message says what to do, and that no job was made: the document was read, so something was sent."""
    found, message = await scene.refused(key)
    assert found == reason
    assert told in message
    assert message.endswith("no job was made")


async def test_a_suffix_is_refused_without_a_request_and_the_declared_format_counts_without_one() -> None:
    """The vendor's SrcType."""
    scene = Scene(slides(1))
    await scene.refused("in/a.exe")
    assert not scene.reads
    assert await Scene(slides(1)).create("in/a", source="pptx") == "d1"
    assert (await Scene(slides(1)).refused("in/a", source="pdf"))[0] == r.ERROR_REASON_INPUT_FORMAT_MISMATCH


async def test_with_a_password_an_encrypted_document_is_created() -> None:
    """Whether it is the right one is the cloud's to say."""
    assert await Scene(encrypted_office()).create("in/a.pptx", password="p") == "d1"


async def test_a_repeat_of_a_create_on_record_gets_its_job_whatever_became_of_the_document() -> None:
    """Under any of the secrets. Another id is refused, and nothing is known while the store fails."""
    (key,) = KEYS.record_keys("one", BUCKET.name, ID)
    assert await Scene(failure=missing(), known={key}).create(request_id=ID) == "d1"
    other = ID.replace("7", "8")
    assert (await Scene(failure=missing(), known={key}).refused(request_id=other))[
        0
    ] == r.ERROR_REASON_INPUT_OBJECT_NOT_FOUND
    scene = Scene(failure=missing(), store_fails=True)
    assert (await scene.refused(request_id=ID))[0] == r.ERROR_REASON_LEDGER_UNAVAILABLE


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamError(r.ERROR_REASON_UPSTREAM_ACCESS_DENIED, "no", facts=UpstreamFacts("AccessDenied", 403)),
        UpstreamError(r.ERROR_REASON_UPSTREAM_UNAVAILABLE, "no", facts=UpstreamFacts(http_status=503)),
        GatewayError(r.ERROR_REASON_OVERLOADED, "no"),
    ],
)
async def test_a_document_that_cannot_be_read_is_left_to_the_cloud(failure: Exception) -> None:
    """The cloud has rights of its own, and an outage of one host should not become one of the other."""
    assert await Scene(failure=failure).create() == "d1"


async def test_a_hanging_store_holds_a_create_up_for_a_quarter_of_its_time() -> None:
    """Then it goes on."""
    begin = asyncio.get_running_loop().time()
    assert await Scene(hangs=True).create() == "d1"
    assert asyncio.get_running_loop().time() - begin < 0.35
