"""Opaque page tokens: a position in a list, encrypted, and bound to the caller and to the list's filters.

Sealed (`model.sealed`) with the secret key of the bucket's cloud credentials, which all replicas have. The filters and
the caller's name are authenticated with the position. Tokens are padded, so that their length tells nothing about the
position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.errors import InvalidRequest, Violation, bad_response
from docpreview_gateway.model.sealed import NONCE_BYTES, SEAL_BYTES, from_text, opened, seal, to_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.jobs.ports import TokenSecrets
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.callers import Caller

Listing = TypeVar("Listing", ListPreviewJobsRequest, ListPreviewQueuesRequest)

MAX_TOKEN = 1024
"""Characters of the longest token that requests may carry."""

_INFO = b"docpreview page tokens v1"
_VERSION = b"\x02"
_BLOCK_BYTES = 256
"""Positions are padded to a multiple of this: with the cursors of today's cloud all tokens have one length."""

_NOT_FILTERS = ("page_token", "page_size", "include_pages")


class PageTokens:
    """Makes and reads page tokens. `random_bytes` returns so many random bytes."""

    def __init__(self, secrets: TokenSecrets, random_bytes: Callable[[int], bytes]) -> None:
        self._secrets = secrets
        self._random_bytes = random_bytes

    def encode(self, request: Listing, bucket: Bucket, caller: Caller, position: str) -> str:
        """The token of a position in the list of `request`; empty for an empty position: the end of the list.

        The position has no NUL. UPSTREAM_BAD_RESPONSE when it is too long for a token.
        """
        if not position:
            return ""
        plain = position.encode()
        plain += bytes(-len(plain) % _BLOCK_BYTES)
        (secret, *_) = self._secrets.secret_keys(bucket.credentials)
        sealed = seal(plain, secret, _INFO, _bound_to(request, caller), self._random_bytes(NONCE_BYTES))
        token = to_text(_VERSION + sealed)
        if len(token) > MAX_TOKEN:
            raise bad_response("the list's NextToken is longer than the gateway's page tokens can hold")
        return token

    def decode(self, request: Listing, bucket: Bucket, caller: Caller) -> str:
        """The position in the request's `page_token`; empty for the first page.

        InvalidRequest, always the same, when the token was not made for this list, these filters and this caller, or
        with cloud credentials that were replaced long ago.
        """
        if not request.page_token:
            return ""
        raw = from_text(request.page_token)
        if raw is None or raw[:1] != _VERSION or len(raw) <= 1 + SEAL_BYTES:
            raise not_a_token()
        secrets = self._secrets.secret_keys(bucket.credentials)
        plain = opened(raw[1:], secrets, _INFO, _bound_to(request, caller))
        if plain is None:
            raise not_a_token()
        return plain.rstrip(b"\0").decode()


def filters_of(request: Listing) -> Listing:
    """The request without the fields that do not filter: page size, token, and how much of each job is returned."""
    filters = type(request)()
    filters.CopyFrom(request)
    for name in _NOT_FILTERS:
        if name in filters.DESCRIPTOR.fields_by_name:
            filters.ClearField(name)  # type: ignore[arg-type]
    return filters


def not_a_token() -> InvalidRequest:
    """The one error for every token that cannot be used: it does not reveal whose token it is."""
    return InvalidRequest(
        [
            Violation(
                "page_token",
                "is not a token of this list: pass next_page_token unchanged with the same filters, "
                "or start the list again without a token",
            )
        ]
    )


def _bound_to(request: Listing, caller: Caller) -> bytes:
    """What a token is valid for, unambiguously: version, kind of list, caller, filters."""
    name, kind = caller.name.encode(), request.DESCRIPTOR.full_name.encode()
    filters = filters_of(request).SerializeToString(deterministic=True)
    return b"%b%b\0%d\0%b%b" % (_VERSION, kind, len(name), name, filters)
