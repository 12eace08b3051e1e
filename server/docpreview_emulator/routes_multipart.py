"""The routes of multipart uploads: begin, put a part, list the parts, complete and abort."""

from collections.abc import Awaitable, Callable

from docpreview_emulator.backend import Backend
from docpreview_emulator.conditions import read_range
from docpreview_emulator.copies import COPY_SOURCE, find_source
from docpreview_emulator.errors import CloudError, invalid_argument
from docpreview_emulator.exchange import Answer, Exchange
from docpreview_emulator.listings import is_url_encoded
from docpreview_emulator.model import Bucket, Multipart
from docpreview_emulator.multiparts import MAX_PARTS
from docpreview_emulator.object_documents import (
    PartPage,
    completed_response,
    copied_part_response,
    initiated_response,
    parts_response,
)
from docpreview_emulator.objects import Upload, already_exists
from docpreview_emulator.receiving import properties_of, read_document, receive
from docpreview_emulator.requests import read_number
from docpreview_emulator.xmltree import Element

_LISTED = 1000
"""Most parts in one list."""

_OF_LISTS = frozenset({"max-parts", "part-number-marker", "encoding-type"})
_Route = Callable[[Exchange, Multipart], Awaitable[Answer]]


class MultipartRoutes:
    """Answers requests whose signature is good."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._routes: dict[tuple[str, frozenset[str]], _Route] = {
            ("PUT", frozenset({"partNumber", "uploadId"})): self._put,
            ("GET", frozenset({"uploadId"})): self._list,
            ("POST", frozenset({"uploadId"})): self._complete,
            ("DELETE", frozenset({"uploadId"})): self._abort,
        }

    async def answer(self, exchange: Exchange, bucket: Bucket, key: str, subresource: frozenset[str]) -> Answer:
        """The answer to a request for this subresource of an object.

        Raises:
            CloudError: it is a refusal.
            StorageError: the disk or the database is unusable.
        """
        if (exchange.method, subresource) == ("POST", frozenset({"uploads"})):
            return self._begin(exchange, bucket, key)
        route = self._routes.get((exchange.method, subresource - _OF_LISTS))
        if route is None:
            raise CloudError(
                501, "NotImplemented", f"The emulator has no such subresource: {', '.join(sorted(subresource))}."
            )
        return await route(exchange, self._backend.multiparts.find(bucket, key, exchange.param("uploadId") or ""))

    def _begin(self, exchange: Exchange, bucket: Bucket, key: str) -> Answer:
        properties = properties_of(exchange)
        if not properties.replaces and self._backend.objects.find(bucket, key) is not None:
            raise already_exists()
        upload_id = self._backend.multiparts.begin(bucket, key, properties)
        return Answer(body=initiated_response(bucket, key, upload_id))

    async def _put(self, exchange: Exchange, multipart: Multipart) -> Answer:
        number = exchange.param("partNumber") or ""
        if not (number.isascii() and number.isdigit() and 1 <= int(number) <= MAX_PARTS):
            raise invalid_argument(f"partNumber must be a number from 1 to {MAX_PARTS}.")
        is_copy = exchange.header(COPY_SOURCE) is not None
        upload = self._backend.objects.begin()
        try:
            await (self._copy(exchange, upload) if is_copy else receive(exchange, upload))
            etag = self._backend.multiparts.put(multipart, int(number), upload)
        except BaseException:
            upload.discard()
            raise
        answer = Answer(headers={"ETag": f'"{etag}"', "x-cos-hash-crc64ecma": upload.crc64})
        if is_copy:
            answer.body = copied_part_response(etag, self._backend.clock.now())
        return answer

    async def _copy(self, exchange: Exchange, upload: Upload) -> None:
        source = find_source(exchange, self._backend)
        wanted = exchange.header(f"{COPY_SOURCE}-range")
        cut = read_range(wanted, source.size)
        if wanted and cut is None:
            raise invalid_argument(f"{COPY_SOURCE}-range must be bytes=<first>-<last>.")
        await self._backend.objects.copy(source, upload, *(cut or ()))

    async def _list(self, exchange: Exchange, multipart: Multipart) -> Answer:
        params = dict(exchange.params)
        after = read_number(params, "part-number-marker", 0, MAX_PARTS)
        size = read_number(params, "max-parts", _LISTED, _LISTED)
        left = [part for part in self._backend.multiparts.parts(multipart) if part.number > after]
        page = PartPage(left[:size], after, size, is_truncated=len(left) > size > 0)
        return Answer(body=parts_response(multipart, page, url_encoded=is_url_encoded(params)))

    async def _complete(self, exchange: Exchange, multipart: Multipart) -> Answer:
        root = await read_document(exchange, "CompleteMultipartUpload")
        named = [_named(part) for part in root.children if part.name == "Part"]
        replaces = properties_of(exchange).replaces
        stored = await self._backend.multiparts.complete(multipart, named, replaces=replaces)
        body = completed_response(exchange.host, stored)
        return Answer(body=body, headers={"x-cos-hash-crc64ecma": stored.crc64})

    async def _abort(self, _exchange: Exchange, multipart: Multipart) -> Answer:
        self._backend.multiparts.abort(multipart)
        return Answer(204)


def _named(part: Element) -> tuple[int, str]:
    number = part.value("PartNumber")
    if not (number.isascii() and number.isdigit()):
        raise CloudError(400, "MalformedXML", "A PartNumber is not a number.")
    return int(number), part.value("ETag")
