"""Finding out who calls: by client certificate, static token or signed token, whatever the call brings."""

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

REMEMBERED_TOKENS = 4096
REMEMBERED_SECONDS = 60.0
"""How long a verified token is taken at its word; never longer than it is valid, nor than the policy stays as it is."""


class Authenticator:
    """The port `Authentication` over a directory that may be replaced at any time.

    `certificates` None: the server asks for none. Signed tokens are remembered by their hash for a while, never the
    token itself.
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
        """From now on these are the callers, and what was remembered of the old ones is forgotten."""
        self._directory = directory
        self.forget()

    def forget(self) -> None:
        """Verify every signed token again."""
        self._seen: LRUCache[bytes, tuple[Caller, float]] = LRUCache(REMEMBERED_TOKENS)

    async def caller(self, evidence: Evidence) -> Caller:
        """The caller that every proof of the call names."""
        by_certificate = self._by_certificate(evidence)
        token = bearer(evidence.authorization)
        if token is None:
            if by_certificate is None:
                raise Unauthenticated("neither a token nor a certificate of a known caller")
            return by_certificate
        caller = self._directory.by_token(token) or await self._by_signed_token(token)
        if by_certificate is not None and by_certificate.name != caller.name:
            raise Unauthenticated("the certificate and the token are of different callers")
        return caller

    def _by_certificate(self, evidence: Evidence) -> Caller | None:
        if self._certificates is None or not (pem := evidence.certificate()):
            return None
        return self._directory.by_names(self._certificates.names(pem, self._clock.now()))

    async def _by_signed_token(self, token: str) -> Caller:
        if not self._verifiers:
            raise Unauthenticated("an unknown token")
        key = sha256(token.encode()).digest()
        caller, until = self._seen.get(key, (None, 0.0))
        if caller is not None and self._clock.now() < until:
            return caller
        return await self._verified(token, key)

    async def _verified(self, token: str, key: bytes) -> Caller:
        directory, seen = self._directory, self._seen
        for verifier in self._verifiers:
            claims = await verifier.claims(token)
            if claims is not None:
                caller = directory.by_claims(claims)
                if caller is None:
                    raise Unauthenticated("a valid token of nobody that the policy names")
                # Into the memory of the directory that was asked: a policy that came in between starts with none.
                seen[key] = caller, self._until(claims)
                return caller
        raise Unauthenticated("an unknown token")

    def _until(self, claims: Mapping[str, Any]) -> float:
        return min(float(claims["exp"]), self._clock.now() + REMEMBERED_SECONDS)
