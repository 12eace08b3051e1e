"""Readers of the object store's replies. Sources: vendor documents 436/7745 (HEAD), 436/7746, 436/7742 (multipart)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from docpreview_gateway.model.errors import bad_response
from docpreview_gateway.upstream.ports import ObjectFacts, ObjectPiece
from docpreview_gateway.upstream.wire import refusals
from docpreview_gateway.upstream.wire import xml as xml_codec

if TYPE_CHECKING:
    from docpreview_gateway.upstream.wire.http import HttpReply

UPLOAD_HEADER = "x-cos-meta-docpreview-upload"
"""Metadata of an object: the id of the upload that made it."""

FORBID_OVERWRITE = "x-cos-forbid-overwrite"

_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_RANGE = re.compile(r"bytes [0-9]+-[0-9]+/([0-9]{1,19})", re.ASCII)
_PARTIAL = 206
_MULTIPART_ID = re.compile(r"[!-~]{1,512}", re.ASCII)


def facts(reply: HttpReply) -> ObjectFacts:
    """What a reply to HEAD says."""
    headers = reply.headers
    length = headers.get("content-length", "")
    if not _NUMBER.fullmatch(length):
        raise bad_response("reply to HEAD without the length of the object")
    if not headers.get("etag"):
        # Every object has one: this is not what the store says of an object, nor of the upload that made it.
        raise bad_response("reply to HEAD without the ETag of the object")
    crc64 = headers.get("x-cos-hash-crc64ecma", "")
    return ObjectFacts(
        length=int(length),
        etag=headers.get("etag", ""),
        crc64=int(crc64) % 2**64 if _NUMBER.fullmatch(crc64) else None,
        upload_id=headers.get(UPLOAD_HEADER, ""),
    )


def piece(reply: HttpReply) -> ObjectPiece:
    """The piece of an object in a reply to a GET with a range, which may have the whole object."""
    if reply.status != _PARTIAL:
        return ObjectPiece(reply.body, len(reply.body))
    found = _RANGE.fullmatch(reply.headers.get("content-range", ""))
    if found is None:
        raise bad_response("reply without the range of the object that it has")
    return ObjectPiece(reply.body, int(found[1]))


def multipart_id(reply: HttpReply) -> str:
    """The id of the multipart upload that a reply says was begun."""
    found = xml_codec.text(xml_codec.read(reply.body, "InitiateMultipartUploadResult"), "UploadId")
    if not _MULTIPART_ID.fullmatch(found):
        raise bad_response("reply without an UploadId")
    return found


def check_completed(reply: HttpReply) -> None:
    """Raise the error in a reply to the completion of a multipart upload.

    The status 200 comes before the work is done, and white space while it is: then the body has the outcome.
    """
    body = reply.body.lstrip()
    name, _ = xml_codec.read_any(body)
    if name == "Error":
        raise refusals.read(replace(reply, body=body))
    if name != "CompleteMultipartUploadResult":
        raise bad_response("reply is not a <CompleteMultipartUploadResult>")
