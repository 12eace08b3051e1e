"""Upload tokens: all that is known of an upload, sealed, and bound to its caller.

No replica keeps uploads: the token is the record. The bucket's name is in it in the clear, because the secret that
seals it is the bucket's (`model.sealed`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from docpreview_gateway.model.errors import InvalidRequest, Violation
from docpreview_gateway.model.sealed import NONCE_BYTES, from_text, opened, seal, to_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.uploads.ports import TokenSecrets

VALID_SECONDS = 86400
"""How long a token can be used."""

_PURPOSE = b"docpreview upload tokens v1"
_VERSION = b"\x01"


@dataclass(frozen=True, slots=True)
class Announced:
    """An upload as it was announced.

    `multipart` is the cloud's id of its multipart upload; empty: it has one part, which is the object. `until` is the
    Unix time at which the token expires.
    """

    object: str
    upload_id: str
    content_length: int
    content_type: str
    content_crc64: int | None
    until: int
    multipart: str = ""


class UploadTokens:
    """Makes and reads upload tokens. `find` finds a bucket by name, `random_bytes` returns so many random bytes."""

    def __init__(
        self,
        secrets: TokenSecrets,
        find: Callable[[str], Bucket | None],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._secrets = secrets
        self._find = find
        self._random_bytes = random_bytes

    def encode(self, upload: Announced, bucket: Bucket, caller: Caller) -> str:
        """The token of an upload to a bucket."""
        (secret, *_) = self._secrets.secret_keys(bucket.credentials)
        value = json.dumps(asdict(upload), ensure_ascii=False, separators=(",", ":")).encode()
        sealed = seal(value, secret, _PURPOSE, _bound_to(bucket.name, caller), self._random_bytes(NONCE_BYTES))
        name = bucket.name.encode()
        return to_text(_VERSION + bytes([len(name)]) + name + sealed)

    def decode(self, token: str, caller: Caller) -> tuple[Bucket, Announced]:
        """The bucket and the upload of a token, which may have expired. `not_a_token` for one of anything else."""
        raw = from_text(token)
        if raw is None or len(raw) < len(_VERSION) + 1 or raw[:1] != _VERSION:
            raise not_a_token()
        end = 2 + raw[1]
        bucket = self._find(raw[2:end].decode(errors="replace"))
        if bucket is None:
            raise not_a_token()
        secrets = self._secrets.secret_keys(bucket.credentials)
        value = opened(raw[end:], secrets, _PURPOSE, _bound_to(bucket.name, caller))
        if value is None:
            raise not_a_token()
        return bucket, Announced(**json.loads(value))


def _bound_to(bucket: str, caller: Caller) -> bytes:
    name = caller.name.encode()
    return b"%b%d\0%b%b" % (_VERSION, len(name), name, bucket.encode())


def not_a_token() -> InvalidRequest:
    """The one error for every token that cannot be used: it does not reveal whose token it is."""
    return InvalidRequest(
        [
            Violation(
                "upload_token",
                "is not a token of an upload that you began in the last day: pass the upload_token of CreateUpload "
                "unchanged, or begin the upload again",
            )
        ]
    )
