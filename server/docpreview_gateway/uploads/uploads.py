"""The methods of UploadService, without gRPC.

The gateway signs addresses and makes the calls that begin and complete multipart uploads. It keeps nothing: what it has
to know again is in the upload's token.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.upload_service_pb2 import AbortUploadResponse, Upload, UploadedObject, UploadPart
from docpreview_gateway.model import rules
from docpreview_gateway.model.errors import GatewayError, InvalidRequest, UpstreamError, Violation
from docpreview_gateway.model.policy import require
from docpreview_gateway.model.validation import check
from docpreview_gateway.uploads.plans import UPLOAD_ID, parts_of, type_of
from docpreview_gateway.uploads.tokens import VALID_SECONDS, Announced, not_a_token
from docpreview_gateway.upstream.wire import requests
from docpreview_gateway.upstream.wire.objects import FORBID_OVERWRITE, UPLOAD_HEADER
from docpreview_gateway.upstream.wire.signing import Window, presign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docpreview.v1.upload_service_pb2 import AbortUploadRequest, CompleteUploadRequest, CreateUploadRequest
    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.uploads.ports import UploadsTelemetry
    from docpreview_gateway.uploads.tokens import UploadTokens
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.ports import CredentialsSource, ObjectFacts, ObjectStore
    from docpreview_gateway.upstream.wire.http import HttpRequest

DEFAULT_TTL = 900

_NOT_WHOLE = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
"""The store's codes for parts that are not those of the upload."""

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
        times: CloudTimes,
        tokens: UploadTokens,
        *,
        telemetry: UploadsTelemetry,
        random_bytes: Callable[[int], bytes],
        base: str | None = None,
    ) -> None:
        self._buckets = buckets
        self._store = store
        self._credentials = credentials
        self._times = times
        self._tokens = tokens
        self._telemetry = telemetry
        self._random_bytes = random_bytes
        self._base = (base or "https://{host}").rstrip("/")

    async def create(self, request: CreateUploadRequest, call: Call) -> Upload:
        """Signed addresses for the parts of a content."""
        call.response.disclosed = True  # it tells nothing about others, here and below
        bucket = self._buckets.admit_upload(request, call.caller)
        upload_id = self._random_bytes(16).hex()
        key = request.object.replace(UPLOAD_ID, upload_id)
        if wrong := rules.upload_key(key):
            raise InvalidRequest([Violation("object", f"with the id of the upload in it, {wrong}")])
        content_type = request.content_type or type_of(key)
        headers = {"content-type": content_type, UPLOAD_HEADER: upload_id}
        if not _may_overwrite(bucket, key, request.content_length, content_type, call.caller):
            headers[FORBID_OVERWRITE] = "true"
        parts = parts_of(request.content_length)
        multipart = await self._initiate(bucket, key, headers, call) if len(parts) > 1 else ""
        now = self._times.now(bucket.ci_host)
        window = Window.around(now, lifetime=request.ttl.seconds if request.HasField("ttl") else DEFAULT_TTL)
        announced = Announced(
            object=key,
            upload_id=upload_id,
            content_length=request.content_length,
            content_type=content_type,
            content_crc64=request.content_crc64 if request.HasField("content_crc64") else None,
            multipart=multipart,
            until=int(now) + VALID_SECONDS,
        )
        upload = Upload(
            bucket=bucket.name,
            object=key,
            upload_token=self._tokens.encode(announced, bucket, call.caller),
            parts=self._parts(request, bucket, announced, headers, window),
        )
        upload.expire_time.FromSeconds(window.end)
        self._telemetry.uploaded(call.caller.name, "announced", request.content_length)
        return upload

    async def complete(self, request: CompleteUploadRequest, call: Call) -> UploadedObject:
        """The object, once it is whole and what was announced."""
        check(request)
        bucket, upload = self._open(request.upload_token, call)
        overwrites = _may_overwrite(bucket, upload.object, upload.content_length, upload.content_type, call.caller)
        number = len(parts_of(upload.content_length))
        if len(request.etags) != number:
            raise InvalidRequest([Violation("etags", f"must have {number} items: one for each part of the upload")])
        if upload.multipart:
            await self._complete_parts(bucket, upload, list(request.etags), call, overwrites=overwrites)
        found = await self._made(bucket, upload, call)
        if not upload.multipart and found.etag.strip('"') != request.etags[0].strip('"'):
            raise _incomplete("the content of the object is not the one whose ETag you give")
        self._telemetry.uploaded(call.caller.name, "completed", upload.content_length)
        made = UploadedObject(bucket=bucket.name, object=upload.object, content_length=found.length, etag=found.etag)
        if found.crc64 is not None:
            made.content_crc64 = found.crc64
        return made

    async def abort(self, request: AbortUploadRequest, call: Call) -> AbortUploadResponse:
        """Nothing, once the parts are deleted."""
        check(request)
        bucket, upload = self._open(request.upload_token, call)
        if upload.multipart:
            try:
                await self._store.abort(bucket, upload.object, upload.multipart, call)
            except UpstreamError as error:
                if error.facts.code != _GONE:
                    raise
        return AbortUploadResponse()

    def _open(self, token: str, call: Call) -> tuple[Bucket, Announced]:
        call.response.disclosed = True
        bucket, upload = self._tokens.decode(token, call.caller)
        if upload.until < self._times.now(bucket.ci_host):
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
        self, request: CreateUploadRequest, bucket: Bucket, upload: Announced, headers: dict[str, str], window: Window
    ) -> Iterator[UploadPart]:
        credentials = self._credentials.credentials(bucket.credentials)
        base = self._base.replace("{host}", bucket.object_host)
        for part in parts_of(upload.content_length):
            length = {"content-length": str(part.length)}
            if upload.multipart:
                unsigned = requests.put_part(bucket, upload.object, upload.multipart, part.number, length)
            else:
                unsigned = _put(bucket, upload, headers | length, request.content_md5)
            signed = presign(unsigned, credentials, window)
            yield UploadPart(url=base + signed.target, headers=signed.headers, offset=part.offset, length=part.length)

    async def _complete_parts(
        self, bucket: Bucket, upload: Announced, etags: list[str], call: Call, *, overwrites: bool
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

    async def _made(self, bucket: Bucket, upload: Announced, call: Call) -> ObjectFacts:
        """The object, if this upload has made it as it was announced."""
        try:
            found = await self._store.head(bucket, upload.object, call)
        except UpstreamError as error:
            if error.reason != reasons.ERROR_REASON_INPUT_OBJECT_NOT_FOUND:
                raise
            raise _missing(upload) from error
        if found.upload_id != upload.upload_id:
            raise _missing(upload)
        if found.length != upload.content_length:
            raise _incomplete(f"the object has {found.length} bytes, and {upload.content_length} were announced")
        if upload.content_crc64 is not None and found.crc64 not in {None, upload.content_crc64}:
            raise _incomplete("the CRC-64 of the object is not the one that was announced")
        return found


def _put(bucket: Bucket, upload: Announced, headers: dict[str, str], md5: bytes) -> HttpRequest:
    if md5:
        headers = headers | {"content-md5": b64encode(md5).decode()}
    return requests.put_object(bucket, upload.object, headers)


def _may_overwrite(bucket: Bucket, key: str, content_length: int, content_type: str, caller: Caller) -> bool:
    """Whether the upload may replace an object. NOT_PERMITTED when the caller may not make it at all."""
    if caller.rights is None:
        return False
    require(caller.rights.of_upload_bucket(bucket.name))
    rights = caller.rights.uploads[bucket.name]
    require(rights.of_object(key))
    require(rights.of_length(content_length))
    require(rights.of_type(content_type))
    return rights.overwrite


def _missing(upload: Announced) -> GatewayError:
    """The error when the object of an upload is not there, or is not its own."""
    if upload.multipart:
        message = "there is no such upload any more: it was aborted, or its parts were deleted; begin a new one"
        return GatewayError(reasons.ERROR_REASON_UPLOAD_NOT_FOUND, message)
    return _incomplete("the content was not put; PUT it to the address of its part before")


def _incomplete(why: str) -> GatewayError:
    return GatewayError(reasons.ERROR_REASON_UPLOAD_INCOMPLETE, f"the upload is not complete: {why}")


def _exists() -> GatewayError:
    return _incomplete("an object of this key exists, and must not be replaced; have ${UploadId} in the key")
