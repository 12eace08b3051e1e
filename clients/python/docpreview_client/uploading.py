"""Upload of a document to the addresses that the gateway signs: one part, or several at a time."""

import asyncio
import hashlib
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeAlias

import grpc

from docpreview.v1.upload_service_pb2 import (
    AbortUploadRequest,
    CompleteUploadRequest,
    CreateUploadRequest,
    Upload,
    UploadedObject,
    UploadPart,
)
from docpreview_client import errors
from docpreview_client.call import Call
from docpreview_client.connection import Connection
from docpreview_client.downloading import error_of
from docpreview_client.retries import Pauses
from docpreview_client.storage import NoObject, Reply, Storage, StorageLost

File: TypeAlias = str | os.PathLike[str] | bytes

_PARALLEL: Final = 4
_ATTEMPTS: Final = 4
_CHUNK: Final = 256 * 1024
_LARGEST_PART: Final = 16 * 1024 * 1024
_ABORT_WITHIN: Final = 5.0
_BEGINNINGS: Final = 2
_UPLOAD_ID: Final = "${UploadId}"
_UUID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Document:
    """A local document, read in parts."""

    def __init__(self, file: File) -> None:
        """Takes a path, or the content itself.

        Raises:
            OSError: There is no such file.
            ValueError: It is a directory or the like.
            InvalidRequest: It is empty.
        """
        self._file = file
        self.name = name_of(file)
        if isinstance(file, bytes):
            self.size = len(file)
        else:
            self._status = _status(file)
            self.size, _ = self._status
            if not Path(file).is_file():
                raise ValueError(f"{os.fspath(file)} is not a file.")
        if not self.size:
            what = "The content" if isinstance(file, bytes) else os.fspath(file)
            raise errors.InvalidRequest(f"{what} is empty", code=grpc.StatusCode.INVALID_ARGUMENT)

    def refuse_changed(self) -> None:
        """Raises FailedPrecondition when the file is not what it was at the beginning."""
        if not isinstance(self._file, bytes) and _status(self._file) != self._status:
            raise errors.FailedPrecondition(
                f"{self.name} has changed while it was uploaded: upload it again when nothing writes to it.",
                code=grpc.StatusCode.FAILED_PRECONDITION,
            )

    def read(self, offset: int, length: int) -> Iterator[bytes]:
        """Yields this part of the content.

        Raises:
            FailedPrecondition: The file has become shorter.
        """
        if isinstance(self._file, bytes):
            yield self._file[offset : offset + length]
            return
        with Path(self._file).open("rb") as file:
            file.seek(offset)
            while length:
                chunk = file.read(min(_CHUNK, length))
                if not chunk:
                    raise errors.FailedPrecondition(
                        f"{self.name} has become shorter while it was uploaded.",
                        code=grpc.StatusCode.FAILED_PRECONDITION,
                    )
                length -= len(chunk)
                yield chunk

    @property
    def is_in_parts(self) -> bool:
        """Whether the gateway has it uploaded in several parts."""
        return self.size > _LARGEST_PART

    def md5(self) -> bytes:
        """MD5 of the whole content."""
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in self.read(0, self.size):
            digest.update(chunk)
        return digest.digest()


def name_of(file: File) -> str:
    """The name of the file, without folders; empty of a content."""
    return "" if isinstance(file, bytes) else Path(file).name


def _status(file: str | os.PathLike[str]) -> tuple[int, int]:
    status = Path(file).stat()
    return status.st_size, status.st_mtime_ns


def default_object(name: str) -> str:
    """The template of the object's key for a document of this name.

    Raises:
        ValueError: The name has no suffix, which tells the cloud the format.
    """
    suffix = Path(name).suffix
    if not suffix:
        raise ValueError("The document's name has no suffix, such as .pptx: give `object`, the key to put it at.")
    return f"in/{_UPLOAD_ID}{suffix}"


async def brought(upload: Callable[[str], Awaitable[UploadedObject]], file: File, *, key: str, request_id: str) -> str:
    """Uploads the document of a create with this `request_id`, and returns its key.

    `${UploadId}` in the key becomes a digest of the id and the content. So attempts with the same id and content are of
    one document, and with another content the gateway refuses the id, or takes it if no job was made for it.

    Args:
        upload: Uploads the document to a key.
        file: The document.
        key: The caller's own template of the key, or empty.
        request_id: That of the create; empty where creates have none.
    """
    template = key or default_object(name_of(file))
    if not request_id:
        return (await upload(template)).object
    if not _UUID.fullmatch(request_id):
        violation = ("request_id", "must be a UUID, such as 7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10")
        facts = errors.ErrorFacts(reason="INVALID_REQUEST", field_violations=(violation,))
        raise errors.InvalidRequest("1 field is invalid", code=grpc.StatusCode.INVALID_ARGUMENT, facts=facts)
    if _UPLOAD_ID not in template:
        return (await upload(template)).object
    document = Document(file)
    content = (await asyncio.to_thread(document.md5)).hex()
    digest = hashlib.md5(f"{request_id.lower()}\n{content}".encode(), usedforsecurity=False).hexdigest()
    own = template.replace(_UPLOAD_ID, digest)
    try:
        return (await upload(own)).object
    except errors.InvalidRequest as error:
        # Of one part the gateway has compared the content that is there.
        if error.reason != "OBJECT_EXISTS" or not document.is_in_parts:
            raise
        return own


