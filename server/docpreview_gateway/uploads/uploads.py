"""The methods of UploadService, without gRPC.

The gateway signs addresses and makes the calls that begin and complete multipart uploads. It keeps nothing: what it has
to know again is in the upload's token.
"""

from __future__ import annotations

from base64 import b64encode
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.upload_service_pb2 import AbortUploadResponse, Upload, UploadedObject, UploadPart
from docpreview_gateway.model import rules
from docpreview_gateway.model.errors import GatewayError, InvalidRequest, UpstreamError, Violation
from docpreview_gateway.model.outcomes import audited
from docpreview_gateway.model.policy import require
from docpreview_gateway.model.validation import check
from docpreview_gateway.uploads.plans import UPLOAD_ID, parts_of, type_of
from docpreview_gateway.uploads.ports import UploadFacts
from docpreview_gateway.uploads.tokens import VALID_SECONDS, Announced, not_a_token
from docpreview_gateway.upstream.wire import requests
from docpreview_gateway.upstream.wire.objects import FORBID_OVERWRITE, UPLOAD_HEADER
from docpreview_gateway.upstream.wire.signing import Window, presign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from docpreview.v1.upload_service_pb2 import AbortUploadRequest, CompleteUploadRequest, CreateUploadRequest
    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.uploads.ports import UploadLog, UploadsTelemetry
    from docpreview_gateway.uploads.tokens import UploadTokens
    from docpreview_gateway.upstream.ports import CredentialsSource, ObjectFacts, ObjectStore
    from docpreview_gateway.upstream.wire.http import HttpRequest

DEFAULT_TTL = 900

_NOT_WHOLE = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
"""The store's codes for parts that are not those of the upload."""

_REPLACED = (
    "the object of this key is of another upload: the content was not put, or was replaced since; "
    "PUT it to the address of its part (again)"
)
_QUOTE = '"'
_GONE = "NoSuchUpload"
_EXISTS = "FileAlreadyExists"


