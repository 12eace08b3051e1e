"""Opaque page tokens: a position in a list, encrypted, and bound to the caller and to the list's filters.

AES-256-GCM-SIV (RFC 8452) with a key derived by HKDF-SHA256 (RFC 5869) from the secret key of the bucket's cloud
credentials, which all replicas have. The filters and the caller's name are authenticated with the position. Tokens are
padded, so that their length tells nothing about the position.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, TypeVar

from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.errors import InvalidRequest, Violation, bad_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

    from docpreview_gateway.jobs.ports import TokenSecrets
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.callers import Caller

Listing = TypeVar("Listing", ListPreviewJobsRequest, ListPreviewQueuesRequest)

MAX_TOKEN = 1024
"""Characters of the longest token that requests may carry."""

_INFO = b"docpreview page tokens v1"
_VERSION = b"\x02"
_NONCE_BYTES = 12
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
        nonce = self._random_bytes(_NONCE_BYTES)
        (secret, *_) = self._secrets.secret_keys(bucket.credentials)
        token = _text(_VERSION + nonce + _cipher(secret).encrypt(nonce, plain, _bound_to(request, caller)))
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
        raw = _bytes(request.page_token)
        nonce, sealed = raw[1 : 1 + _NONCE_BYTES], raw[1 + _NONCE_BYTES :]
        if raw[:1] != _VERSION or len(sealed) <= _BLOCK_BYTES:
            raise not_a_token()
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as in `_cipher`

        for secret in self._secrets.secret_keys(bucket.credentials):
            try:
                plain = _cipher(secret).decrypt(nonce, sealed, _bound_to(request, caller))
            except InvalidTag:
                continue
            return plain.rstrip(b"\0").decode()
        raise not_a_token()


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


def _cipher(secret: str) -> AESGCMSIV:
    # Imported with the first token: the package takes 6 MiB.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    return AESGCMSIV(HKDF(SHA256(), 32, salt=None, info=_INFO).derive(secret.encode()))


def _bound_to(request: Listing, caller: Caller) -> bytes:
    """What a token is valid for, unambiguously: version, kind of list, caller, filters."""
    name, kind = caller.name.encode(), request.DESCRIPTOR.full_name.encode()
    filters = filters_of(request).SerializeToString(deterministic=True)
    return b"%b%b\0%d\0%b%b" % (_VERSION, kind, len(name), name, filters)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(token: str) -> bytes:
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise not_a_token() from None
    if _text(raw) != token:  # another spelling of the same bytes
        raise not_a_token()
    return raw
