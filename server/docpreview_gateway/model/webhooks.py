"""Outgoing webhooks: their targets, and signatures by Standard Webhooks (https://www.standardwebhooks.com).

A target is named by the policy; no address comes from a caller.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SECRET_PREFIX = "whsec_"
MOST_SECRETS = 2
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
"""Bytes of a secret, as Standard Webhooks wants them."""


class WebhookTarget(NamedTuple):
    """A named receiver of events. `secret_file` has the secrets that sign what it is sent, as `parse_secrets` reads."""

    name: str
    url: str
    secret_file: Path


class SecretsError(ValueError):
    """Text that is no secrets of a webhook. The message quotes nothing of it."""


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """The one or two secrets of a file: a line each, `whsec_` and 24 to 64 bytes in base64. SecretsError."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(lines) <= MOST_SECRETS:
        raise SecretsError("must have one line with a secret, or two while it is replaced")
    return tuple(_secret(line) for line in lines)


def _secret(line: str) -> bytes:
    try:
        secret = base64.b64decode(line.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not (line.startswith(SECRET_PREFIX) and MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES):
        raise SecretsError(
            f"each line must be {SECRET_PREFIX} and {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random bytes in base64, "
            'as of: echo "whsec_$(openssl rand -base64 32)"'
        )
    return secret


def signature_headers(event_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """The headers that prove who sent a body, and when (Unix seconds). It is signed with each of the secrets."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(secret, signed, "sha256") for secret in secrets)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }
