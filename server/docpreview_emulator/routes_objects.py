"""The object routes of `<bucket>.cos.<region>.*`: put, get, head and delete of whole objects."""

import re
from base64 import b64encode

from docpreview_emulator.backend import Backend
from docpreview_emulator.clock import http_date
from docpreview_emulator.errors import CloudError
from docpreview_emulator.exchange import Answer, Exchange
from docpreview_emulator.model import Bucket, StoredObject
from docpreview_emulator.objects import Upload

_CHUNK = 1024 * 1024
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

    async def answer(self, exchange: Exchange) -> Answer:
        """The answer.

        Raises:
            CloudError: it is a refusal.
            StorageError: the disk or the database is unusable.
        """
        bucket, key = exchange.cloud.bucket, exchange.path[1:]
        if bucket is None or not key or exchange.header("x-cos-copy-source") or _has_subresource(exchange):
            raise CloudError(501, "NotImplemented", "The emulator only puts, gets, heads and deletes whole objects.")
        if exchange.method == "PUT":
            return await self._put(exchange, bucket, key)
        if exchange.method in {"GET", "HEAD"}:
            return self._get(exchange, bucket, key)
        if exchange.method == "DELETE":
            self._backend.objects.delete(bucket, key)
            return Answer(204)
        raise CloudError(405, "MethodNotAllowed", f"{exchange.method} is not allowed here.")

    async def _put(self, exchange: Exchange, bucket: Bucket, key: str) -> Answer:
        upload = self._backend.objects.begin()
        try:
            async for chunk in exchange.source.content.iter_chunked(_CHUNK):
                upload.write(chunk)
            _check_digest(exchange, upload)
            content_type = exchange.header("content-type") or "application/octet-stream"
            stored = self._backend.objects.finish(upload, bucket, key, content_type)
        except BaseException:
            upload.discard()
            raise
        return Answer(headers={"ETag": f'"{stored.etag}"'})

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


def _check_digest(exchange: Exchange, upload: Upload) -> None:
    digest = exchange.header("content-md5")
    if digest is not None and digest != b64encode(upload.digest).decode():
        raise CloudError(400, "BadDigest", "Content-MD5 does not match the body.")


def _has_subresource(exchange: Exchange) -> bool:
    """Whether the query asks for more than the object, e.g. `?acl`, `?uploads` or `?ci-process=...`."""
    names = {name.lower() for name, _ in exchange.params} - _REPLACING
    return any(not name.startswith(("q-", "x-cos-", "sign")) for name in names)


def _headers(stored: StoredObject) -> dict[str, str]:
    modified = http_date(stored.modified)
    return {"ETag": f'"{stored.etag}"', "Last-Modified": modified, "Accept-Ranges": "bytes"}


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
