"""The object routes of `<bucket>.cos.<region>.*`: put, get, head and delete of objects."""

import re

from docpreview_emulator.backend import Backend
from docpreview_emulator.clock import http_date
from docpreview_emulator.errors import CloudError
from docpreview_emulator.exchange import Answer, Exchange
from docpreview_emulator.model import Bucket, StoredObject
from docpreview_emulator.objects import already_exists
from docpreview_emulator.receiving import properties_of, receive
from docpreview_emulator.routes_multipart import MultipartRoutes

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_REPLACING = {
    *("response-cache-control", "response-content-disposition", "response-content-encoding"),
    *("response-content-language", "response-content-type", "response-expires"),
}
"""Parameters of a GET that replace headers of its answer (vendor document 436/7753). The request must be signed."""


class ObjectRoutes:
    """Answers requests whose signature is good."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._multiparts = MultipartRoutes(backend)

    async def answer(self, exchange: Exchange) -> Answer:
        """The answer.

        Raises:
            CloudError: it is a refusal.
            StorageError: the disk or the database is unusable.
        """
        bucket, key, subresource = exchange.cloud.bucket, exchange.path[1:], _subresource(exchange)
        if bucket is None or not key or exchange.header("x-cos-copy-source"):
            raise CloudError(501, "NotImplemented", "The emulator only puts, gets, heads and deletes objects.")
        if subresource:
            return await self._multiparts.answer(exchange, bucket, key, subresource)
        if exchange.method == "PUT":
            return await self._put(exchange, bucket, key)
        if exchange.method in {"GET", "HEAD"}:
            return self._get(exchange, bucket, key)
        if exchange.method == "DELETE":
            self._backend.objects.delete(bucket, key)
            return Answer(204)
        raise CloudError(405, "MethodNotAllowed", f"{exchange.method} is not allowed here.")

    async def _put(self, exchange: Exchange, bucket: Bucket, key: str) -> Answer:
        properties = properties_of(exchange)
        if not properties.replaces and self._backend.objects.find(bucket, key) is not None:
            raise already_exists()
        upload = self._backend.objects.begin()
        try:
            await receive(exchange, upload)
            stored = self._backend.objects.finish(upload, bucket, key, properties)
        except BaseException:
            upload.discard()
            raise
        return Answer(headers={"ETag": f'"{stored.etag}"', "x-cos-hash-crc64ecma": stored.crc64})

    def _get(self, exchange: Exchange, bucket: Bucket, key: str) -> Answer:
        stored = self._backend.objects.find(bucket, key)
        if stored is None:
            raise CloudError(404, "NoSuchKey", "The specified key does not exist.")
        answer = Answer(content_type=stored.content_type, headers=_headers(stored))
        for name, value in exchange.params:
            if name.lower() in _REPLACING:
                answer.headers[name.lower().removeprefix("response-").title()] = value
        answer.content_type = answer.headers.pop("Content-Type", answer.content_type)
        answer.body = self._backend.objects.read(stored)
        wanted = _RANGE.fullmatch(exchange.header("range") or "")
        return _cut(answer, wanted[1], wanted[2]) if wanted and (wanted[1] or wanted[2]) else answer


def _subresource(exchange: Exchange) -> frozenset[str]:
    """What the query asks for beside the object, e.g. `uploads`, `acl` or `ci-process`."""
    names = {name for name, _ in exchange.params}
    return frozenset(name for name in names if not name.lower().startswith(("q-", "x-cos-", "sign"))) - _REPLACING


def _headers(stored: StoredObject) -> dict[str, str]:
    modified = http_date(stored.modified)
    headers = {"ETag": f'"{stored.etag}"', "Last-Modified": modified, "Accept-Ranges": "bytes", **stored.metadata}
    return headers | {"x-cos-hash-crc64ecma": stored.crc64} if stored.crc64 else headers


def _cut(answer: Answer, first: str, last: str) -> Answer:
    """One range of the body, both ends included; without `first` it is the last so many bytes."""
    size = len(answer.body)
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last), size - 1) if first and last else size - 1
    if start > end:
        raise CloudError(416, "InvalidRange", "The requested range is not satisfiable.")
    answer.status = 206
    answer.headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    answer.body = answer.body[start : end + 1]
    return answer
