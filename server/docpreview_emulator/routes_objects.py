"""The object routes of `<bucket>.cos.<region>.*`: put, copy, get, head and delete of objects."""

from dataclasses import replace

from docpreview_emulator.backend import Backend
from docpreview_emulator.clock import http_date
from docpreview_emulator.conditions import is_unmodified, read_range
from docpreview_emulator.copies import COPY_SOURCE, find_source
from docpreview_emulator.errors import CloudError, invalid_argument
from docpreview_emulator.exchange import Answer, Exchange, refusal
from docpreview_emulator.hosts import check_key
from docpreview_emulator.model import Bucket, StoredObject
from docpreview_emulator.object_documents import copied_response
from docpreview_emulator.objects import Properties, already_exists
from docpreview_emulator.receiving import properties_of, receive
from docpreview_emulator.routes_buckets import BucketRoutes
from docpreview_emulator.routes_multipart import MultipartRoutes

_REPLACING = {
    *("response-cache-control", "response-content-disposition", "response-content-encoding"),
    *("response-content-language", "response-content-type", "response-expires"),
}
"""Parameters of a GET that replace headers of its answer (vendor document 436/7753). The request must be signed."""


class ObjectRoutes:
    """Answers requests whose signature is good."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._buckets = BucketRoutes(backend)
        self._multiparts = MultipartRoutes(backend)

    async def answer(self, exchange: Exchange) -> Answer:
        """The answer.

        Raises:
            CloudError: it is a refusal.
            StorageError: the disk or the database is unusable.
        """
        bucket, key, subresource = exchange.cloud.bucket, exchange.path[1:], _subresource(exchange)
        if bucket is None:
            return self._buckets.list_all(exchange, subresource)
        if not key:
            return await self._buckets.answer(exchange, bucket, subresource)
        self._backend.queues.check(bucket)
        check_key(key)
        if subresource:
            return await self._multiparts.answer(exchange, bucket, key, subresource)
        if exchange.method == "PUT":
            is_copy = exchange.header(COPY_SOURCE) is not None
            return await (self._copy if is_copy else self._put)(exchange, bucket, key)
        if exchange.method in {"GET", "HEAD"}:
            return await self._get(exchange, bucket, key)
        if exchange.method == "DELETE":
            self._backend.objects.delete(bucket, key)
            return Answer(204)
        raise CloudError(405, "MethodNotAllowed", f"{exchange.method} is not allowed here.")

    async def _put(self, exchange: Exchange, bucket: Bucket, key: str) -> Answer:
        properties = properties_of(exchange)
        self._check_overwrite(bucket, key, properties)
        upload = self._backend.objects.begin()
        try:
            await receive(exchange, upload)
            stored = self._backend.objects.finish(upload, bucket, key, properties)
        except BaseException:
            upload.discard()
            raise
        return Answer(headers=_checks(stored))

    async def _copy(self, exchange: Exchange, bucket: Bucket, key: str) -> Answer:
        source, properties = find_source(exchange, self._backend), properties_of(exchange)
        directive = (exchange.header("x-cos-metadata-directive") or "Copy").lower()
        if directive not in {"copy", "replaced"}:
            raise invalid_argument("x-cos-metadata-directive must be Copy or Replaced.")
        if directive == "copy":
            if (source.bucket, source.key) == (bucket, key):
                message = "A copy of an object to itself changes nothing without x-cos-metadata-directive Replaced."
                raise CloudError(400, "InvalidRequest", message)
            properties = replace(properties, content_type=source.content_type, metadata=source.metadata)
        self._check_overwrite(bucket, key, properties)
        upload = self._backend.objects.begin()
        try:
            await self._backend.objects.copy(source, upload)
            stored = self._backend.objects.finish(upload, bucket, key, properties)
        except BaseException:
            upload.discard()
            raise
        return Answer(body=copied_response(stored), headers=_checks(stored))

    def _check_overwrite(self, bucket: Bucket, key: str, properties: Properties) -> None:
        if not properties.replaces and self._backend.objects.find(bucket, key) is not None:
            raise already_exists()

    async def _get(self, exchange: Exchange, bucket: Bucket, key: str) -> Answer:
        stored = self._backend.objects.find(bucket, key)
        if stored is None:
            raise CloudError(404, "NoSuchKey", "The specified key does not exist.")
        headers = _headers(stored)
        if is_unmodified(stored, exchange.header):
            return Answer(304, headers=headers)
        headers |= _replaced(exchange)
        answer = Answer(content_type=headers.pop("Content-Type", stored.content_type), headers=headers, is_object=True)
        try:
            cut = read_range(exchange.header("range"), stored.size)
        except CloudError as error:
            answer = refusal(exchange, error)
            answer.headers["Content-Range"] = f"bytes */{stored.size}"
            return answer
        first, last = cut or (0, stored.size - 1)
        if cut is not None:
            answer.status = 206
            headers["Content-Range"] = f"bytes {first}-{last}/{stored.size}"
        if exchange.method == "HEAD":
            headers["Content-Length"] = str(last - first + 1)
        else:
            answer.body = await self._backend.objects.read_range(stored, first, last)
        return answer


def _replaced(exchange: Exchange) -> dict[str, str]:
    """Headers of the answer that the query of the request has."""
    wanted = {name.lower(): value for name, value in exchange.params if name.lower() in _REPLACING}
    for name, value in wanted.items():
        if not value.isprintable():
            raise invalid_argument(f"{name} has characters that no header may have.")
    return {name.removeprefix("response-").title(): value for name, value in wanted.items()}


def _subresource(exchange: Exchange) -> frozenset[str]:
    """What the query asks for beside the object, e.g. `uploads`, `acl` or `ci-process`.

    An empty `versionId` is nothing: some SDKs send it with every request.
    """
    names = {name for name, value in exchange.params if (name, value) != ("versionId", "")}
    return frozenset(name for name in names if not name.lower().startswith(("q-", "x-cos-", "sign"))) - _REPLACING


def _checks(stored: StoredObject) -> dict[str, str]:
    headers = {"ETag": f'"{stored.etag}"'}
    return {**headers, "x-cos-hash-crc64ecma": stored.crc64} if stored.crc64 else headers


def _headers(stored: StoredObject) -> dict[str, str]:
    kept = {name if name.startswith("x-") else name.title(): value for name, value in stored.metadata.items()}
    return {"Last-Modified": http_date(stored.modified), "Accept-Ranges": "bytes", **kept, **_checks(stored)}
