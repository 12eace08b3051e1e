"""The unguessable part of the address that the cloud calls back.

It keeps strangers from making the gateway read jobs; it proves nothing about a callback. One token serves all jobs of a
bucket: the address may have 100 characters (vendor document 1045/47936). That of creates changes every week. That of
queues lasts as long as its secret: a queue keeps its address until an operator writes another one.
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
        """The bucket that a token was made for, None: it was not.

        A token of creates counts in its week and in those beside it.
        """
        week = int(now // WEEK_SECONDS)
        found = None
        # All are compared: the time that it takes says nothing of a token that is almost right.
        for bucket in buckets:
            for secret in self._secrets:
                made = [self._made(secret, bucket, each) for each in (week, week - 1, week + 1)]
                for each in (*made, self._of_queues(secret, bucket)):
                    if hmac.compare_digest(token.encode(), each.encode()):
                        found = bucket
        return found

    def queue_token(self, bucket: str) -> str:
        """The token of the bucket's queues: as long as that of creates, and without an end."""
        return self._of_queues(self._secrets[0], bucket)

    def is_queue_token(self, token: str, bucket: str) -> bool:
        """Whether a token is that of the bucket's queues, by any secret of this deployment."""
        made = [self._of_queues(secret, bucket) for secret in self._secrets]
        return any(hmac.compare_digest(token.encode(), each.encode()) for each in made)

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
        return _token(secret, "callback", self._namespace, bucket, str(week))

    def _of_queues(self, secret: bytes, bucket: str) -> str:
        return _token(secret, "queue callback", self._namespace, bucket)


def _token(secret: bytes, *parts: str) -> str:
    digest = hmac.new(secret, "\n".join(parts).encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest[:_BYTES]).decode().rstrip("=")
