"""Opaque page tokens: the cloud's cursor and a digest of the list's filters."""

from __future__ import annotations

import base64
import binascii
from hashlib import blake2b
from typing import TypeVar

from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.errors import InvalidRequest, Violation

_VERSION = b"\x01"
_DIGEST_BYTES = 12
_HEAD = len(_VERSION) + _DIGEST_BYTES
_NOT_FILTERS = ("page_token", "page_size", "include_pages")

Listing = TypeVar("Listing", ListPreviewJobsRequest, ListPreviewQueuesRequest)


def encode(request: ListPreviewJobsRequest | ListPreviewQueuesRequest, cursor: str) -> str:
    """The token of the page of `request` at the cloud's `cursor`; empty at the end of the list."""
    if not cursor:
        return ""
    return base64.urlsafe_b64encode(_VERSION + _digest(request) + cursor.encode()).decode().rstrip("=")


def decode(request: ListPreviewJobsRequest | ListPreviewQueuesRequest) -> str:
    """The cloud's cursor in the request's `page_token`; empty for the first page.

    InvalidRequest when the token is not one of this gateway, or was made for other filters.
    """
    if not request.page_token:
        return ""
    try:
        padded = request.page_token + "=" * (-len(request.page_token) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        cursor = raw[_HEAD:].decode()
    except (binascii.Error, ValueError):
        raise _refuse("is not a token of this gateway; pass next_page_token unchanged") from None
    if raw[:1] != _VERSION or not cursor.isprintable() or not cursor:
        raise _refuse("is not a token of this gateway; pass next_page_token unchanged")
    if raw[1:_HEAD] != _digest(request):
        raise _refuse("belongs to a list with other filters; repeat all filters, or start without a token")
    return cursor


def _digest(request: ListPreviewJobsRequest | ListPreviewQueuesRequest) -> bytes:
    filters = type(request)()
    filters.CopyFrom(request)  # type: ignore[arg-type]
    for name in _NOT_FILTERS:
        if name in filters.DESCRIPTOR.fields_by_name:
            filters.ClearField(name)  # type: ignore[arg-type]
    content = filters.DESCRIPTOR.full_name.encode() + filters.SerializeToString(deterministic=True)
    return blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _refuse(description: str) -> InvalidRequest:
    return InvalidRequest([Violation("page_token", description)])
