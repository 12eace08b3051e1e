"""The deployment's secret for creates, and what is derived from it: record keys, body digests, markers and MACs.

Keys of one purpose each are derived by HKDF-SHA256 (RFC 5869) with the namespace, so two deployments that share a
server or a bucket never take each other's records and markers for their own. The secret is never stored with the
records: who can read or write the store alone can neither guess a password from a digest nor forge a record.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import b32encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from docpreview.v1.preview_job_pb2 import PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.upstream.wire.user_data import (
    BODY_LENGTH,
    CALLER_LENGTH,
    CHECK_LENGTH,
    KEY_LENGTH,
    NONCE_LENGTH,
    Marker,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SECRET_BYTES = 32
MAC_BYTES = 16
BODY_BYTES = 16
NONCE_BYTES = 8
UNRECORDED = bytes(NONCE_BYTES)
"""The nonce of creates that need no record: their jobs are ours, and nobody is missing a record of them."""
_PARTIAL = b"marker:"


@dataclass(frozen=True, slots=True)
class _Derived:
    """Keys derived from one secret. `id` names the secret in records; it tells nothing about it."""

    id: str
    scope: bytes
    body: bytes
    record: bytes
    marker: bytes
    place: bytes


class CreateKeys:
    """The keys of a deployment. `all_secrets`: the current one first, then those that it replaced, 32 bytes each."""

    def __init__(self, namespace: str, all_secrets: Sequence[bytes]) -> None:
        derived = [_derive(namespace, secret) for secret in all_secrets]
        self.namespace = namespace
        self._current = derived[0]
        self._by_id = {keys.id: keys for keys in derived}

    @property
    def id(self) -> str:
        """The id of the current secret."""
        return self._current.id

    @property
    def ids(self) -> list[str]:
        """The ids of all secrets, the current one first."""
        return list(self._by_id)

    def record_keys(self, caller: str, bucket: str, request_id: str) -> list[str]:
        """The record's key under each secret, the current one first."""
        scope = f"{caller}\n{bucket}\n{request_id.lower()}"
        return [_word(keys.scope, scope.encode(), KEY_LENGTH) for keys in self._by_id.values()]

    def body(self, request: CreatePreviewJobRequest, kid: str = "") -> bytes:
        """A digest of all that the caller asked for, its document's password included, but not of `request_id`."""
        keys = self._by_id[kid] if kid else self._current
        return hmac.digest(keys.body, canonical(request), "sha256")[:BODY_BYTES]

    def place(self, text: str) -> str:
        """A digest of an output place."""
        return _word(self._current.place, text.encode(), KEY_LENGTH)

    def render(self, text: bytes) -> str:
        """A digest of a document's content and of all that shapes its pages."""
        return _word(self._current.place, b"render\n" + text, KEY_LENGTH)

    def mac(self, packed: bytes, kid: str) -> bytes:
        """The MAC of a packed record under the secret of this id. KeyError when the secret is not known."""
        return hmac.digest(self._by_id[kid].record, packed, "sha256")[:MAC_BYTES]

    def caller_tag(self, caller: str) -> str:
        """What markers carry of a caller's name, so that its pages can be counted from a list."""
        return _word(self._current.marker, b"caller\n" + caller.encode(), CALLER_LENGTH)

    def marker(self, key: str, body: bytes, caller: str, nonce: bytes) -> Marker:
        """The marker of one attempt of a create."""
        keys = self._current
        words = (key, _base32(body)[:BODY_LENGTH], self.caller_tag(caller), _base32(nonce)[:NONCE_LENGTH])
        return Marker(*words, _word(keys.marker, "".join(words).encode(), CHECK_LENGTH))

    def is_ours(self, marker: Marker) -> bool:
        """Whether the marker was made with one of these secrets: its check cannot be forged."""
        return bool(self.secret_of(marker))

    def secret_of(self, marker: Marker) -> str:
        """The id of the secret with which the marker was made; empty: with none of these."""
        text = "".join(marker[:-1]).encode()
        for keys in self._by_id.values():
            if hmac.compare_digest(_word(keys.marker, text, CHECK_LENGTH), marker.check):
                return keys.id
        return ""

    def caller_tags(self, caller: str) -> list[str]:
        """The caller's tag under each secret."""
        return [_word(keys.marker, b"caller\n" + caller.encode(), CALLER_LENGTH) for keys in self._by_id.values()]

    def wrap(self, secret: bytes) -> bytes:
        """Another secret of 32 bytes, encrypted, so that it may stand in a store. `unwrap` reads it."""
        nonce = secrets.token_bytes(16)
        pad, check = self._pad(self._current, nonce)
        hidden = nonce + bytes(one ^ other for one, other in zip(secret, pad, strict=True))
        return hidden + hmac.digest(check, hidden, "sha256")

    def unwrap(self, wrapped: bytes) -> bytes | None:
        """The secret that `wrap` was given; None when another deployment's `wrap` was."""
        hidden, mac = wrapped[:-32], wrapped[-32:]
        for keys in self._by_id.values():
            pad, check = self._pad(keys, hidden[:16])
            if hmac.compare_digest(mac, hmac.digest(check, hidden, "sha256")):
                return bytes(one ^ other for one, other in zip(hidden[16:], pad, strict=True))
        return None

    @staticmethod
    def _pad(keys: _Derived, nonce: bytes) -> tuple[bytes, bytes]:
        """A one-time pad and a key for its check. No namespace, and so no record's MAC, begins with these bytes."""
        pad, check = (hmac.digest(keys.record, b"\x00%s\x00" % use + nonce, "sha256") for use in (b"wrap", b"check"))
        return pad, check

    def path_token(self, key: str, kid: str = "") -> str:
        """What `${RequestToken}` in an output template becomes: the same for all attempts of a create.

        `kid` is that of its record; without one the current secret's.
        """
        keys = self._by_id.get(kid, self._current)
        return f"dg2-{key}{_word(keys.marker, b'path' + key.encode(), CHECK_LENGTH)}"