class Uploading:
    """The upload of one document."""

    def __init__(self, connection: Connection, call: Call, *, longest_call: timedelta) -> None:
        self._connection = connection
        self._call = call
        self._longest_call = longest_call

    async def run(self, document: Document, request: CreateUploadRequest) -> UploadedObject:
        """Uploads. When the storage refuses an address, it has expired: the upload begins anew, once.

        Raises:
            DocPreviewError: The upload failed; its parts were deleted, if the gateway could be reached.
        """
        if not document.is_in_parts:
            request.content_md5 = await asyncio.to_thread(document.md5)
        for left in reversed(range(_BEGINNINGS)):
            begun = await self._connection.unary(self._connection.uploads.CreateUpload, request, self._short())
            try:
                etags = await self._put_unchanged(document, begun, request.content_md5)
                complete = CompleteUploadRequest(upload_token=begun.upload_token, etags=etags)
                return await self._connection.unary(self._connection.uploads.CompleteUpload, complete, self._short())
            except BaseException as error:
                await self._abort(begun)
                if not left or not _has_expired(error):
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _put_unchanged(self, document: Document, begun: Upload, md5: bytes) -> Sequence[str]:
        try:
            etags = await self._put_all(document, begun, md5)
        except errors.DocPreviewError:
            await asyncio.to_thread(document.refuse_changed)  # the storage may have refused it for that
            raise
        await asyncio.to_thread(document.refuse_changed)
        return etags

    async def _put_all(self, document: Document, begun: Upload, md5: bytes) -> Sequence[str]:
        etag = f'"{md5.hex()}"' if md5 and len(begun.parts) == 1 else ""
        try:
            async with Storage(workers=_PARALLEL) as storage, asyncio.TaskGroup() as group:
                tasks = [group.create_task(_put(storage, document, part, etag)) for part in begun.parts]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _abort(self, begun: Upload) -> None:
        request = AbortUploadRequest(upload_token=begun.upload_token)
        with suppress(errors.DocPreviewError):
            abort = self._connection.uploads.AbortUpload
            await self._connection.unary(abort, request, self._call.lasting(_ABORT_WITHIN))

    def _short(self) -> Call:
        return self._call.at_most(self._longest_call)


def _has_expired(error: BaseException) -> bool:
    """Whether the storage refused an address; the gateway gives reasons."""
    return isinstance(error, errors.PermissionDenied) and not error.reason


async def _put(storage: Storage, document: Document, part: UploadPart, etag: str) -> str:
    """Puts one part, up to four times, and returns its ETag.

    `etag` is that of the object when the part is all of it, else empty. Then a conflict is most likely the content that
    an attempt has put whose reply was lost, and CompleteUpload tells whether it is.
    """
    pauses = Pauses()
    error: errors.DocPreviewError
    for left in reversed(range(_ATTEMPTS)):
        try:
            content = document.read(part.offset, part.length)
            reply = await storage.in_thread(storage.put, part.url, dict(part.headers), content)
        except StorageLost as lost:
            error = errors.Unavailable(f"The document could not be uploaded: {lost}.", code=grpc.StatusCode.UNAVAILABLE)
        else:
            if stranger := _stranger(reply):
                text = f"The document could not be uploaded: {NoObject(stranger)}."
                error = errors.Unavailable(text, code=grpc.StatusCode.UNAVAILABLE)
            elif reply.status == HTTPStatus.OK:
                return reply.etag
            elif reply.status == HTTPStatus.CONFLICT and etag:
                return etag
            else:
                error = error_of(reply.status, "The document could not be uploaded")
        if not left or error.retry != "now":
            raise error
        await asyncio.sleep(pauses.after())
    raise AssertionError("the last attempt returns or raises")


def _stranger(reply: Reply) -> str:
    """What was answered by something else than the storage, which answers a PUT with 200 and an ETag, or an error."""
    if reply.content_type == "text/html":
        return "a web page"
    if reply.status < HTTPStatus.BAD_REQUEST and reply.status != HTTPStatus.OK:
        return f"HTTP {reply.status}"
    if reply.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return f"HTTP {reply.status}"
    return "" if reply.etag or reply.status != HTTPStatus.OK else "no ETag"
