"""Sealed values: encrypted and authenticated texts that callers hold for the gateway.

AES-256-GCM-SIV (RFC 8452) with a key derived by HKDF-SHA256 (RFC 5869) from a secret that all replicas have.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

NONCE_BYTES = 12
SEAL_BYTES = NONCE_BYTES + 16
"""By how much a sealed value is longer than the value."""


def seal(value: bytes, secret: str, purpose: bytes, bound_to: bytes, nonce: bytes) -> bytes:
    """The value, sealed for a purpose, and bound to what has to be the same when it is opened."""
    return nonce + _cipher(secret, purpose).encrypt(nonce, value, bound_to)


def opened(sealed: bytes, secrets: Iterable[str], purpose: bytes, bound_to: bytes) -> bytes | None:
    """The value in `sealed`; None when it was sealed with none of the secrets, or for anything else."""
    if len(sealed) < SEAL_BYTES:
        return None
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as in `_cipher`

    for secret in secrets:
        try:
            return _cipher(secret, purpose).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
        except InvalidTag:
            continue
    return None


def to_text(raw: bytes) -> str:
    """Bytes as a text for URLs: base64 without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def from_text(text: str) -> bytes | None:
    """The bytes of `to_text`; None for every other text, also for another spelling of the same bytes."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if to_text(raw) == text else None


def _cipher(secret: str, purpose: bytes) -> AESGCMSIV:
    # Imported at the first use: the package takes 6 MiB.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    return AESGCMSIV(HKDF(SHA256(), 32, salt=None, info=purpose).derive(secret.encode()))