def of_marker(marker: Marker) -> bytes:
    """As much of a request's digest as its marker has: `same_body` compares it with a whole one."""
    return _PARTIAL + marker.body.encode()


def is_of_marker(body: bytes) -> bool:
    """Whether a record's digest is that of a marker: it was made of the cloud's list, not by a create."""
    return body.startswith(_PARTIAL) and len(body) == len(_PARTIAL) + BODY_LENGTH


def is_unrecorded(marker: Marker) -> bool:
    """Whether the marker is that of a create that needed no record."""
    return marker.nonce == _base32(UNRECORDED)[:NONCE_LENGTH]


def same_body(stored: bytes, body: bytes) -> bool:
    """Whether a stored digest is that of a request, by as much as is known of it."""
    if is_of_marker(stored):
        return stored[len(_PARTIAL) :].decode() == _base32(body)[:BODY_LENGTH]
    return hmac.compare_digest(stored, body)


def new_nonce() -> bytes:
    """A nonce for one attempt."""
    return secrets.token_bytes(NONCE_BYTES)


def random_key() -> str:
    """The key of a create without `request_id`."""
    return _base32(secrets.token_bytes(15))


def canonical(request: CreatePreviewJobRequest) -> bytes:
    """The request as bytes that are equal for requests that ask for the same.

    Fields that this version does not know are left out, an `options` message without options is none, and an output
    or image bucket that is named like the input's is the default. `request_id` is left out.
    """
    body = CreatePreviewJobRequest()
    body.CopyFrom(request)
    body.DiscardUnknownFields()
    body.ClearField("request_id")
    if body.options == PreviewOptions():
        body.ClearField("options")
    if body.output.bucket == body.bucket:
        body.output.ClearField("bucket")
    body.output.ClearField("region")
    if body.options.HasField("watermark"):
        image = body.options.watermark.image
        if image.bucket == body.bucket:
            image.ClearField("bucket")
        image.ClearField("region")
    return body.SerializeToString(deterministic=True)


def _derive(namespace: str, secret: bytes) -> _Derived:
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"a secret has at least {SECRET_BYTES} bytes")
    # RFC 5869 with one block of output for each purpose; the namespace is the salt.
    pseudo_random = hmac.digest(namespace.encode(), secret, "sha256")

    def purpose(name: str) -> bytes:
        return hmac.digest(pseudo_random, f"docpreview {name}".encode() + b"\x01", "sha256")

    keys = (purpose(name) for name in ("scope", "body", "record", "marker", "place"))
    return _Derived(_base32(purpose("id"))[:8], *keys)


def _word(key: bytes, text: bytes, length: int) -> str:
    return _base32(hmac.digest(key, text, "sha256"))[:length]


def _base32(value: bytes) -> str:
    return b32encode(value).decode().lower().rstrip("=")
