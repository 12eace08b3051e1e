"""Static tokens: `dpt_<id>_<secret>`, stored as a salted hash only.

The secret has 256 random bits and cannot be guessed, so a fast hash is as safe as a slow one. The id makes the look-up
one step, whatever the number of tokens.
"""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "dpt"
_TOKEN = re.compile(r"dpt_([a-z2-7]{16})_([A-Za-z0-9_-]{43})", re.ASCII)
_HASH = re.compile(r"dpt1:([a-z2-7]{16}):([0-9a-f]{32}):([0-9a-f]{64})", re.ASCII)
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True, slots=True)
class TokenHash:
    """The stored form of a token, from which the token cannot be derived."""

    token_id: str
    salt: bytes
    digest: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"dpt1:{self.token_id}:{self.salt.hex()}:{self.digest.hex()}"

    def matches(self, secret: str) -> bool:
        """Whether this is the token's secret; a comparison in constant time."""
        return hmac.compare_digest(self.digest, _digest(self.salt, secret))


DUMMY_HASH = TokenHash("a" * 16, bytes(16), bytes(32))
"""Compared for an unknown id, so that it takes as long as a known one."""


def parse_hash(text: str) -> TokenHash:
    """Parse a hash of the policy. ValueError, without quoting it, when it is malformed."""
    match = _HASH.fullmatch(text)
    if match is None:
        raise ValueError("must be a hash as `docpreview-gateway token new` prints it, beginning with dpt1:")
    return TokenHash(match[1], bytes.fromhex(match[2]), bytes.fromhex(match[3]))


def split(token: str) -> tuple[str, str] | None:
    """Id and secret of a token; None when it is malformed."""
    match = _TOKEN.fullmatch(token)
    return (match[1], match[2]) if match else None


def new(random: Callable[[int], bytes]) -> tuple[str, TokenHash]:
    """A new token and its hash. `random` returns a number of unpredictable bytes."""
    token_id = "".join(_ID_LETTERS[byte % len(_ID_LETTERS)] for byte in random(16))
    secret = _b64url(random(32))
    salt = random(16)
    return f"{PREFIX}_{token_id}_{secret}", TokenHash(token_id, salt, _digest(salt, secret))


def _digest(salt: bytes, secret: str) -> bytes:
    return hmac.digest(salt, secret.encode(), "sha256")


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
