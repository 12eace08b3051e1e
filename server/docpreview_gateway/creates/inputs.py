"""The look at a create's document before anything is made, recorded or reserved.

It costs one request, or two for documents of more than 64 KiB. When the object store fails, is slow or does not let the
gateway read the document, the create goes on: the cloud itself reads the document with other rights.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.creates import refusals
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.model.call import ResponseInfo
from docpreview_gateway.model.documents import PIECE_BYTES, SUFFIXES, Excerpt, examined, second_piece
from docpreview_gateway.model.errors import GatewayError, UpstreamError, echo
from docpreview_gateway.model.output_templates import source_format
from docpreview_gateway.model.validation import MAX_DOCUMENT_BYTES
from docpreview_gateway.storage.background import loop_time

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.access.bucket_registry import Admitted, BucketRegistry
    from docpreview_gateway.creates.drafts import Drafts
    from docpreview_gateway.creates.ports import Creates, CreateStore
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.upstream.ports import ObjectReader

log = structlog.get_logger("docpreview_gateway.creates")

LOOK_SECONDS, LOOK_SHARE = 5.0, 0.25
"""Limits of a look at the document: seconds, and share of the time until the caller's deadline."""

_UNSATISFIABLE = 416
"""HTTP status for a range that begins after the end: of an object without bytes."""

_NO_JOB = "no job was made"


class CheckedCreates:
    """`inner`, which gets no create whose document the cloud cannot convert, unless it is a repeat of one on record."""

    def __init__(
        self, inner: Creates, buckets: BucketRegistry, objects: ObjectReader, *, store: CreateStore, drafts: Drafts
    ) -> None:
        self._inner = inner
        self._buckets = buckets
        self._objects = objects
        self._store = store
        self._drafts = drafts

    async def create(self, request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        """Submit a job, or return an existing one in its place."""
        admitted = self._buckets.admit_create(request, call.caller)
        refusal = await self._refusal(admitted, call)
        if refusal is not None and not await self._is_on_record(request, call.caller):
            raise refusal
        return await self._inner.create(request, call)

    async def _is_on_record(self, request: CreatePreviewJobRequest, caller: Caller) -> bool:
        """Whether the request is repeated: it gets its job, whatever has become of its document."""
        if not request.request_id:
            return False
        try:
            return any(await self._store.find(self._drafts.keys_of(request, caller)))
        except StoreError as error:
            raise refusals.not_recordable(error) from None

    async def _refusal(self, admitted: Admitted, call: Call) -> GatewayError | None:
        """Why the cloud cannot convert the document of a create; None: no reason is known."""
        request, bucket, _ = admitted
        suffix = source_format(request.input_object, request.options.source_format)
        if suffix not in SUFFIXES:
            return _unsupported(suffix)
        now = loop_time()
        look_until = now + min(LOOK_SECONDS, LOOK_SHARE * (call.deadline - now))
        look = call._replace(deadline=look_until, trace=None, response=ResponseInfo())
        try:
            async with asyncio.timeout_at(look_until):
                excerpt = await self._excerpt(bucket, request.input_object, suffix, look)
        except (GatewayError, TimeoutError) as error:
            if (refused := _missing_or_empty(error)) is not None:
                return refused
            log.info("a document could not be looked at", bucket=bucket.name, error=str(error))
            return None
        finally:
            call.response.upstream_request_id = look.response.upstream_request_id
        return _refused_excerpt(suffix, excerpt, has_password=bool(request.options.password))

    async def _excerpt(self, bucket: Bucket, key: str, suffix: str, look: Call) -> Excerpt:
        begin = await self._objects.read(bucket, key, (0, PIECE_BYTES), look)
        excerpt = Excerpt(begin.length, begin.data)
        wanted = second_piece(suffix, begin.length, begin.data)
        if wanted is None or begin.length > MAX_DOCUMENT_BYTES:
            return excerpt
        piece = await self._objects.read(bucket, key, wanted, look)
        return excerpt._replace(offset=wanted[0], piece=piece.data)


def _refused_excerpt(suffix: str, excerpt: Excerpt, *, has_password: bool) -> GatewayError | None:
    if excerpt.length == 0:
        return _empty()
    if excerpt.length > MAX_DOCUMENT_BYTES:
        return GatewayError(
            reasons.ERROR_REASON_INPUT_OBJECT_TOO_LARGE,
            f"the source document has {excerpt.length} bytes, and the cloud converts at most {MAX_DOCUMENT_BYTES}; "
            f"{_NO_JOB}",
        )
    finding = examined(suffix, excerpt)
    if finding == "mismatch":
        return GatewayError(
            reasons.ERROR_REASON_INPUT_FORMAT_MISMATCH,
            f"the source document is not a whole {suffix} file: upload it again, or under the suffix of what it is; "
            f"{_NO_JOB}",
        )
    if finding == "encrypted" and not has_password:
        return GatewayError(
            reasons.ERROR_REASON_INPUT_ENCRYPTED,
            f"the source document is encrypted: set options.password; {_NO_JOB}",
        )
    return None


def _missing_or_empty(error: Exception) -> GatewayError | None:
    """The refusal that an error of the object store stands for."""
    if not isinstance(error, UpstreamError):
        return None
    if error.facts.http_status == _UNSATISFIABLE:
        return _empty()
    if error.reason == reasons.ERROR_REASON_OBJECT_NOT_FOUND:
        return UpstreamError(
            reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND,
            f"the source document does not exist; {_NO_JOB}",
            facts=error.facts,
        )
    return None


def _empty() -> GatewayError:
    return GatewayError(reasons.ERROR_REASON_INPUT_OBJECT_EMPTY, f"the source document has no bytes; {_NO_JOB}")


def _unsupported(suffix: str) -> GatewayError:
    return GatewayError(
        reasons.ERROR_REASON_INPUT_FORMAT_UNSUPPORTED,
        f"the cloud does not convert .{echo(suffix)} documents, but {' '.join(sorted(SUFFIXES))}; {_NO_JOB}",
    )
