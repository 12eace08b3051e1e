"""The unguessable part of the address that the cloud calls back, which changes every week.

It keeps strangers from making the gateway read jobs; it proves nothing about a callback. One token serves all jobs of a
bucket: the address may have 100 characters (vendor document 1045/47936).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WEEK_SECONDS = 7 * 86400
_BYTES = 16


class CallbackTokens:
    """Makes and recognises the tokens of buckets. `secrets` are the deployment's: the first makes tokens, all count."""

    def __init__(self, secrets: Sequence[bytes], namespace: str) -> None:
        self._secrets = secrets
        self._namespace = namespace

    def token(self, bucket: str, now: float) -> str:
        """The bucket's token at this Unix time: 22 letters, digits, `-` and `_`."""
        return self._made(self._secrets[0], bucket, int(now // WEEK_SECONDS))

    def bucket(self, token: str, buckets: Iterable[str], now: float) -> str | None:
        """The bucket that a token was made for, in this week, the one before or the next one; None: it was not."""
        week = int(now // WEEK_SECONDS)
        found = None
        # All are compared: the time that it takes says nothing of a token that is almost right.
        for bucket in buckets:
            for secret in self._secrets:
                for each in (week, week - 1, week + 1):
                    if hmac.compare_digest(token.encode(), self._made(secret, bucket, each).encode()):
                        found = bucket
        return found

    def probe(self, now: float) -> str:
        """The token by which `doctor` asks what answers to prove itself; it is no bucket's."""
        return self.token("", now)

    def is_probe(self, token: str, now: float) -> bool:
        """Whether a token is one of `doctor` with a secret of this deployment."""
        return self.bucket(token, [""], now) is not None

    def proof(self, nonce: str) -> str:
        """What only a holder of the deployment's current secret can answer to a nonce."""
        return self._proofs(nonce)[0]

    def is_proof(self, nonce: str, answer: str) -> bool:
        """Whether an answer proves that its sender has a secret of this deployment."""
        return any(hmac.compare_digest(answer.encode(), each.encode()) for each in self._proofs(nonce))

    def _proofs(self, nonce: str) -> list[str]:
        text = f"callback proof\n{self._namespace}\n{nonce}".encode()
        return [hmac.new(secret, text, hashlib.sha256).hexdigest() for secret in self._secrets]

    def _made(self, secret: bytes, bucket: str, week: int) -> str:
        text = "\n".join(("callback", self._namespace, bucket, str(week))).encode()
        digest = hmac.new(secret, text, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:_BYTES]).decode().rstrip("=")