class Uploads:
    """Begins, completes and aborts uploads. Each method is the RPC of the same name.

    `base` is the beginning of addresses, as that of `PageUrls`; `random_bytes` returns so many random bytes.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        buckets: BucketRegistry,
        store: ObjectStore,
        credentials: CredentialsSource,
        tokens: UploadTokens,
        *,
        telemetry: UploadsTelemetry,
        log: UploadLog,
        random_bytes: Callable[[int], bytes],
        base: str | None = None,
    ) -> None:
        self._buckets = buckets
        self._store = store
        self._credentials = credentials
        self._tokens = tokens
        self._telemetry = telemetry
        self._log = log
        self._random_bytes = random_bytes
        self._base = (base or "https://{host}").rstrip("/")

    async def create(self, request: CreateUploadRequest, call: Call) -> Upload:
        """Signed addresses for the parts of a content."""
        with self._audited("create", call) as facts:
            facts.bucket, facts.object, facts.content_length = request.bucket, request.object, request.content_length
            bucket = self._buckets.admit_upload(request, call.caller)
            upload = self._announced(request)
            facts.object, facts.upload_id = upload.object, upload.upload_id
            headers = {"content-type": upload.content_type, UPLOAD_HEADER: upload.upload_id}
            if not _may_overwrite(bucket, upload, call.caller):
                headers[FORBID_OVERWRITE] = "true"
            if len(parts_of(upload.content_length)) > 1:
                upload = replace(upload, multipart=await self._initiate(bucket, upload.object, headers, call))
            now = await self._store.now(bucket, upload.object, call)
            upload = replace(upload, until=int(now) + VALID_SECONDS)
            window = Window.around(now, lifetime=request.ttl.seconds if request.HasField("ttl") else DEFAULT_TTL)
            begun = Upload(
                bucket=bucket.name,
                object=upload.object,
                upload_token=self._tokens.encode(upload, bucket, call.caller),
                parts=self._parts(bucket, upload, headers, request.content_md5, window),
            )
            begun.expire_time.FromSeconds(window.end)
            self._telemetry.uploaded(call.caller.name, "announced", upload.content_length)
            return begun

    async def complete(self, request: CompleteUploadRequest, call: Call) -> UploadedObject:
        """The object, once it is whole and what was announced."""
        with self._audited("complete", call) as facts:
            check(request)
            bucket, upload = await self._open(request.upload_token, call, facts)
            overwrites = _may_overwrite(bucket, upload, call.caller)
            number = len(parts_of(upload.content_length))
            if len(request.etags) != number:
                raise InvalidRequest([Violation("etags", f"must have {number} items: one for each part of the upload")])
            if upload.multipart:
                await self._complete_parts(bucket, upload, request.etags, call, overwrites=overwrites)
            found = await self._made(bucket, upload, request.etags, call, overwrites=overwrites)
            self._telemetry.uploaded(call.caller.name, "completed", upload.content_length)
            made = UploadedObject(
                bucket=bucket.name, object=upload.object, content_length=found.length, etag=found.etag
            )
            if found.crc64 is not None:
                made.content_crc64 = found.crc64
            return made

    async def abort(self, request: AbortUploadRequest, call: Call) -> AbortUploadResponse:
        """Nothing, once the parts are deleted."""
        with self._audited("abort", call) as facts:
            check(request)
            bucket, upload = await self._open(request.upload_token, call, facts)
            if upload.multipart:
                try:
                    await self._store.abort(bucket, upload.object, upload.multipart, call)
                except UpstreamError as error:
                    if error.facts.code != _GONE:
                        raise
            return AbortUploadResponse()

    @contextmanager
    def _audited(self, stage: Literal["create", "complete", "abort"], call: Call) -> Iterator[UploadFacts]:
        facts = UploadFacts()
        call.response.disclosed = True  # what the cloud does for an upload tells nothing about other callers
        with audited(call, lambda outcome: self._log.upload_ended(stage, call, outcome, facts)):
            yield facts

    def _announced(self, request: CreateUploadRequest) -> Announced:
        """The upload of a valid request, before anything is begun in the cloud."""
        upload_id = self._random_bytes(16).hex()
        key = request.object.replace(UPLOAD_ID, upload_id)
        if wrong := rules.upload_key(key):
            raise InvalidRequest([Violation("object", f"with the id of the upload in it, {wrong}")])
        return Announced(
            object=key,
            upload_id=upload_id,
            content_length=request.content_length,
            content_type=request.content_type or type_of(key),
            content_crc64=request.content_crc64 if request.HasField("content_crc64") else None,
            until=0,
        )

    async def _open(self, token: str, call: Call, facts: UploadFacts) -> tuple[Bucket, Announced]:
        bucket, upload = self._tokens.decode(token, call.caller)
        facts.bucket, facts.object = bucket.name, upload.object
        facts.upload_id, facts.content_length = upload.upload_id, upload.content_length
        if upload.until < await self._store.now(bucket, upload.object, call):
            raise not_a_token()
        return bucket, upload

    async def _initiate(self, bucket: Bucket, key: str, headers: dict[str, str], call: Call) -> str:
        try:
            return await self._store.initiate(bucket, key, headers, call)
        except UpstreamError as error:
            if error.facts.code == _EXISTS:
                raise _exists() from error
            raise

    def _parts(
        self, bucket: Bucket, upload: Announced, headers: dict[str, str], md5: bytes, window: Window
    ) -> Iterator[UploadPart]:
        credentials = self._credentials.credentials(bucket.upload_credentials or bucket.credentials)
        base = self._base.replace("{host}", bucket.object_host)
        for part in parts_of(upload.content_length):
            length = {"content-length": str(part.length)}
            if upload.multipart:
                unsigned = requests.put_part(bucket, upload.object, upload.multipart, part.number, length)
            else:
                unsigned = _put(bucket, upload, headers | length, md5)
            signed = presign(unsigned, credentials, window)
            yield UploadPart(url=base + signed.target, headers=signed.headers, offset=part.offset, length=part.length)

    async def _complete_parts(
        self, bucket: Bucket, upload: Announced, etags: Sequence[str], call: Call, *, overwrites: bool
    ) -> None:
        """Make the object of its parts. Nothing to do when it was made before."""
        headers = {} if overwrites else {FORBID_OVERWRITE: "true"}
        try:
            await self._store.complete(bucket, upload.object, upload.multipart, etags, headers, call)
        except UpstreamError as error:
            if error.facts.code in _NOT_WHOLE:
                raise _incomplete(f"the cloud answered {error.facts.code}") from error
            if error.facts.code == _EXISTS:
                raise _exists() from error
            if error.facts.code != _GONE:
                raise

    async def _made(
        self, bucket: Bucket, upload: Announced, etags: Sequence[str], call: Call, *, overwrites: bool
    ) -> ObjectFacts:
        """The object, if it is what was announced, and of this upload or, of one part, of the same content.

        So an upload of the same content to the same key can be repeated, although the object must not be replaced.
        """
        try:
            found = await self._store.head(bucket, upload.object, call)
        except UpstreamError as error:
            if error.reason != reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND:
                raise
            raise _missing(upload) from error
        is_same = not upload.multipart and found.etag.strip(_QUOTE) == etags[0].strip(_QUOTE)
        if found.upload_id != upload.upload_id and not (is_same and found.length == upload.content_length):
            if not upload.multipart and not overwrites:
                raise _exists()
            raise _missing(upload) if upload.multipart else _incomplete(_REPLACED)
        if found.length != upload.content_length:
            raise _incomplete(f"the object has {found.length} bytes, and {upload.content_length} were announced")
        if not upload.multipart and not is_same:
            raise _incomplete("the content of the object is not the one whose ETag you give")
        if upload.content_crc64 is not None and found.crc64 not in {None, upload.content_crc64}:
            raise _incomplete("the CRC-64 of the object is not the one that was announced")
        return found


def _put(bucket: Bucket, upload: Announced, headers: dict[str, str], md5: bytes) -> HttpRequest:
    if md5:
        headers = headers | {"content-md5": b64encode(md5).decode()}
    return requests.put_object(bucket, upload.object, headers)


def _may_overwrite(bucket: Bucket, upload: Announced, caller: Caller) -> bool:
    """Whether the store may let the upload replace an object. NOT_PERMITTED when the caller may not make it at all.

    A key with the id of the upload has no other's object. There a PUT can be repeated whose reply was lost.
    """
    is_new = upload.upload_id in upload.object
    if caller.rights is None:
        return is_new
    require(caller.rights.of_upload_bucket(bucket.name))
    rights = caller.rights.uploads[bucket.name]
    require(rights.of_object(upload.object))
    require(rights.of_length(upload.content_length))
    require(rights.of_type(upload.content_type))
    return is_new or rights.overwrite


def _missing(upload: Announced) -> GatewayError:
    """The error when the object of an upload is not there, or is not its own."""
    if upload.multipart:
        message = (
            "there is no such upload any more: it was aborted, its parts were deleted, or its object was replaced; "
            "begin a new one"
        )
        return GatewayError(reasons.ERROR_REASON_UPLOAD_NOT_FOUND, message)
    return _incomplete("the content was not put; PUT it to the address of its part before")


def _incomplete(why: str) -> GatewayError:
    return GatewayError(reasons.ERROR_REASON_UPLOAD_INCOMPLETE, f"the upload is not complete: {why}")


def _exists() -> GatewayError:
    message = "an object of this key exists already, and must not be replaced; have ${UploadId} in the key"
    return GatewayError(reasons.ERROR_REASON_OBJECT_EXISTS, message)
