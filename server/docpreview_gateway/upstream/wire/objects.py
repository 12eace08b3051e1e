"""Readers of the object store's replies. Sources: vendor documents 436/7745 (HEAD), 436/7746, 436/7742 (multipart)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docpreview_gateway.model.errors import bad_response
from docpreview_gateway.upstream.ports import ObjectFacts
from docpreview_gateway.upstream.wire import refusals
from docpreview_gateway.upstream.wire import xml as xml_codec

if TYPE_CHECKING:
    from docpreview_gateway.upstream.wire.http import HttpReply

UPLOAD_HEADER = "x-cos-meta-docpreview-upload"
"""Metadata of an object: the id of the upload that made it."""

FORBID_OVERWRITE = "x-cos-forbid-overwrite"

_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_MULTIPART_ID = re.compile(r"[!-~]{1,512}", re.ASCII)


def facts(reply: HttpReply) -> ObjectFacts:
    """What a reply to HEAD says."""
    headers = reply.headers
    length = headers.get("content-length", "")
    if not _NUMBER.fullmatch(length):
        raise bad_response("reply to HEAD without the length of the object")
    crc64 = headers.get("x-cos-hash-crc64ecma", "")
    return ObjectFacts(
        length=int(length),
        etag=headers.get("etag", ""),
        crc64=int(crc64) % 2**64 if _NUMBER.fullmatch(crc64) else None,
        upload_id=headers.get(UPLOAD_HEADER, ""),
    )


def multipart_id(reply: HttpReply) -> str:
    """The id of the multipart upload that a reply says was begun."""
    found = xml_codec.texts(xml_codec.read(reply.body, "InitiateMultipartUploadResult")).get("UploadId", "")
    if not _MULTIPART_ID.fullmatch(found):
        raise bad_response("reply without an UploadId")
    return found


def check_completed(reply: HttpReply) -> None:
    """Raise the error in a reply to the completion of a multipart upload: it may come with the status 200."""
    root = xml_codec.read(reply.body)
    if root.tag == "Error":
        raise refusals.read(reply)
    if root.tag != "CompleteMultipartUploadResult":
        raise bad_response("reply is not a <CompleteMultipartUploadResult>")
