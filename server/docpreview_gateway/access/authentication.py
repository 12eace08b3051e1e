"""Authentication of calls by client certificate, static token or signed token (JWT)."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from cachetools import LRUCache

from docpreview_gateway.access.directory import Directory, Unauthenticated, bearer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from docpreview_gateway.access.ports import CertificateReader, Evidence, TokenVerifier
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.model.webhooks import WebhookTarget

CACHED_TOKENS = 4096
CACHED_TOKEN_SECONDS = 60.0
"""How long a verified token is cached; less when the token expires or the policy changes before."""


class Authenticator:
    """`Authentication` by a directory that may be replaced at any time.

    `certificates` None: the server does not request client certificates. Verified signed tokens are cached by their
    hash, never as text.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        certificates: CertificateReader | None = None,
        verifiers: Sequence[TokenVerifier] = (),
        clock: Clock,
    ) -> None:
        self._certificates = certificates
        self._verifiers = verifiers
        self._clock = clock
        self.replace(directory)

    def replace(self, directory: Directory) -> None:
        """Use this directory from now on, with an empty token cache."""
        self._directory = directory
        self.forget()

    def callers(self) -> tuple[Caller, ...]:
        """The callers of the present directory."""
        return tuple(self._directory.callers.values())

    def webhooks(self) -> Mapping[str, WebhookTarget]:
        """The webhook targets of the present directory, by name."""
        return self._directory.webhooks

    def forget(self) -> None:
        """Empty the token cache, so that every signed token is verified again."""
        self._cache: LRUCache[bytes, tuple[Caller, float]] = LRUCache(CACHED_TOKENS)

    async def caller(self, evidence: Evidence) -> Caller:
        """The caller that the call's credentials identify.

        Unauthenticated when they identify none or different callers, or one is invalid; IDENTITY_UNAVAILABLE when they
        cannot be verified now.
        """
        by_certificate = self._by_certificate(evidence)
        token = bearer(evidence.authorization)
        if token is None:
            if by_certificate is None:
                raise Unauthenticated("no token, and no certificate of a known caller")
            return by_certificate
        caller = self._directory.by_token(token) or await self._by_signed_token(token)
        if by_certificate is not None and by_certificate.name != caller.name:
            raise Unauthenticated("the certificate and the token belong to different callers")
        return caller

    def _by_certificate(self, evidence: Evidence) -> Caller | None:
        if self._certificates is None or not (pem := evidence.certificate()):
            return None
        return self._directory.by_names(self._certificates.names(pem, self._clock.now()))

    async def _by_signed_token(self, token: str) -> Caller:
        if not self._verifiers:
            raise Unauthenticated("unknown token")
        key = sha256(token.encode()).digest()
        caller, until = self._cache.get(key, (None, 0.0))
        # What is good for longer was verified before the clock was set back.
        if caller is not None and 0 < until - self._clock.now() <= CACHED_TOKEN_SECONDS:
            return caller
        return await self._verified(token, key)

    async def _verified(self, token: str, key: bytes) -> Caller:
        directory, cache = self._directory, self._cache
        for verifier in self._verifiers:
            claims = await verifier.claims(token)
            if claims is not None:
                caller = directory.by_claims(claims)
                if caller is None:
                    raise Unauthenticated("valid token, but its claims belong to no caller of the policy")
                # Into the cache of the directory that was searched: one that replaced it meanwhile has its own.
                cache[key] = caller, self._until(claims)
                return caller
        raise Unauthenticated("unknown token")

    def _until(self, claims: Mapping[str, Any]) -> float:
        return min(float(claims["exp"]), self._clock.now() + CACHED_TOKEN_SECONDS)
